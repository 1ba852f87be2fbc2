package plugintest

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRun(t *testing.T) {
	var got []string
	var logs strings.Builder
	dir := ""
	ok := Run(t.Context(), "suite", func(r Result) {
		state := "passed"
		if r.Failed {
			state = "failed"
		} else if r.Skipped {
			state = "skipped"
		}
		got = append(got, r.Name+" "+state)
		logs.WriteString(r.Log)
	}, func(t T) {
		t.Run("good", func(t T) {
			dir = t.TempDir()
			t.Cleanup(func() { t.Log("first in, last out") })
			t.Cleanup(func() {
				if t.Context().Err() == nil {
					t.Error("the context outlives its case")
				}
			})
		})
		t.Run("skipped", func(t T) { t.Skip("no reason") })
		t.Run("bad one", func(t T) {
			t.Run("inner", func(t T) { t.Fatalf("%d", 42); t.Log("not reached") })
			t.Run("after", func(t T) {})
		})
		t.Run("panics", func(t T) { panic("oh") })
		t.Run("late", func(t T) { t.Cleanup(func() { t.Fatal("in a cleanup") }) })
	})
	want := []string{
		"suite/good passed", "suite/skipped skipped", "suite/bad_one/inner failed", "suite/bad_one/after passed",
		"suite/bad_one failed", "suite/panics failed", "suite/late failed", "suite failed",
	}
	if d := cmp.Diff(want, got); ok || d != "" {
		t.Error(ok, d)
	}
	for _, s := range []string{"42\n", "first in", "panic: oh", "in a cleanup"} {
		if !strings.Contains(logs.String(), s) {
			t.Errorf("no %q in the log", s)
		}
	}
	if strings.Contains(logs.String(), "not reached") {
		t.Error("Fatalf returned")
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the folder is still there")
	}
}

func TestRunEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ok := Run(ctx, "x", func(Result) {}, func(t T) {
		cancel()
		<-t.Context().Done()
	})
	if !ok {
		t.Error("failed")
	}
}
