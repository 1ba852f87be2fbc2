package scaffold

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"
)

//go:embed all:template
var templates embed.FS

// Module is the path of the SDK's module.
const Module = "github.com/commucat/commucat"

// Options say what is written.
type Options struct {
	// Kind is transport, storage or ledger; Name is the plugin's.
	Kind, Name string
	// Dir is the new folder; it must not exist, or be empty.
	Dir string
	// Path is the new module's path; "" is "example.org/commucat-KIND-NAME".
	Path string
	// Source is a checkout of the SDK that the new module uses instead of a
	// published version; "" takes the published one.
	Source string
}

var validName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// Kinds are the kinds of plugins that can be made.
func Kinds() []string { return []string{"transport", "storage", "ledger"} }

// Write writes the module. Nothing is left behind after an error.
func Write(o Options) (err error) {
	if !validName.MatchString(o.Name) {
		return fmt.Errorf("%q is no name for a plugin: a-z, 0-9 and -, beginning with a letter, 32 at most", o.Name)
	}
	if _, err := fs.Stat(templates, path.Join("template", o.Kind)); err != nil {
		return fmt.Errorf("%q is no kind of plugin: there are %s", o.Kind, strings.Join(Kinds(), ", "))
	}
	if o.Path == "" {
		o.Path = "example.org/commucat-" + o.Kind + "-" + o.Name
	}
	if o.Source != "" {
		if o.Source, err = filepath.Abs(o.Source); err != nil {
			return err
		}
		if name, err := moduleOf(o.Source); err != nil || name != Module {
			return fmt.Errorf("%s is no checkout of %s", o.Source, Module)
		}
	}
	entries, err := os.ReadDir(o.Dir)
	if err == nil && len(entries) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there already; choose another folder with --dir", o.Dir)
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(o.Dir))
		}
	}()
	for _, folder := range []string{"common", o.Kind} {
		if err := writeFolder(path.Join("template", folder), o); err != nil {
			return err
		}
	}
	return seedSums(o)
}

func writeFolder(folder string, o Options) error {
	files, err := fs.ReadDir(templates, folder)
	if err != nil {
		return err
	}
	for _, f := range files {
		text, err := fs.ReadFile(templates, path.Join(folder, f.Name()))
		if err != nil {
			return err
		}
		t, err := template.New(f.Name()).Parse(string(text))
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if err := t.Execute(&b, o); err != nil {
			return err
		}
		// Templates end in .tmpl so that no tool takes them for the project's own.
		name := filepath.Join(o.Dir, strings.TrimSuffix(f.Name(), ".tmpl"))
		if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// seedSums copies the checkout's list of checksums, so that the same versions are
// found without asking anybody.
func seedSums(o Options) error {
	if o.Source == "" {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(o.Source, "go.sum"))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.Dir, "go.sum"), b, 0o644)
}

// Tidy lets the go command complete go.mod and go.sum.
func Tidy(ctx context.Context, dir string) error {
	if _, err := exec.LookPath("go"); err != nil {
		return errors.New("the go command is missing: install Go and run 'go mod tidy' in " + dir)
	}
	cmd := exec.CommandContext(ctx, "go", "mod", "tidy")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go mod tidy in %s: %w\n%s", dir, err, bytes.TrimSpace(out))
	}
	return nil
}

// Checkout looks for a checkout of the SDK at or above any of dirs; "" when there is
// none.
func Checkout(dirs ...string) string {
	for _, dir := range dirs {
		for dir != "" {
			if name, err := moduleOf(dir); err == nil && name == Module {
				return dir
			}
			up := filepath.Dir(dir)
			if up == dir {
				break
			}
			dir = up
		}
	}
	return ""
}

// moduleOf reads the module's path from a folder's go.mod.
func moduleOf(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "module "); ok {
			return strings.Trim(name, `" `), nil
		}
	}
	return "", errors.New("no module line")
}
