package house

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/commucat/commucat"

// source is one Go file.
type source struct {
	name, pkg string // relative to the module
	test      bool
	generated bool
	lines     int
	imports   []string
	syntax    *ast.File
	set       *token.FileSet
}

// parsed reads every Go file of the module, once for all tests.
var parsed = sync.OnceValues(parse)

// tree is every Go file of the module.
func tree(t *testing.T) []source {
	t.Helper()
	files, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 50 {
		t.Fatalf("only %d files seen: the test looks in the wrong place", len(files))
	}
	return files
}

func parse() ([]source, error) {
	root, err := filepath.Abs("../../..")
	if err != nil {
		return nil, err
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil || !strings.HasPrefix(string(mod), "module "+module+"\n") {
		return nil, fmt.Errorf("%s is not the module's root: %w", root, err)
	}
	var files []source
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() {
			_, nested := os.Stat(filepath.Join(name, "go.mod"))
			if name != root && (nested == nil || base == "bin" || base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		set := token.NewFileSet()
		syntax, err := parser.ParseFile(set, rel, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		s := source{name: rel, pkg: path.Dir(rel), test: strings.HasSuffix(base, "_test.go"), generated: ast.IsGenerated(syntax), lines: strings.Count(string(text), "\n"), syntax: syntax, set: set}
		for _, i := range syntax.Imports {
			p, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, p)
		}
		files = append(files, s)
		return nil
	})
	return files, err
}

// target writes an import path as the tables do.
func target(p string) string {
	if rest, ok := strings.CutPrefix(p, module+"/"); ok {
		return rest
	}
	if first, _, _ := strings.Cut(p, "/"); !strings.Contains(first, ".") {
		return "std:" + p
	}
	return p
}

func ours(to string) bool { return !strings.HasPrefix(to, "std:") && !outside(to) }

func outside(to string) bool {
	first, _, _ := strings.Cut(to, "/")
	return !strings.HasPrefix(to, "std:") && strings.Contains(first, ".")
}

// match reports whether a package (or import) is meant by a pattern.
func match(pattern, p string) bool {
	if pattern == "..." || pattern == "outside" && outside(p) {
		return true
	}
	if prefix, ok := strings.CutSuffix(pattern, "/..."); ok {
		return p == prefix || strings.HasPrefix(p, prefix+"/")
	}
	if outside(pattern) { // a module means all of its packages
		return p == pattern || strings.HasPrefix(p, pattern+"/")
	}
	return p == pattern
}

func allows(table []edge, from, to string) bool {
	return slices.ContainsFunc(table, func(e edge) bool { return match(e.from, from) && match(e.to, to) })
}

func anyOf(patterns []string, p string) bool {
	return slices.ContainsFunc(patterns, func(s string) bool { return match(s, p) })
}

// mayImport says why a package must not import something, or "".
func mayImport(from, to string, test bool) string {
	if to == from || strings.HasPrefix(to, "std:") && !banned(from, to, test) {
		return ""
	}
	if outside(to) {
		return mayUse(from, to, test)
	}
	if test && allows(testEdges, from, to) {
		return ""
	}
	for _, b := range bans {
		if match(b.from, from) && match(b.not, to) {
			return b.why
		}
	}
	if !ours(to) {
		return ""
	}
	for _, o := range onlys {
		if match(o.what, to) && !anyOf(o.by, from) {
			return o.why
		}
	}
	if strings.HasPrefix(from, "core/") && strings.HasPrefix(to, "core/") {
		below := strings.HasPrefix(to, from+"/") // a package's own inner ones
		if !below && !allows(inside, from, to) {
			return "no line in the table inside allows it"
		}
		return ""
	}
	if !allows(floors, from, to) {
		return "no line in the table floors allows it"
	}
	return ""
}

func banned(from, to string, test bool) bool {
	return !test && slices.ContainsFunc(bans, func(b ban) bool { return match(b.from, from) && match(b.not, to) })
}

func mayUse(from, to string, test bool) string {
	for _, m := range testModules {
		if match(m.what, to) && (test || anyOf(m.by, from)) {
			return ""
		}
	}
	for _, b := range bans {
		if match(b.from, from) && match(b.not, to) {
			return b.why
		}
	}
	for _, m := range modules {
		if match(m.what, to) {
			if anyOf(m.by, from) {
				return ""
			}
			return "only " + strings.Join(m.by, ", ") + " may use " + m.what + " (" + m.why + ")"
		}
	}
	return "the module has no line in the table modules"
}

func TestImports(t *testing.T) {
	edges := 0
	for _, f := range tree(t) {
		for _, p := range f.imports {
			edges++
			if why := mayImport(f.pkg, target(p), f.test); why != "" {
				t.Errorf("%s imports %s: %s", f.name, p, why)
			}
		}
	}
	if edges < 200 {
		t.Errorf("only %d imports seen", edges)
	}
}

// TestRulesBite holds imports that must be refused and some that must not.
func TestRulesBite(t *testing.T) {
	for _, c := range []struct {
		from, to string
		test, ok bool
	}{
		{"sdk/ccp", "std:bytes", false, true}, {"sdk/ccp", "sdk", false, false}, {"sdk/ccp", "golang.org/x/crypto/hkdf", false, false},
		{"sdk/noise", "std:net", false, false}, {"sdk/identity", "sdk/storage", false, false}, {"sdk", "sdk/ccp", false, false},
		{"sdk/client", "core/relay", false, false}, {"sdk/client", "sdk/host", false, false}, {"sdk/storage", "core/config", false, false},
		{"sdk/storage", "google.golang.org/grpc/codes", false, false}, {"sdk/transport", "sdk/internal/wire", false, false},
		{"core/front", "core/session", false, false}, {"core/front", "core/admission", false, true}, {"core/relay", "core/session", false, false},
		{"core/relay", "std:net/http", false, false}, {"core/relay", "std:net/netip", false, true}, {"core/session", "std:net/http", false, false},
		{"core/server", "core/relay", false, true}, {"core/server", "transports/http2", false, false}, {"core/relay", "plugins/storage/memory", false, false},
		{"core/relay", "plugins/storage/memory", true, true}, {"core/audit", "core/relay", false, false}, {"core/pairing", "core/call", false, false},
		{"transports/sse", "transports/http2", false, false}, {"transports/sse", "transports/internal/split", false, true}, {"transports/sse", "core/front", false, false},
		{"core/front", "transports/internal/ws", false, false}, {"plugins/ledger/file", "core/audit", false, false}, {"plugins/ledger/file", "plugins/ledger/null", false, false},
		{"plugins/ledger/file", "sdk/ledger/journal", false, true}, {"cmd/commucat", "core/server", false, true}, {"core/relay", "cmd/commucat", false, false},
		{"core/relay", "github.com/unknown/module", false, false}, {"core/relay", "github.com/google/go-cmp/cmp", false, false},
		{"core/relay", "github.com/google/go-cmp/cmp", true, true}, {"core/relay", "modernc.org/sqlite", false, false}, {"examples/bot", "core/relay", false, false},
	} {
		if why := mayImport(c.from, c.to, c.test); (why == "") != c.ok {
			t.Errorf("%s -> %s (test %v): %q", c.from, c.to, c.test, why)
		}
	}
}

func TestEveryLineHasAReason(t *testing.T) {
	seen := map[string]bool{}
	check := func(key, why string) {
		if why == "" || seen[key] {
			t.Errorf("%s: no reason, or twice", key)
		}
		seen[key] = true
	}
	for _, e := range slices.Concat(floors, inside) {
		check(e.from+" -> "+e.to, e.why)
	}
	for _, e := range testEdges {
		check("test "+e.from+" -> "+e.to, e.why)
	}
	for _, b := range bans {
		check(b.from+" -x "+b.not, b.why)
	}
	for _, o := range slices.Concat(onlys, modules) {
		check("only "+o.what, o.why)
	}
}

// TestRoot keeps the first level as architecture section 3 says.
func TestRoot(t *testing.T) {
	allowed := []string{
		"cmd", "core", "sdk", "transports", "plugins", "examples", "docs", "bin", "go.mod", "go.sum",
		"README.md", "LICENSE", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "Makefile",
	}
	entries, err := os.ReadDir("../../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(allowed, e.Name()) {
			t.Errorf("%s does not belong at the root", e.Name())
		}
	}
}
