package blackhole

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stacktrail/stacktrail/plugins/plugintest"
)

func TestContract(t *testing.T) {
	plugintest.Output(t, Spec, nil)
}

func TestContextEndsTheDelay(t *testing.T) {
	plugintest.Output(t, Spec, "delay: 1ms")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		began := time.Now()
		if err := (output{time.Hour}).Write(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took != time.Minute {
			t.Errorf("it took %v", took)
		}
		if err := (output{time.Second}).Write(context.Background(), nil); err != nil || time.Since(began) != time.Minute+time.Second {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
	})
}
