package main

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/commucat/commucat/core/api"
)

// valve passes a relay's bytes on, client by client, until the relay has an account:
// the answer that would tell of it is never seen.
type valve struct {
	net.Listener
	to, admin string
	made      chan struct{} // one slot: the account exists
	done      sync.WaitGroup
}

func (v *valve) serve(ctx context.Context) {
	for {
		in, err := v.Accept()
		if err != nil {
			return
		}
		out, err := new(net.Dialer).DialContext(ctx, "tcp", v.to)
		if err != nil {
			in.Close()
			continue
		}
		v.done.Go(func() {
			_, _ = io.Copy(out, in)
			out.Close()
		})
		v.done.Go(func() {
			defer in.Close()
			buf := make([]byte, 16<<10)
			for {
				n, err := out.Read(buf)
				if err != nil {
					return
				}
				// What the relay stores is older than what it says about it.
				users, err := api.NewClient(v.admin).Users(ctx, "", 10)
				if err != nil {
					return
				}
				if len(users.Items) > 0 {
					select {
					case v.made <- struct{}{}:
					default:
					}
					_, _ = io.Copy(io.Discard, out) // as a line that has died
					return
				}
				if _, err := in.Write(buf[:n]); err != nil {
					return
				}
			}
		})
	}
}

// TestLostAnswerKeepsTheKeys: the relay has made the account, and its answer is
// lost. The profile holds the account's only keys, so that it must stay.
func TestLostAnswerKeepsTheKeys(t *testing.T) {
	data := dataFolder(t, wide)
	srv := relay(t, data)
	invite, port := srv.invitation(t, 1, 0), srv.address()
	srv.terminate(t)
	srv = relay(t, data)

	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", port)
	if err != nil {
		t.Fatal(err)
	}
	v := &valve{Listener: l, to: srv.address(), admin: strings.TrimPrefix(srv.Admin, "unix:"), made: make(chan struct{}, 1)}
	v.done.Go(func() { v.serve(context.WithoutCancel(t.Context())) })
	t.Cleanup(v.done.Wait)
	t.Cleanup(srv.kill)
	t.Cleanup(func() { l.Close() })

	alice := filepath.Join(t.TempDir(), "alice")
	var notes strings.Builder
	cmd := exec.CommandContext(t.Context(), "commucat", "client", "register", "--server", invite, "--handle", "alice", "--profile", alice, "--timeout", "1m")
	cmd.Stderr = &notes
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-v.made
	if err := cmd.Process.Signal(os.Interrupt); err != nil { // the user does not wait
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(notes.String(), "client listen --profile "+alice) {
		t.Errorf("ended with %v, %q; want the way on", err, notes.String())
	}
	if _, err := os.Stat(filepath.Join(alice, "profile.json")); err != nil {
		t.Fatal(err)
	}

	l.Close()
	srv.terminate(t)
	srv = spawn(t, data, "--listen", port)
	if err := srv.ready(); err != nil {
		t.Fatal(err)
	}
	if code, stdout, notes := commucat(t, "client", "devices", "list", "--profile", alice, "--json"); code != exitOK || strings.Count(stdout, `"device_id"`) != 1 {
		t.Errorf("with the kept profile: %d %s %s", code, stdout, notes)
	}
}
