package onion

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// Close does not wait for a tor that never lets itself be controlled.
func TestCloseEndsAStart(t *testing.T) {
	dir := t.TempDir()
	program, mark := filepath.Join(dir, "tor"), filepath.Join(dir, "started")
	script := "#!/bin/sh\ncase $1 in --version) echo 'Tor version 0.4.8.1.';; --list*) ;; *) : >" + mark + "; exec sleep 300;; esac\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	o, err := transport.Open(t.Context(), Plugin(), sdk.NewEnv(sdk.EnvOptions{}), map[string]any{"program": program, "dial_limit": "10m"})
	if err != nil {
		t.Fatal(err)
	}
	end := make(chan error, 1)
	go func() {
		to := transport.Endpoint{Host: "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion"}
		_, err := o.Dial(t.Context(), to, transport.Dial{})
		end <- err
	}()
	for until := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
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
