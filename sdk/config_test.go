package sdk_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/sdk"
)

type inner struct {
	Messages uint32   `cfg:"messages" default:"10000" min:"1" max:"1000000" doc:"rows"`
	Bytes    sdk.Size `cfg:"bytes" default:"64MiB" min:"1KiB" doc:"bytes"`
}

type peer struct {
	URL string     `cfg:"url" required:"true" doc:"address"`
	Key sdk.Secret `cfg:"key" min:"4" doc:"key"`
}

type sample struct {
	Path     string            `cfg:"path" default:"relay.db" doc:"database file"`
	Mode     string            `cfg:"mode" default:"full" enum:"full,normal,off" doc:"durability"`
	Wait     time.Duration     `cfg:"wait" default:"5s" min:"100ms" max:"1d" doc:"patience"`
	On       bool              `cfg:"on" default:"true" doc:"switch"`
	Share    float64           `cfg:"share" default:"0.5" min:"0" max:"1" doc:"share"`
	Port     uint16            `cfg:"port" doc:"port"`
	Key      sdk.Secret        `cfg:"key" doc:"key"`
	Site     sdk.File          `cfg:"site" doc:"file"`
	Names    []string          `cfg:"names" default:"a,b" max:"3" doc:"names"`
	Prefixes []netip.Prefix    `cfg:"prefixes" doc:"networks"`
	Labels   map[string]string `cfg:"labels" doc:"labels"`
	Queue    inner             `cfg:"queue" doc:"queue"`
	Peers    []peer            `cfg:"peers" doc:"peers"`
	Other    map[string]any    `cfg:"*"`
	Skipped  int
}

type strict struct {
	Path  string `cfg:"path" doc:"file"`
	Queue inner  `cfg:"queue" doc:"queue"`
	From  int    `cfg:"from" default:"1" doc:"from"`
	To    int    `cfg:"to" default:"2" doc:"to"`
}

func (s *strict) Check() error {
	if s.From > s.To {
		return &sdk.ConfigError{Key: "to", Text: "must not be below from"}
	}
	return nil
}

func TestDecodeSetsDefaults(t *testing.T) {
	s := sample{Skipped: 7, Path: "old"}
	if err := sdk.Decode(nil, nil, &s); err != nil {
		t.Fatal(err)
	}
	want := sample{
		Path: "relay.db", Mode: "full", Wait: 5 * time.Second, On: true, Share: .5, Names: []string{"a", "b"},
		Queue: inner{10000, 64 * sdk.MiB}, Other: map[string]any{}, Skipped: 7,
	}
	if d := cmp.Diff(want, s, opaque); d != "" {
		t.Error(d)
	}
}

var opaque = cmp.Options{
	cmp.Comparer(func(a, b sdk.Secret) bool { return a.Text() == b.Text() }),
	cmp.Comparer(func(a, b sdk.File) bool { return a.Path() == b.Path() && string(a.Bytes()) == string(b.Bytes()) }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func TestDecodeValues(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "site.html"), []byte("<p>"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "key"), []byte("s3cret\n"), 0o600))
	raw := map[string]any{
		"path": "x", "mode": "off", "wait": "1h30m", "on": false, "share": int64(1), "port": "8443",
		"key": "file:key", "site": "site.html", "names": []any{"x"}, "prefixes": "10.0.0.0/8, ::1/128",
		"labels": map[string]any{"a": "b"},
		"queue":  sdk.Located{Value: map[string]any{"messages": int64(5), "bytes": "2MiB"}},
		"peers":  []any{map[string]any{"url": "u", "key": "abcd"}},
		"extra":  int64(3),
	}
	var s sample
	files := sdk.Files{Dir: dir}
	resolved, err := sdk.Resolve(&s, raw, files)
	must(t, err)
	for name, in := range map[string]map[string]any{"plain": raw, "resolved": resolved} {
		t.Run(name, func(t *testing.T) {
			must(t, sdk.Decode(in, files, &s))
			want := sample{
				Path: "x", Mode: "off", Wait: 90 * time.Minute, Share: 1, Port: 8443,
				Key: sdk.NewSecret([]byte("s3cret")), Site: sdk.NewFile(filepath.Join(dir, "site.html"), []byte("<p>")),
				Names: []string{"x"}, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")},
				Labels: map[string]string{"a": "b"}, Queue: inner{5, 2 * sdk.MiB},
				Peers: []peer{{URL: "u", Key: sdk.NewSecret([]byte("abcd"))}}, Other: map[string]any{"extra": int64(3)},
			}
			if d := cmp.Diff(want, s, opaque); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestDecodeNamesEveryMistake(t *testing.T) {
	loc := func(line int, v any) sdk.Located {
		return sdk.Located{
			Value: v, Key: sdk.Position{File: "c.toml", Line: line, Column: 1},
			At: sdk.Position{File: "c.toml", Line: line, Column: 9},
		}
	}
	cases := []struct {
		name string
		dst  any
		raw  map[string]any
		want []string
	}{
		{"types", &sample{}, map[string]any{
			"path": int64(1), "mode": "ful", "wait": "1ms", "on": "yes", "share": 2.5, "port": int64(70000),
			"names": []any{"1", "2", "3", "4"}, "prefixes": []any{"nope"}, "labels": "x", "queue": false,
			"key": int64(8), "site": "absent.html", "peers": []any{map[string]any{"key": "abc"}},
		}, []string{
			`key: must be text, not the number 8`,
			`labels: must be a table, not "x"`,
			`mode: "ful" is not one of full, normal, off (did you mean "full"?)`,
			`names: must be at most 3 entries`,
			`on: must be true or false, not "yes"`,
			`path: must be text, not the number 1`,
			`peers[0]: url is required`,
			`peers[0].key: must be at least 4 bytes long`,
			`port: 70000 is out of range`,
			`prefixes[0]: "nope" is not a network; write it as "10.0.0.0/8"`,
			`queue: must be a table, not the boolean false`,
			`share: must be at most 1`,
			`site: absent.html: no such file or directory`,
			`wait: must be at least 100ms`,
		}},
		{"places in order", &strict{}, map[string]any{
			"pth":   loc(9, "x"),
			"queue": loc(2, map[string]any{"message": loc(3, int64(1)), "bytes": loc(4, "1KB")}),
		}, []string{
			`c.toml:3:1: queue.message: unknown key (did you mean "messages"?)`,
			`c.toml:4:9: queue.bytes: must be at least 1KiB`,
			`c.toml:9:1: pth: unknown key (did you mean "path"?)`,
		}},
		{"check", &strict{}, map[string]any{"to": loc(5, int64(0))}, []string{`c.toml:5:9: to: must not be below from`}},
		{"nothing near", &strict{}, map[string]any{"zzzzzz": "x"}, []string{`zzzzzz: unknown key`}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := sdk.Decode(c.raw, nil, c.dst)
			var all sdk.ConfigErrors
			if !errors.As(err, &all) {
				t.Fatalf("got %v", err)
			}
			if d := cmp.Diff(c.want, strings.Split(err.Error(), "\n")); d != "" {
				t.Error(d)
			}
			if sdk.KindOf(err) != sdk.Invalid {
				t.Error("kind", sdk.KindOf(err))
			}
		})
	}
}

func TestSecretNeverShows(t *testing.T) {
	type holder struct{ S sdk.Secret }
	h := holder{sdk.NewSecret([]byte("hunter2"))}
	j, err := json.Marshal(h)
	must(t, err)
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "h", h, "s", h.S)
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "h", h, "s", h.S)
	for _, s := range []string{
		fmt.Sprint(h), fmt.Sprintf("%+v %#v %s %q %x %d %v", h, h, h.S, h.S, h.S, h.S, &h), string(j), log.String(), h.S.String(),
	} {
		if strings.Contains(s, "hunter2") || strings.Contains(s, "68756e") || strings.Contains(s, "104 117") {
			t.Errorf("shown: %s", s)
		}
	}
	if h.S.Text() != "hunter2" || !(sdk.Secret{}).IsZero() || (sdk.Secret{}).String() != "" {
		t.Error("value")
	}
}

func TestSecretReferences(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "token"), []byte("abc\r\n"), 0o600))
	files := sdk.Files{Dir: dir, Credentials: dir, Getenv: func(n string) string { return map[string]string{"X": "env"}[n] }}
	for ref, want := range map[string]string{
		"file:token": "abc", "credential:token": "abc", "env:X": "env", "plain": "plain", "with:colon": "with:colon",
	} {
		if b, err := files.Secret(ref); err != nil || string(b) != want {
			t.Errorf("%s: %q %v", ref, b, err)
		}
	}
	for _, ref := range []string{"file:absent", "credential:../token", "credential:", "env:Y", "file:."} {
		if b, err := files.Secret(ref); err == nil {
			t.Errorf("%s: %q", ref, b)
		}
	}
	if _, err := (sdk.Files{}).Secret("credential:x"); err == nil {
		t.Error("no folder")
	}
}

func TestText(t *testing.T) {
	for in, want := range map[string]sdk.Size{"0": 0, "4096": 4096, "64KiB": 64 * sdk.KiB, "1.5 MiB": 3 * sdk.MiB / 2, "2GB": 2e9, "7B": 7} {
		got, err := sdk.ParseSize(in)
		if err != nil || got != want {
			t.Errorf("%s: %d %v", in, got, err)
		}
		if again, err := sdk.ParseSize(got.String()); err != nil || again != got {
			t.Errorf("%s: %s %v", in, got, err)
		}
	}
	for _, in := range []string{"", "KiB", "-1", "1.1B", "9999999999TiB", "1 2", "1e3", "0x10", "1.", "inf"} {
		if n, err := sdk.ParseSize(in); err == nil {
			t.Errorf("%q: %d", in, n)
		}
	}
	for in, want := range map[string]string{"30s": "30s", "14d": "14d", "1d12h": "36h", "2d1h": "2d1h", "90m": "1h30m", "250ms": "250ms", "0": "0s", "60s": "1m"} {
		d, err := sdk.ParseDuration(in)
		if err != nil || sdk.FormatDuration(d) != want {
			t.Errorf("%s: %s %v", in, sdk.FormatDuration(d), err)
		}
	}
	for _, in := range []string{"", "30", "-1s", "d", "1.5d", "999999999d", "106751d24h100000h", "1h1d"} {
		if d, err := sdk.ParseDuration(in); err == nil {
			t.Errorf("%q: %v", in, d)
		}
	}
}

func TestErrorKinds(t *testing.T) {
	err := fmt.Errorf("outer: %w", &sdk.Error{Kind: sdk.Corrupt, Op: "ledger/file: open", Text: "chain", Err: os.ErrNotExist})
	if !errors.Is(err, sdk.Corrupt) || errors.Is(err, sdk.Full) || !errors.Is(err, os.ErrNotExist) || sdk.KindOf(err) != sdk.Corrupt {
		t.Error(err)
	}
	if sdk.KindOf(nil) != sdk.Other || (&sdk.Error{Kind: sdk.Full}).Error() != "full" {
		t.Error("kinds")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ExampleDecode() {
	type Config struct {
		Path string        `cfg:"path" default:"relay.db" doc:"database file"`
		Wait time.Duration `cfg:"busy_timeout" default:"5s" min:"100ms" doc:"how long a writer waits"`
	}
	var c Config
	err := sdk.Decode(map[string]any{"busy_timeout": "1ms", "pth": "x.db"}, nil, &c)
	fmt.Println(err)
	// Output:
	// busy_timeout: must be at least 100ms
	// pth: unknown key (did you mean "path"?)
}
