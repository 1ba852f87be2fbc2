package pt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/transport/internal/agent"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// Links that name methods which do not exist do not keep others out.
func TestUnknownMethodsTakeNoPlace(t *testing.T) {
	o := open(t, sdk.NewEnv(sdk.EnvOptions{}), nil)
	for i := range 3 * maxChildren {
		_, err := o.Dial(t.Context(), transport.Endpoint{Host: "h", Port: 1, Params: map[string]string{paramMethod: fmt.Sprintf("m%d", i)}}, transport.Dial{})
		if !errors.Is(err, sdk.NotFound) {
			t.Fatalf("method %d: %v", i, err)
		}
	}
}

// Who waits for another's start waits no longer than its own limit, and not what is
// being started is swept away.
func TestWaitingForAStartIsBounded(t *testing.T) {
	o := open(t, sdk.NewEnv(sdk.EnvOptions{}), nil)
	cs := o.(*agent.Opened).Client.(*clients)
	held := &client{turn: make(chan struct{}, 1)}
	held.turn <- struct{}{}
	cs.all["obfs4"] = held
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	_, err := o.Dial(ctx, transport.Endpoint{Host: "h", Port: 1, Params: map[string]string{paramMethod: "obfs4"}}, transport.Dial{})
	if !errors.Is(err, enough) || !errors.Is(err, sdk.Unavailable) {
		t.Error(err)
	}
	cs.mu.Lock()
	swept := cs.sweep()
	cs.mu.Unlock()
	if swept || held.gone {
		t.Error("what is being started was swept away")
	}
	<-held.turn
}

// The sandbox lets start what the plugin looks for.
func TestEveryProgramIsNeeded(t *testing.T) {
	var needed []string
	for _, n := range transport.DescriptorOf(Plugin()).Needs {
		if n.Kind == transport.Program {
			needed = strings.Split(n.Value, "|")
		}
	}
	for _, p := range programs() {
		for _, name := range slices.Concat(p.server, p.client) {
			if !slices.Contains(needed, name) {
				t.Errorf("%s is not among %q", name, needed)
			}
		}
	}
}

// Close does not wait for a start that never comes to an end.
func TestCloseEndsAStart(t *testing.T) {
	dir := t.TempDir()
	program, mark := filepath.Join(dir, "program"), filepath.Join(dir, "started")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n: >"+mark+"\nexec sleep 300\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	o := open(t, sdk.NewEnv(sdk.EnvOptions{}), map[string]any{"command": program, "method": "obfs4"})
	end := make(chan error, 1)
	go func() {
		_, err := o.Dial(t.Context(), transport.Endpoint{Host: "h", Port: 1, Params: map[string]string{paramMethod: "obfs4"}}, transport.Dial{})
		end <- err
	}()
	for until := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(mark); err == nil {
			break
		}
		if time.Now().After(until) {
			t.Fatal("the program was not started")
		}
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	if err := <-end; !strings.Contains(err.Error(), "the transport is closed") {
		t.Error(err)
	}
}
