package scaffold_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/commucat/commucat/cmd/commucat/scaffold"
)

// What is written passes its own suite without editing.
func TestWrittenModulesPass(t *testing.T) {
	if testing.Short() {
		t.Skip("builds three modules")
	}
	source, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range scaffold.Kinds() {
		t.Run(kind, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "hello")
			if err := scaffold.Write(scaffold.Options{Kind: kind, Name: "hello", Dir: dir, Source: source}); err != nil {
				t.Fatal(err)
			}
			if err := scaffold.Tidy(t.Context(), dir); err != nil {
				t.Fatal(err)
			}
			// Those of go test are a part of vet's checks.
			for _, args := range [][]string{{"vet", "./..."}, {"test", "-vet=off", "./..."}} {
				cmd := exec.Command("go", args...)
				cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
				if b, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("go %v: %v\n%s", args, err, b)
				}
			}
			if b, err := exec.Command("gofmt", "-l", dir).Output(); err != nil || len(b) > 0 {
				t.Errorf("gofmt: %s %v", b, err)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "new")
	for want, o := range map[string]scaffold.Options{
		"no name for a plugin": {Kind: "ledger", Name: "Hello", Dir: empty},
		"no kind of plugin":    {Kind: "tea", Name: "hello", Dir: empty},
		"is there already":     {Kind: "ledger", Name: "hello", Dir: full},
		"no checkout of":       {Kind: "ledger", Name: "hello", Dir: empty, Source: full},
	} {
		if err := scaffold.Write(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
		if _, err := os.Stat(empty); err == nil {
			t.Errorf("%q left a folder behind", want)
		}
	}
}

func TestCheckout(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if got := scaffold.Checkout(t.TempDir(), here); got != filepath.Join(here, "../../..") {
		t.Error(got)
	}
	if got := scaffold.Checkout(t.TempDir()); got != "" {
		t.Error(got)
	}
}
