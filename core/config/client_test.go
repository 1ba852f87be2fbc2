package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/commucat/commucat/sdk"
)

type halves struct {
	Mode string     `cfg:"mode" enum:"stream,udp" default:"stream" doc:"mode"`
	Key  sdk.Secret `cfg:"key" doc:"key"`
}

type dials struct{ sdk.Plugin }

func (dials) Config() any { return new(halves) }

func TestLoadClient(t *testing.T) {
	dir := t.TempDir()
	env := Env{Variables: []string{"COMMUCAT_TRANSPORT_TUNNEL_MODE=teleport"}, Plugins: []Known{
		{Plugin: dials{}, Kind: sdk.Transport, Name: "tunnel"}, {Kind: sdk.Transport, Name: "http2"},
	}}
	load := func(t *testing.T, text string) (*Client, error) {
		t.Helper()
		path := filepath.Join(dir, "client.toml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return LoadClient(path, env)
	}
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := load(t, "[transport.door]\nplugin = \"tunnel\"\nmode = \"udp\"\nkey = \"file:token\"\n[transport.http2]\nenabled = false\n")
	if err != nil {
		t.Fatal(err)
	}
	var got halves
	if err := sdk.Decode(c.Transports["door"].Keys, c.Files, &got); err != nil || got.Mode != "udp" || got.Key.Text() != "secret" {
		t.Error(got.Mode, err)
	}
	if c.Transports["http2"].Enabled || !c.Transports["door"].Enabled {
		t.Error("enabled")
	}
	if at := c.Locate("transport.http2.enabled"); at.Line != 6 || at.Column != 11 {
		t.Error(at)
	}
	for name, test := range map[string]struct{ text, want string }{
		"unknown key":    {"[transport.tunnel]\nmood = \"udp\"\n", "client.toml:2:1: transport.tunnel.mood: unknown key (did you mean \"mode\"?)"},
		"wrong value":    {"[transport.tunnel]\n mode = \"udq\"\n", "client.toml:2:9: transport.tunnel.mode: \"udq\" is not one of stream, udp (did you mean \"udp\"?)"},
		"unknown plugin": {"[transport.tunel]\n", "client.toml:1:12: transport.tunel: this build has no transport \"tunel\"; it has http2, tunnel (did you mean \"tunnel\"?)"},
		"relay's key":    {"[server]\ndomain = \"x\"\n", "client.toml:1:2: server: unknown key: a client's file has [transport.NAME] tables alone"},
		"no table":       {"transport = 1\n", "client.toml:1:13: transport: must be a table, not the number 1"},
		"no file":        {"[transport.tunnel]\nkey = \"file:none\"\n", "client.toml:2:7: transport.tunnel.key: none: no such file or directory"},
		"no TOML":        {"[transport", "client.toml:1:"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, test.text)
			if err == nil || !strings.HasPrefix(strings.ReplaceAll(err.Error(), dir+"/", ""), test.want) {
				t.Errorf("%v\nwant %s", err, test.want)
			}
		})
	}
	if _, err := LoadClient(filepath.Join(dir, "absent.toml"), env); err == nil || !strings.HasSuffix(err.Error(), "no such file or directory") {
		t.Error(err)
	}
}
