package house

import (
	"go/ast"
	"path"
	"slices"
	"strings"
	"testing"
)

// maxLines is the longest file that can still be read at a sitting; tables of cases
// make tests longer.
const (
	maxLines     = 600
	maxTestLines = 1000
)

// vague are package names that say nothing.
var vague = []string{"util", "utils", "common", "helper", "helpers", "base", "manager", "misc", "shared"}

// globals are calls that use state of the process instead of what was passed in.
var globals = map[string][]string{
	"log":      {"Default", "SetOutput", "SetFlags", "Print", "Printf", "Println", "Fatal", "Fatalf", "Fatalln", "Panic", "Panicf", "Panicln"},
	"log/slog": {"Default", "SetDefault", "Debug", "Info", "Warn", "Error", "Log", "DebugContext", "InfoContext", "WarnContext", "ErrorContext"},
	"net/http": {"Handle", "HandleFunc", "DefaultServeMux", "DefaultClient", "Get", "Post", "PostForm", "Head", "ListenAndServe"},
}

func TestStyle(t *testing.T) {
	for _, f := range tree(t) {
		if f.generated {
			continue
		}
		most := maxLines
		if f.test {
			most = maxTestLines
		}
		if f.lines > most {
			t.Errorf("%s has %d lines; at most %d", f.name, f.lines, most)
		}
		if f.test {
			continue
		}
		if name := f.syntax.Name.Name; slices.Contains(vague, name) || strings.ToLower(name) != name || strings.Contains(name, "_") {
			t.Errorf("%s: package name %s", f.name, name)
		}
		for _, p := range f.imports {
			if p == "math/rand" || p == "C" {
				t.Errorf("%s imports %s", f.name, p)
			}
		}
		declarations(t, f)
		calls(t, f)
	}
}

// declarations: no init, nothing left to do.
func declarations(t *testing.T, f source) {
	t.Helper()
	for _, d := range f.syntax.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			t.Errorf("%s: init: nothing registers itself", f.set.Position(fn.Pos()))
		}
	}
	for _, g := range f.syntax.Comments {
		for _, word := range []string{"TODO", "FIXME"} {
			if strings.Contains(g.Text(), word) {
				t.Errorf("%s: %s", f.set.Position(g.Pos()), word)
			}
		}
	}
}

// calls: no use of the process's logger, mux or client.
func calls(t *testing.T, f source) {
	t.Helper()
	names := map[string][]string{}
	for i, p := range f.imports {
		if banned, ok := globals[p]; ok {
			name := path.Base(p)
			if alias := f.syntax.Imports[i].Name; alias != nil {
				name = alias.Name
			}
			names[name] = banned
		}
	}
	if len(names) == 0 {
		return
	}
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := s.X.(*ast.Ident); ok && slices.Contains(names[x.Name], s.Sel.Name) {
			t.Errorf("%s: %s.%s is global; it is passed in", f.set.Position(s.Pos()), x.Name, s.Sel.Name)
		}
		return true
	})
}

// TestEveryPackageIsDocumented wants one package comment for each package.
func TestEveryPackageIsDocumented(t *testing.T) {
	documented := map[string]bool{}
	for _, f := range tree(t) {
		if !f.test {
			documented[f.pkg] = documented[f.pkg] || f.syntax.Doc != nil
		}
	}
	for pkg, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment", pkg)
		}
	}
}
