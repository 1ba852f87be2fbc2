package pt

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/host"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/transport"
)

// The server half in a process of its own: the relay gets the program's socket itself, so
// that a plugin that is killed takes no stream with it but through the program, which
// never outlives it.
func TestObfs4PluginProcess(t *testing.T) {
	have(t, "obfs4proxy")
	p := plugintest.Start(t, plugintest.Build(t, "github.com/commucat/commucat/cmd/commucat-transport-pt"), host.Options{})
	env := plugintest.NewLender(t)
	o, err := transport.Open(t.Context(), p.Plugins()[0], env, local)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := o.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for until := time.Now().Add(2 * time.Minute); o.Probe(t.Context()) != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal(o.Probe(t.Context()))
		}
	}
	to, err := ln.(transport.Server).Invite(t.Context(), "127.0.0.1", transport.Guest{})
	if err != nil {
		t.Fatal(err)
	}
	_, got := both(t, open(t, sdk.NewEnv(sdk.EnvOptions{}), nil), ln, to)
	if s := p.Stats(); s.Sockets != 1 || s.Pumped != 0 {
		t.Errorf("the relay has not the socket itself: %+v", s)
	}
	if f := transport.FactsOf(got); f.Hidden || f.Remote.Addr().String() != "127.0.0.1" {
		t.Errorf("%+v", f)
	}
	child := childOf(t, filepath.Join(env.State(), "obfs4"))
	if err := syscall.Kill(p.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = got.SetReadDeadline(time.Now().Add(2 * time.Minute))
	if _, err := io.ReadAll(got); os.IsTimeout(err) {
		t.Error("the stream goes on without the program")
	}
	for until := time.Now().Add(2 * time.Minute); runs(child); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("the program outlives the plugin")
		}
	}
}

// runs says that a process runs; one that has ended may stay until somebody waits for it.
func runs(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}
