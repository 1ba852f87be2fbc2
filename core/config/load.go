package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/commucat/commucat/sdk"
)

// Known is a plugin that the program has: with it Load checks the plugin's own
// keys, and a name that no plugin has is a mistake.
type Known struct {
	Plugin sdk.Plugin // may be nil for a built-in that has no keys
	Kind   sdk.Kind
	Name   string
	// UDP says that the transport's listen key claims a UDP port, not a TCP one; with TCP
	// it claims both, but for a table with tcp = "front": there the relay's own listener
	// has the TCP port.
	UDP, TCP bool
	// Check asks the plugin itself about keys that its fields take, with files and
	// secrets read; nil asks nothing. What it finds wrong is an sdk.ConfigErrors with keys
	// relative to raw; any other error means that it was not asked.
	Check func(raw map[string]any) error
}

// Env is what Load takes from outside the file.
type Env struct {
	// Variables are NAME=VALUE as os.Environ gives them.
	Variables []string
	// Plugins are all plugins of the program; nil leaves names and keys unchecked.
	Plugins []Known
	// Federation says that the program has it.
	Federation bool
}

// Process is the Env of this process.
func Process(plugins ...Known) Env {
	return Env{Variables: os.Environ(), Plugins: plugins}
}

func (e Env) lookup(name string) string {
	for _, v := range slices.Backward(e.Variables) {
		if n, value, ok := strings.Cut(v, "="); ok && n == name {
			return value
		}
	}
	return ""
}

// Load reads the file at path ("" is none), puts the environment over it and
// checks everything. The error is an sdk.ConfigErrors with all mistakes, or the
// reason why the file could not be read.
func Load(path string, env Env) (*Config, error) {
	if path == "" {
		return Parse("", nil, env)
	}
	text, err := read(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, text, env)
}

// read gives the text of a configuration file.
func read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, unreadable(path, errors.New("not a regular file"))
	}
	if info.Size() > maxFile {
		return nil, unreadable(path, errors.New("larger than 1 MiB"))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	return text, nil
}

func unreadable(path string, err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return sdk.ConfigErrors{{Pos: sdk.Position{File: path}, Text: err.Error()}}
}

// Parse is Load for a text that the caller has; name is what errors call it, and
// relative paths start in its folder.
func Parse(name string, text []byte, env Env) (*Config, error) {
	raw, err := parse(name, text)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(env.Plugins))
	for _, k := range env.Plugins {
		names = append(names, k.Name)
	}
	overlay(raw, env.Variables, names)

	c := &Config{File: name, raw: raw}
	files := c.files(env)
	var mistakes sdk.ConfigErrors
	if err := sdk.Decode(raw, files, c); err != nil && !errors.As(err, &mistakes) {
		return nil, err
	}
	for _, m := range mistakes {
		misplaced(m, raw)
	}
	c.implied()
	c.paths(files)
	ch := checker{c: c, env: env, files: files, bad: map[string]bool{}}
	for _, m := range mistakes {
		ch.bad[m.Key] = true
	}
	mistakes = append(mistakes, ch.all()...)
	if len(mistakes) > 0 {
		mistakes.Sort()
		return nil, mistakes
	}
	return c, nil
}

// misplaced says of a key that stands outside every section where it belongs.
func misplaced(m *sdk.ConfigError, raw map[string]any) {
	if _, table := plainTable(raw[m.Key]); table || m.Text != "unknown key" || strings.Contains(m.Key, ".") {
		return
	}
	for _, section := range sdk.Fields(Config{}) {
		if slices.ContainsFunc(section.Fields, func(f sdk.Field) bool { return f.Name == m.Key }) {
			m.Text, m.Suggestion = "unknown key outside a section: it belongs below ["+section.Name+"]", ""
			return
		}
	}
}

// files resolves references from the folder of the file.
func (c *Config) files(env Env) sdk.Files {
	f := sdk.Files{Credentials: env.lookup("CREDENTIALS_DIRECTORY"), Getenv: env.lookup}
	if c.File != "" {
		f.Dir = filepath.Dir(c.File)
	}
	return f
}

// Files resolves the references of a plugin's own keys as Load does.
func (c *Config) Files(env Env) sdk.Files { return c.files(env) }

// SecretFiles are the files that "file:" references name, in whatever key, also of
// plugins; each once, by name.
func (c *Config) SecretFiles() []string {
	files := map[string]bool{}
	var walk func(v any)
	walk = func(v any) {
		switch t := v.(type) {
		case map[string]any:
			for _, e := range t {
				walk(e)
			}
		case []any:
			for _, e := range t {
				walk(e)
			}
		case string:
			if name, ok := strings.CutPrefix(t, "file:"); ok && name != "" {
				if !filepath.IsAbs(name) {
					name = filepath.Join(c.files(Env{}).Dir, name)
				}
				files[name] = true
			}
		}
	}
	walk(bare(c.raw))
	return slices.Sorted(maps.Keys(files))
}

// given reports whether the file or the environment has the key.
func (c *Config) given(section, key string) bool {
	m, _ := plainTable(c.raw[section])
	_, ok := m[key]
	return ok
}

// implied carries out compat.reference.
func (c *Config) implied() {
	if !c.Compat.Reference {
		return
	}
	for key, p := range map[string]*bool{
		"connect_path": &c.Compat.ConnectPath, "clear_frames": &c.Compat.ClearFrames, "public_api": &c.Compat.PublicAPI,
		"open_channels": &c.Compat.OpenChannels, "pinned_keys": &c.Compat.PinnedKeys,
	} {
		if !c.given("compat", key) {
			*p = true
		}
	}
	if !c.given("relay", "registration") {
		c.Relay.Registration = "open"
	}
}

// paths makes every Path absolute.
func (c *Config) paths(files sdk.Files) {
	list := []*Path{&c.Server.Data, &c.TLS.Cert, &c.TLS.Key, &c.Cover.Site, &c.Admin.Socket}
	for _, p := range c.Plugins { // the slices are shared with the map's values
		for i := range p.Read {
			list = append(list, &p.Read[i])
		}
		for i := range p.Write {
			list = append(list, &p.Write[i])
		}
	}
	for _, p := range list {
		name, isCredential := strings.CutPrefix(string(*p), "credential:")
		switch {
		case *p == "":
		case isCredential && files.Credentials != "":
			*p = Path(filepath.Join(files.Credentials, filepath.Base(name)))
		case !filepath.IsAbs(string(*p)) && files.Dir != "":
			if abs, err := filepath.Abs(filepath.Join(files.Dir, string(*p))); err == nil {
				*p = Path(abs)
			}
		}
	}
}

// Keys are the raw keys of a plugin for its kind's Open: of a transport's table, of
// [storage] if there are any, of [ledger.NAME], or else of [plugin.NAME]. Secrets and files in them
// are still references; see Files.
func (c *Config) Keys(kind sdk.Kind, name string) map[string]any {
	switch {
	case kind == sdk.Transport:
		if t, ok := c.Transports[name]; ok {
			return t.Keys
		}
	case kind == sdk.Storage && name == c.Storage.Backend && len(c.Storage.Keys) > 0:
		return c.Storage.Keys
	case kind == sdk.Ledger:
		if m, ok := plainTable(c.Ledger.Keys[name]); ok {
			return m
		}
	}
	return maps.Clone(c.Plugins[name].Keys)
}

func quoted(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(slices.Sorted(slices.Values(names)), ", ")
}

func fault(key string, pos sdk.Position, format string, args ...any) *sdk.ConfigError {
	return &sdk.ConfigError{Key: key, Pos: pos, Text: fmt.Sprintf(format, args...)}
}
