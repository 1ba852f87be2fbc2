package plugintest_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"pgregory.net/rapid"

	"github.com/commucat/commucat/sdk/plugintest"
)

const outside = "COMMUCAT_TEST_OUTSIDE"

// TestMain lets the test binary be a program that runs cases, whose flags nobody has read.
func TestMain(m *testing.M) {
	if os.Getenv(outside) == "" {
		os.Exit(m.Run())
	}
	ok := plugintest.Run(context.Background(), "program", func(r plugintest.Result) { fmt.Println(r.Log) }, func(t plugintest.T) {
		rapid.Check(t, func(t *rapid.T) { rapid.Bool().Draw(t, "coin") })
	})
	if !ok {
		os.Exit(1)
	}
}

// TestRunInProgram: a case with random inputs runs in a program as well.
func TestRunInProgram(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), outside+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
