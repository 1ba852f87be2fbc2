package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"

	"github.com/commucat/commucat/sdk"
)

var update = flag.Bool("update", false, "write golden files and docs/configuration.md")

// fake is a plugin with a configuration and nothing else.
type fake struct {
	kind sdk.Kind
	name string
	cfg  func() any
}

func (f fake) Kind() sdk.Kind  { return f.kind }
func (f fake) Name() string    { return f.name }
func (f fake) Version() string { return "0.1.0" }
func (f fake) Summary() string { return "for tests" }
func (f fake) Config() any     { return f.cfg() }

type dbKeys struct {
	Path string        `cfg:"path" default:"relay.db"`
	Wait time.Duration `cfg:"busy_timeout" default:"5s" min:"100ms"`
}

type obfsKeys struct {
	Listen   string     `cfg:"listen" default:":4433"`
	Password sdk.Secret `cfg:"password"`
}

func known() []Known {
	f := func(kind sdk.Kind, name string, udp bool, cfg func() any) Known {
		return Known{Plugin: fake{kind, name, cfg}, Kind: kind, Name: name, UDP: udp}
	}
	none := func() any { return new(struct{}) }
	return []Known{
		{Kind: sdk.Transport, Name: "http2"}, {Kind: sdk.Transport, Name: "sse"},
		f(sdk.Transport, "obfs", false, func() any { return new(obfsKeys) }),
		f(sdk.Transport, "quick", true, func() any { return new(obfsKeys) }),
		f(sdk.Storage, "sqlite", false, func() any { return new(dbKeys) }),
		f(sdk.Storage, "memory", false, none),
		f(sdk.Ledger, "file", false, func() any {
			return new(struct {
				Path string `cfg:"path" default:"audit"`
			})
		}),
		f(sdk.Ledger, "debug", false, none),
	}
}

func TestW36Broken(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(files) < 15 {
		t.Fatal(len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".toml"), func(t *testing.T) {
			_, err := Load(file, Env{Plugins: known()})
			var all sdk.ConfigErrors
			if !errors.As(err, &all) {
				t.Fatalf("accepted, or another error: %v", err)
			}
			golden(t, strings.TrimSuffix(file, ".toml")+".txt", []byte(err.Error()+"\n"))
			for _, e := range all {
				if e.Pos.File == "" {
					t.Errorf("no file: %v", e)
				}
			}
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if wd, err := os.Getwd(); err == nil {
		got = bytes.ReplaceAll(got, []byte(wd), []byte("$PWD"))
	}
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got; go test -update writes it):\n%s", name, d)
	}
}

func TestGood(t *testing.T) {
	c, err := Load("testdata/good/full.toml", Env{Plugins: known()})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/good/full.shown", c.TOML())
	if c.Limits.RelayTTL != 36*time.Hour || c.Limits.QueueMessages != 20000 || c.Limits.QueueBytes != 128*sdk.MiB {
		t.Error(c.Limits)
	}
	if c.Compat.ClearFrames || !c.Compat.OpenChannels || !c.Compat.PublicAPI || c.Relay.Registration != "open" || c.Relay.ContactPolicy() != "friends" {
		t.Error(c.Compat, c.Relay)
	}
	if c.Enabled("sse") || !c.Enabled("http2") || !filepath.IsAbs(string(c.Server.Data)) || c.Server.Domain != "relay.example" {
		t.Error(c.Server)
	}
	if c.Admin.Token.Text() != "0123456789abcdef-very-secret" {
		t.Error("token")
	}
	var db dbKeys
	if err := sdk.Decode(c.Keys(sdk.Storage, "sqlite"), c.Files(Env{}), &db); err != nil || db.Path != "mail # not a comment.db" {
		t.Error(db, err)
	}
	var obfs obfsKeys
	if err := sdk.Decode(c.Keys(sdk.Transport, "bridge"), nil, &obfs); err != nil || obfs.Password.Text() != "hunter2" {
		t.Error(obfs, err)
	}
	for _, shown := range []string{string(c.TOML()), fmt.Sprintf("%+v", c), fmt.Sprint(c.Admin)} {
		if strings.Contains(shown, "very-secret") {
			t.Error("secret shown")
		}
	}
	if strings.Contains(string(c.TOML()), "hunter2") {
		t.Error("plugin's secret shown")
	}
	if _, err := Parse("shown.toml", stripRedacted(c.TOML()), Env{Plugins: known()}); err != nil {
		t.Errorf("what is shown is no configuration: %v", err)
	}
}

func stripRedacted(b []byte) []byte {
	return []byte(strings.ReplaceAll(string(b), sdk.Redacted, "0123456789abcdef"))
}

func TestEmptyIsDefault(t *testing.T) {
	c, err := Parse("", nil, Env{Plugins: known()})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(Default().TOML()), string(c.TOML())); d != "" {
		t.Error(d)
	}
	if c.Relay.ContactPolicy() != "members" {
		t.Error(c.Relay)
	}
}

func TestEnvironment(t *testing.T) {
	text := []byte("[log]\nlevel = \"warn\"\n[transport.my-bridge]\nplugin = \"obfs\"\n")
	env := Env{Plugins: known(), Variables: []string{
		"COMMUCAT_LOG_LEVEL=error", "COMMUCAT_SERVER_LISTEN=:1,127.0.0.1:2", "COMMUCAT_STORAGE_BUSY_TIMEOUT=3s",
		"COMMUCAT_TRANSPORT_MY_BRIDGE_LISTEN=:77", "COMMUCAT_TRANSPORT_SSE_ENABLED=false", "COMMUCAT_LEDGER_FILE_PATH=p",
		"COMMUCAT_ADMIN_TOKEN=env:TOKEN", "TOKEN=0123456789abcdef", "COMMUCAT_LIMITS_DEVICES=3", "COMMUCAT_COMPAT_REFERENCE=true",
		"COMMUCAT_CONFIG=x", "COMMUCAT_VERSION=1", "PATH=/bin", "COMMUCAT_LEDGER_BACKENDS=file",
	}}
	c, err := Parse("c.toml", text, env)
	if err != nil {
		t.Fatal(err)
	}
	if c.Log.Level != "error" || len(c.Server.Listen) != 2 || c.Limits.Devices != 3 || !c.Compat.ConnectPath || c.Enabled("sse") {
		t.Errorf("%+v", c)
	}
	if c.Admin.Token.Text() != "0123456789abcdef" || c.Transports["my-bridge"].Keys["listen"] == nil {
		t.Error("token or bridge")
	}
	env.Variables = []string{"COMMUCAT_LOG_LEVLE=x", "COMMUCAT_LIMITS_DEVICES=many", "COMMUCAT_STORAGE_PTAH=x"}
	_, err = Parse("c.toml", text, env)
	want := []string{
		`COMMUCAT_LIMITS_DEVICES: limits.devices: must be a whole number, not "many"`,
		`COMMUCAT_LOG_LEVLE: log.levle: unknown key (did you mean "level"?)`,
		`COMMUCAT_STORAGE_PTAH: storage.ptah: unknown key (did you mean "path"?)`,
	}
	if d := cmp.Diff(want, strings.Split(fmt.Sprint(err), "\n")); d != "" {
		t.Error(d)
	}
}

func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "admin"), []byte("a-token-of-sixteen\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Parse("", []byte("[admin]\ntoken = \"credential:admin\"\nlisten = \"[::1]:1\""), Env{Variables: []string{"CREDENTIALS_DIRECTORY=" + dir}})
	if err != nil || c.Admin.Token.Text() != "a-token-of-sixteen" {
		t.Error(err)
	}
}

func TestUnreadableFile(t *testing.T) {
	for _, path := range []string{"testdata/absent.toml", "testdata"} {
		if _, err := Load(path, Env{}); err == nil || !strings.HasPrefix(err.Error(), path+": ") {
			t.Error(err)
		}
	}
}

func TestDiff(t *testing.T) {
	parse := func(text string) *Config {
		c, err := Parse("", []byte(text), Env{})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a := parse("[admin]\nlisten = \"127.0.0.1:1\"\ntoken = \"aaaaaaaaaaaaaaaa\"\n[log]\nlevel = \"info\"\n[storage]\ndsn = \"a\"\n")
	b := parse("[admin]\nlisten = \"127.0.0.1:1\"\ntoken = \"bbbbbbbbbbbbbbbb\"\n[log]\nlevel = \"warn\"\n[storage]\ndsn = \"b\"\n[transport.x]\nk = 1\n")
	want := []Change{
		{"storage.dsn", `"[redacted]"`, `"[redacted]"`, false},
		{"admin.token", `"[redacted]"`, `"[redacted]"`, false},
		{"log.level", `"info"`, `"warn"`, true},
		{"transport.x.enabled", "", "true", false},
		{"transport.x.plugin", "", `""`, false},
		{"transport.x.k", "", "1", false},
	}
	if d := cmp.Diff(want, Diff(a, b)); d != "" {
		t.Error(d)
	}
	if d := Diff(a, a); len(d) != 0 {
		t.Error(d)
	}
}

func TestDescriptionsAgree(t *testing.T) {
	golden(t, "../../docs/configuration.md", Reference())
	if _, err := Parse("sample", Sample(), Env{Plugins: known()}); err != nil {
		t.Errorf("sample: %v", err)
	}
	full := uncomment(Sample())
	c, err := Parse("", full, Env{Plugins: known()})
	if err != nil {
		t.Fatalf("sample without its #: %v", err)
	}
	if d := cmp.Diff(string(Default().TOML()), string(c.TOML())); d != "" {
		t.Errorf("the sample's values are not the defaults:\n%s", d)
	}
	var schema map[string]any
	if err := json.Unmarshal(Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	var every map[string]map[string]any
	if err := toml.Unmarshal(full, &every); err != nil {
		t.Fatal(err)
	}
	for section, keys := range every {
		properties := schema["properties"].(map[string]any)[section].(map[string]any)["properties"].(map[string]any)
		for key := range keys {
			if properties[key] == nil {
				t.Errorf("schema lacks %s.%s", section, key)
			}
		}
	}
}

// uncomment takes the # off every key of a section (not of [transport.NAME]).
func uncomment(sample []byte) []byte {
	var out []string
	for line := range strings.SplitSeq(string(sample), "\n") {
		if strings.HasPrefix(line, "# [") {
			break
		}
		if key, ok := strings.CutPrefix(line, "# "); ok && strings.Contains(key, " = ") {
			line = key
		}
		out = append(out, line)
	}
	return []byte(strings.Join(out, "\n"))
}

func TestEveryKeyIsDocumented(t *testing.T) {
	var walk func(prefix string, fields []sdk.Field)
	walk = func(prefix string, fields []sdk.Field) {
		for _, f := range fields {
			if f.Name != "*" && f.Doc == "" {
				t.Errorf("%s%s has no doc", prefix, f.Name)
			}
			walk(prefix+f.Name+".", f.Fields)
		}
	}
	walk("", sdk.Fields(Config{}))
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.toml", "testdata/good/*.toml"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			if b, err := os.ReadFile(file); err == nil {
				f.Add(b)
			}
		}
	}
	f.Add([]byte("[[a.b]]\nc = [{x = 1}, [2]]\n[a]\nd.e.\"f.g\" = 1979-05-27\n"))
	env := Env{Plugins: known()}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("f", text, env)
		if err != nil {
			var all sdk.ConfigErrors
			if !errors.As(err, &all) || len(all) == 0 {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		// What is shown reads back as the same configuration, secrets aside.
		if strings.Contains(string(c.TOML()), sdk.Redacted) {
			return
		}
		again, err := Parse("f", c.TOML(), env)
		if err != nil {
			t.Fatalf("%v\n%s", err, c.TOML())
		}
		if d := cmp.Diff(string(c.TOML()), string(again.TOML())); d != "" {
			t.Fatal(d)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	text, err := os.ReadFile("testdata/good/full.toml")
	if err != nil {
		b.Fatal(err)
	}
	env := Env{Plugins: known()}
	text = []byte(strings.ReplaceAll(string(text), "file:token", "0123456789abcdef"))
	for b.Loop() {
		if _, err := Parse("", text, env); err != nil {
			b.Fatal(err)
		}
	}
}
