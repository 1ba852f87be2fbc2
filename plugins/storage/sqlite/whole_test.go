package sqlite

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/commucat/commucat/sdk"
)

// TestHalfAFolder: a folder that has lost its database or its queues is refused, and
// not begun anew.
func TestHalfAFolder(t *testing.T) {
	for name, c := range map[string]struct {
		harm func(dir string) error
		want string
	}{
		"whole":          {func(string) error { return nil }, ""},
		"no database":    {func(dir string) error { return os.Remove(filepath.Join(dir, "relay.db")) }, "relay.db: it is missing or empty"},
		"empty database": {func(dir string) error { return os.Truncate(filepath.Join(dir, "relay.db"), 0) }, "relay.db: it is missing or empty"},
		"no queues":      {func(dir string) error { return os.RemoveAll(filepath.Join(dir, "queues")) }, "list of tables is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := openTest(t, dir, Config{}, options{}).Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := c.harm(dir); err != nil {
				t.Fatal(err)
			}
			env := sdk.NewEnv(sdk.EnvOptions{State: dir})
			s, err := open(t.Context(), env, Config{}, options{})
			if err == nil {
				if err := s.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (sdk.KindOf(err) != sdk.Corrupt || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v; want %q", err, c.want)
			}
		})
	}
}

// TestRelativePath: a relative path does not depend on where the program was started.
func TestRelativePath(t *testing.T) {
	state := t.TempDir()
	s, err := open(t.Context(), sdk.NewEnv(sdk.EnvOptions{State: state}), Config{Path: "below"}, options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(state, "below", "relay.db")); err != nil {
		t.Error(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
