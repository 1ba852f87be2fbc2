package pluginhost

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/commucat/commucat/sdk"
)

// TestProgramsOfATable: the operator's table decides which program a plugin may start.
func TestProgramsOfATable(t *testing.T) {
	dir := t.TempDir()
	program := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one, two := program("one"), program("two")
	linked := filepath.Join(dir, "linked")
	if err := os.Symlink(two, linked); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	e := Entry{Kind: "transport", Name: "x", Needs: []string{"program:$command|one|absent|two"}}
	for name, tt := range map[string]struct {
		raw  map[string]any
		want []string
	}{
		"no key":        {nil, []string{one, two}},
		"empty":         {map[string]any{"command": ""}, []string{one, two}},
		"a path":        {map[string]any{"command": two}, []string{two}},
		"with its line": {map[string]any{"command": sdk.Located{Value: one}}, []string{one}},
		"a link":        {map[string]any{"command": linked}, []string{linked, two}},
		"not there":     {map[string]any{"command": filepath.Join(dir, "absent")}, nil},
		"no text":       {map[string]any{"command": 1}, []string{one, two}},
	} {
		p, err := e.profile(tt.raw)
		if err != nil || !slices.Equal(p.Run, tt.want) {
			t.Errorf("%s: %v, %v; want %v", name, p.Run, err, tt.want)
		}
	}
}
