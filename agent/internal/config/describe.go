package config

import (
	"reflect"

	"github.com/stacktrail/stacktrail/plugins"
	"github.com/stacktrail/stacktrail/plugins/conf"
)

// Describe returns the keys of a configuration file, but for what stands in the items of inputs, processors and outputs:
// samples, docs and schema are made from it.
func Describe() []conf.KeyDoc {
	return conf.Describe(reflect.TypeFor[document](), document{Agent: DefaultAgent()})
}

// DescribePolicies returns the keys that stand beside the key of a plugin of this kind. Where spec is one, they have its defaults.
func DescribePolicies(kind plugins.Kind, spec plugins.Spec) []conf.KeyDoc {
	var policies any = ProcessorPolicies{}
	switch kind {
	case plugins.KindInput:
		policies = InputPolicies{}
	case plugins.KindOutput:
		policies = PoliciesOf(spec)
	case plugins.KindProcessor:
	}
	return conf.Describe(reflect.TypeOf(policies), policies)
}
