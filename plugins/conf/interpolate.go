package conf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Lookup is where interpolation finds its texts. Tests give their own, the agent SystemLookup.
type Lookup struct {
	Env      func(name string) (string, bool)  // ${VAR}, and CREDENTIALS_DIRECTORY for ${cred:name}
	ReadFile func(path string) ([]byte, error) // ${file:/path} and ${cred:name}
}

// SystemLookup looks into the environment and the file system of the process. Files above 1 MiB and what is
// no regular file are refused.
func SystemLookup() Lookup { return Lookup{Env: os.LookupEnv, ReadFile: readSecret} }

func readSecret(path string) ([]byte, error) {
	const most = 1 << 20 // far above any key or certificate bundle
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && len(data) > most {
		err = errors.New("larger than 1MiB")
	}
	return data, err
}

// Interpolate replaces ${VAR}, ${VAR:-default}, ${VAR:?message}, ${file:/path}, ${cred:name} and $$ in every text
// below n, in place, for all Nodes of the document. Keys are left alone, what is put in is never read as YAML, and any other $ stays.
// As in a shell an empty variable counts as unset for :- and :?. One newline at the end of a file is cut.
// Called again it starts from the original text, so that it reads everything anew.
func Interpolate(n Node, lookup Lookup) Faults {
	var faults Faults
	interpolate(n, lookup, &faults)
	return faults.tidy()
}

func interpolate(n Node, lookup Lookup, faults *Faults) {
	for _, k := range n.Keys() {
		interpolate(k.Value, lookup, faults)
	}
	for _, x := range n.Items() {
		interpolate(x, lookup, faults)
	}
	if n.Kind() != Scalar || n.n.tag != "!!str" && !n.n.templated {
		return
	}
	template := n.n.text
	if n.n.templated {
		template = n.n.template
	}
	if !strings.Contains(template, "$") {
		return
	}
	x := expansion{lookup: lookup}
	text := x.expand(template, 0)
	for _, problem := range x.problems {
		*faults = append(*faults, n.Fault("%s", problem))
	}
	n.n.text, n.n.failed = text, len(x.problems) > 0
	if len(x.pieces) == 0 && len(x.problems) == 0 {
		// Only $$: the template is kept so that a second call does not unescape twice.
		n.n.template, n.n.templated = template, text != template
		return
	}
	n.n.template, n.n.templated, n.n.pieces = template, true, x.pieces
	if n.n.plain {
		if n.n.tag = resolve(text); text == "" || n.n.tag == "!!null" || n.n.tag == "!!merge" {
			n.n.tag = "!!str"
		}
	}
}

type expansion struct {
	lookup   Lookup
	pieces   []string
	problems []string
}

func (x *expansion) problem(format string, args ...any) {
	x.problems = append(x.problems, fmt.Sprintf(format, args...))
}

func (x *expansion) expand(s string, depth int) string {
	const deepest = 8 // defaults inside of defaults; nobody reads more
	if depth > deepest {
		x.problem("more than %d ${…} inside of each other", deepest)
		return ""
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i+1 == len(s) {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			s = s[i+2:]
		case '{':
			end := closing(s[i+2:])
			if end < 0 {
				x.problem("a ${ is not closed by }; write $$ for a $ that stands for itself")
				return b.String()
			}
			b.WriteString(x.variable(s[i+2:i+2+end], depth))
			s = s[i+3+end:]
		default:
			b.WriteByte('$')
			s = s[i+1:]
		}
	}
}

// closing returns the index of the } that closes a ${ before s, or -1.
func closing(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '$' && i+1 < len(s) && s[i+1] == '$':
			i++
		case s[i] == '$' && i+1 < len(s) && s[i+1] == '{':
			depth++
			i++
		case s[i] == '}':
			if depth == 0 {
				return i
			}
			depth--
		}
	}
	return -1
}

var (
	variableName   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*`)
	credentialName = regexp.MustCompile(`^[A-Za-z0-9_@:-][A-Za-z0-9_@:.-]*$`)
)

// variable returns the text for what stands between ${ and }.
func (x *expansion) variable(body string, depth int) string {
	if path, ok := strings.CutPrefix(body, "file:"); ok {
		if !filepath.IsAbs(path) {
			x.problem("${file:…} wants an absolute path, found %s", quote(path))
			return ""
		}
		return x.file(path, "${file:"+cut(path)+"}")
	}
	if name, ok := strings.CutPrefix(body, "cred:"); ok {
		what := "${cred:" + cut(name) + "}"
		if !credentialName.MatchString(name) {
			x.problem("${cred:…} wants the name of a credential, found %s", quote(name))
			return ""
		}
		dir, ok := x.lookup.Env("CREDENTIALS_DIRECTORY")
		if !ok || dir == "" {
			x.problem("%s: CREDENTIALS_DIRECTORY is not set; systemd sets it for units with LoadCredential=", what)
			return ""
		}
		return x.file(filepath.Join(dir, name), what)
	}
	name := variableName.FindString(body)
	rest := body[len(name):]
	op := ""
	if len(rest) >= 2 && (rest[:2] == ":-" || rest[:2] == ":?") {
		op, rest = rest[:2], rest[2:]
	}
	if name == "" || op == "" && rest != "" {
		x.problem("cannot read ${…} here; known are ${VAR}, ${VAR:-default}, ${VAR:?message}, ${file:/path}, ${cred:name}, " +
			"and $$ for a $ that stands for itself")
		return ""
	}
	value, ok := x.lookup.Env(name)
	switch {
	case op == ":-" && value == "":
		return x.put(x.expand(rest, depth+1))
	case op == ":?" && value == "":
		if rest == "" {
			rest = "not set"
		}
		x.problem("environment variable %s: %s", name, rest)
	case !ok:
		x.problem("environment variable %s is not set; write ${%s:-…} to give a default", name, name)
	}
	return x.put(value)
}

func (x *expansion) file(path, what string) string {
	data, err := x.lookup.ReadFile(path)
	if err != nil {
		if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) {
			err = pathErr.Err
		}
		x.problem("reading %s: %v", what, err)
		return ""
	}
	return x.put(strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"))
}

func (x *expansion) put(piece string) string {
	x.pieces = append(x.pieces, piece)
	return piece
}
