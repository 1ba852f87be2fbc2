package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/sdk"
)

// TestAskedInOneRound: what the fields, the plugin's own check and its second check find
// wrong is said at once.
func TestAskedInOneRound(t *testing.T) {
	type keys struct {
		Listen string `cfg:"listen" doc:"address"`
		Cert   string `cfg:"cert" doc:"file"`
		Key    string `cfg:"key" doc:"file"`
		Size   int    `cfg:"size" default:"3" max:"9" doc:"number"`
		Must   string `cfg:"must" doc:"needed by the check alone"`
	}
	wrong := func(key, text string) *sdk.ConfigError { return &sdk.ConfigError{Key: key, Text: text} }
	// check is a plugin's: a second kind of mistake is looked for when there is none of
	// the first.
	var seen []string
	check := func(raw map[string]any) error {
		var c keys
		var names []string
		for name := range raw {
			names = append(names, name)
		}
		slices.Sort(names)
		seen = append(seen, strings.Join(names, " "))
		if err := sdk.Decode(raw, nil, &c); err != nil {
			return err
		}
		var first sdk.ConfigErrors
		if c.Listen == "nowhere" {
			first = append(first, wrong("listen", "no such place"))
		}
		if (c.Cert == "") != (c.Key == "") {
			first = append(first, wrong("key", "cert and key go together"))
		}
		if len(first) > 0 {
			return first
		}
		if c.Must == "" {
			return sdk.ConfigErrors{wrong("", "must is missing")}
		}
		if c.Must == "no" {
			return sdk.ConfigErrors{wrong("must", "must not be that")}
		}
		return nil
	}
	for _, tt := range []struct {
		name, text string
		want       []string // key and text
		asked      []string
	}{
		{"sound", "must = \"yes\"", nil, []string{"must"}},
		{
			"three kinds", "listn = 1\nlisten = \"nowhere\"\nsize = 10\nmust = \"no\"",
			[]string{"2 transport.x.listn: unknown key", "3 transport.x.listen: no such place", "4 transport.x.size: must be at most 9", "5 transport.x.must: must not be that"},
			[]string{"listen must", "must", ""},
		},
		{ // the certificate is wrong and so is not shown: nothing else may come of that
			"no follow-up", "cert = 3\nkey = \"k\"\nmust = \"yes\"",
			[]string{"2 transport.x.cert: must be text, not the number 3"}, []string{"key must"},
		},
		{
			"of the table as a whole", "size = 10",
			[]string{"1 transport.x: must is missing", "2 transport.x.size: must be at most 9"}, []string{""},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seen = nil
			file := filepath.Join(t.TempDir(), "c.toml")
			if err := os.WriteFile(file, []byte("[transport.x]\n"+tt.text+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Load(file, Env{Plugins: []Known{
				{Kind: sdk.Transport, Name: "x", Plugin: keysOf{new(keys)}, Check: check},
				{Kind: sdk.Storage, Name: "sqlite"}, {Kind: sdk.Storage, Name: "memory"}, {Kind: sdk.Ledger, Name: "file"},
			}})
			var many sdk.ConfigErrors
			if err != nil && !errors.As(err, &many) {
				t.Fatal(err)
			}
			var got []string
			for _, e := range many {
				got = append(got, strings.TrimSuffix(strings.TrimPrefix(e.Pos.String(), e.Pos.File+":"), ":"+lastOf(e.Pos.String()))+" "+e.Key+": "+e.Text)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(tt.asked, seen); d != "" {
				t.Errorf("asked: %s", d)
			}
		})
	}
}

// lastOf is what follows the last colon.
func lastOf(s string) string { return s[strings.LastIndexByte(s, ':')+1:] }

// keysOf is a plugin that has keys and nothing else.
type keysOf struct{ cfg any }

func (k keysOf) Kind() sdk.Kind  { return sdk.Transport }
func (k keysOf) Name() string    { return "x" }
func (k keysOf) Version() string { return "1.0.0" }
func (k keysOf) Summary() string { return "" }
func (k keysOf) Config() any     { return k.cfg }
