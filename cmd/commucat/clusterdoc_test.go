package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/commucat/commucat/plugins/storage/postgres"
	"github.com/commucat/commucat/plugins/storage/redis"
	"github.com/commucat/commucat/sdk"
)

var tomlBlock = regexp.MustCompile("(?s)```toml\n(.*?)```")

// recipe gives the two configuration files of docs/cluster.md.
func recipe(t *testing.T) (text string, files []string) {
	t.Helper()
	b, err := os.ReadFile("../../docs/cluster.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range tomlBlock.FindAllStringSubmatch(string(b), -1) {
		files = append(files, m[1])
	}
	if len(files) != 2 {
		t.Fatalf("%d files in the recipe", len(files))
	}
	return string(b), files
}

// TestClusterKeys: the page has every key of both storages, with what the source says.
func TestClusterKeys(t *testing.T) {
	text, _ := recipe(t)
	for _, p := range []sdk.Plugin{postgres.Plugin(), redis.Plugin()} {
		_, section, ok := strings.Cut(text, "## Keys of the storage `"+p.Name()+"`")
		if !ok {
			t.Fatal("no section of", p.Name())
		}
		section, _, _ = strings.Cut(section, "\n## ")
		fields := sdk.Fields(p.Config())
		for _, f := range fields {
			if !strings.Contains(section, "| `"+f.Name+"` | ") || !strings.Contains(section, " | "+f.Doc+" |") {
				t.Errorf("%s: %s (%s) is not there", p.Name(), f.Name, f.Doc)
			}
		}
		if rows := strings.Count(section, "\n| `"); rows != len(fields) {
			t.Errorf("%s: %d rows for %d keys", p.Name(), rows, len(fields))
		}
	}
}

// checkRecipe lets the program check both files, with the real plugins; only the files
// with secrets lie elsewhere.
func checkRecipe(t *testing.T) {
	_, files := recipe(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("a secret of some length"), 0o600); err != nil {
		t.Fatal(err)
	}
	secrets := regexp.MustCompile(`file:/etc/commucat/[a-z.]+`)
	for _, text := range files {
		name := filepath.Join(dir, "node.toml")
		text = secrets.ReplaceAllString(text, "file:"+filepath.Join(dir, "secret"))
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, out, notes := commucat(t, "config", "check", name); code != exitOK {
			t.Errorf("%d\n%s%s", code, out, notes)
		}
	}
}
