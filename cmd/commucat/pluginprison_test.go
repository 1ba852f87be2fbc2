package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/commucat/commucat/core/api"
	"github.com/commucat/commucat/core/pluginhost"
	"github.com/commucat/commucat/core/pluginhost/sandbox/sandboxtest"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

type prisonerConfig struct {
	Listen string `cfg:"listen" default:"127.0.0.1:0" doc:"TCP address"`
	World  string `cfg:"world" doc:"what it tries to get at, JSON"`
}

// prisoner is a transport whose probe tries everything that a plugin may not do.
func prisoner() sdk.Plugin {
	return transport.Define(transport.Descriptor{
		Name: "prisoner", Version: "1.0.0", Summary: "tries to get out",
		Needs: []transport.Need{{Kind: transport.TCPPort}, {Kind: transport.StateFolder}},
	}, transport.Funcs[prisonerConfig]{
		Listen: func(ctx context.Context, env sdk.Env, c prisonerConfig) (net.Listener, error) {
			return env.Listen(ctx, "tcp", c.Listen)
		},
		Probe: func(_ context.Context, env sdk.Env, c prisonerConfig) error {
			var w sandboxtest.World
			if err := json.Unmarshal([]byte(c.World), &w); err != nil {
				return err
			}
			w.Parent, w.State = os.Getppid(), env.State()
			denied, possible := 0, 0
			for _, set := range [][]sandboxtest.Attempt{sandboxtest.Always(), sandboxtest.Closed(), sandboxtest.Quiet(), sandboxtest.Stored(), sandboxtest.Foreign()} {
				for _, r := range sandboxtest.Try(set, w) {
					if r.Denied {
						denied++
						env.Log().Info("denied", "act", r.Name, "why", r.Error)
						continue
					}
					possible++
					env.Log().Info("possible", "act", r.Name)
				}
			}
			return fmt.Errorf("%d acts denied, %d possible", denied, possible)
		},
	})
}

// TestLoadPrisoner runs the sandbox's test program as a plugin of a relay: its keys, its
// socket and its process are what it aims at. Every act is printed.
func TestLoadPrisoner(t *testing.T) {
	if raceDetector {
		t.Skip("a plugin under the race detector needs more memory than it is allowed")
	}
	pluginFolder(t)
	dir, outside := dataFolder(t, ""), t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil { // its folder lies there
		t.Fatal(err)
	}
	w := sandboxtest.World{
		Key: filepath.Join(dir, "keys", "tls.key"), Folder: filepath.Join(dir, "keys"), Outside: outside,
		Writable: filepath.Join(outside, "file"), Unix: filepath.Join(dir, "admin.sock"), Abstract: filepath.Base(dir) + outside,
	}
	if err := os.WriteFile(w.Writable, []byte("x"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, l := range [][2]string{{"tcp", "127.0.0.1:0"}, {"unix", "@" + w.Abstract}} {
		ln, err := net.Listen(l[0], l[1])
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		if l[0] == "tcp" {
			w.TCP = ln.Addr().String()
		}
	}
	world, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	config := strings.Replace(wide, `"warn"`, `"info"`, 1) + fmt.Sprintf("[transport.prisoner]\nworld = %q\n", world)
	if err := os.WriteFile(filepath.Join(dir, "commucat.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	srv := relay(t, dir)
	var st pluginhost.State
	soon(t, "the start", func() bool {
		st = srv.plugins(t)["prisoner"]
		return st.State == pluginhost.Running || st.State == pluginhost.Parked || st.Restarts > 2
	})
	if st.State != pluginhost.Running {
		t.Fatalf("%+v", st)
	}
	if _, err := os.ReadDir(w.Folder); err != nil { // so that what is denied is there
		t.Fatal(err)
	}
	cl := api.NewClient(strings.TrimPrefix(srv.Admin, "unix:"))
	err = cl.Do(t.Context(), "POST", "/v1/transports/prisoner/probe", nil, nil)
	if err == nil || !strings.Contains(err.Error(), " acts denied, 0 possible") || strings.Contains(err.Error(), " 0 acts denied") {
		t.Errorf("%v", err)
	}
	soon(t, "the list", func() bool {
		return strings.Count(srv.said(), "msg=denied")+strings.Count(srv.said(), "msg=possible") >= 40
	})
	for line := range strings.Lines(srv.said()) {
		if _, act, ok := strings.Cut(line, "act="); ok {
			t.Log(strings.TrimSpace(act))
		}
	}
	if code := srv.terminate(t); code != exitOK {
		t.Errorf("ended with %d: %s", code, srv.said())
	}
}
