package host_test

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/host"
	"github.com/commucat/commucat/sdk/plugintest"
)

// endLeft ends what a plugin has left behind, by the number that it logged.
func endLeft(t *testing.T, log *record) {
	t.Helper()
	m := regexp.MustCompile(`left=(\d+)`).FindStringSubmatch(log.String())
	if m == nil {
		t.Fatalf("nothing was left: %s", log.String())
	}
	pid, err := strconv.Atoi(m[1])
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err != nil {
		t.Error(err)
	}
}

// bounded fails the test when f does not return.
func bounded(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s does not end", what)
	}
}

// Who inherited a plugin's pipes and its hand-off socket, and escaped from its process
// group, holds up neither a start that failed nor a Close.
func TestDescendantsHoldNobodyUp(t *testing.T) {
	file := plugintest.Build(t, hostile)
	t.Run("start", func(t *testing.T) {
		var log record
		bounded(t, "the start", func() {
			p, err := host.Start(t.Context(), host.Options{File: file, Name: "hostile", Args: []string{"leaves"}, Log: log.logger(), Runtime: runtimeFolder(t)})
			if err == nil {
				p.Close()
			}
			if sdk.KindOf(err) != sdk.Unavailable || !strings.Contains(err.Error(), "it ended with status 4") {
				t.Error(err)
			}
		})
		endLeft(t, &log)
	})
	t.Run("close", func(t *testing.T) {
		var log record
		p, o := opened(t, "escape", nil, &log)
		if _, err := o.Listen(t.Context()); sdk.KindOf(err) != sdk.Unavailable {
			t.Error(err)
		}
		bounded(t, "Close", func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
		endLeft(t, &log)
	})
}

// TestName: a list of processes shows the name that the host gave.
func TestName(t *testing.T) {
	p := plugintest.Start(t, plugintest.Build(t, sample), host.Options{Name: "transport door"})
	b, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID()) + "/comm")
	if err != nil || string(b) != "transport door\n" {
		t.Errorf("%q, %v", b, err)
	}
}
