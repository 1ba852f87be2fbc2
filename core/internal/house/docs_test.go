package house

import (
	"go/ast"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestErrorCodesAreDocumented looks in docs/errors.md for every code that goes to others:
// constants Code…, the field Code of an error, and what the interface over HTTP answers
// with (problem).
func TestErrorCodesAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	codes := map[string]bool{}
	for _, f := range tree(t) {
		if f.test || f.pkg != "sdk/ccp" && !strings.HasPrefix(f.pkg, "core/") {
			continue
		}
		seen := func(e ast.Expr) {
			lit, ok := e.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return
			}
			code, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			if !codes[code] && !strings.Contains(string(page), "| `"+code+"` |") {
				t.Errorf("%s: the code %q is not in docs/errors.md", f.name, code)
			}
			codes[code] = true
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				for i, value := range n.Values {
					if strings.HasPrefix(n.Names[i].Name, "Code") {
						seen(value)
					}
				}
			case *ast.KeyValueExpr:
				if key, ok := n.Key.(*ast.Ident); ok && key.Name == "Code" {
					seen(n.Value)
				}
			case *ast.CallExpr:
				if fn, ok := n.Fun.(*ast.Ident); ok && fn.Name == "problem" && len(n.Args) == 3 {
					seen(n.Args[1])
				}
			}
			return true
		})
	}
	if len(codes) < 50 {
		t.Errorf("only %d codes seen", len(codes))
	}
}

// TestLinksBetweenPages follows relative links of the documents.
func TestLinksBetweenPages(t *testing.T) {
	pages := []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"}
	entries, err := os.ReadDir("../../../docs")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".md") {
			pages = append(pages, "docs/"+e.Name())
		}
	}
	for _, p := range pages {
		text, err := os.ReadFile("../../../" + p)
		if err != nil {
			t.Error(err)
			continue
		}
		dir := ""
		if i := strings.LastIndexByte(p, '/'); i >= 0 {
			dir = p[:i+1]
		}
		for _, part := range strings.Split(string(text), "](")[1:] {
			to, _, _ := strings.Cut(part, ")")
			to, _, _ = strings.Cut(to, "#")
			if to == "" || strings.Contains(to, ":") {
				continue
			}
			if _, err := os.Stat("../../../" + dir + to); err != nil {
				t.Errorf("%s links to %s, which is not there", p, to)
			}
		}
	}
}

// TestMetricsAreSet looks for a use of each instrument of core/metrics: one that nobody
// sets would show 0 for ever. Those of what the relay does not do yet say so.
func TestMetricsAreSet(t *testing.T) {
	declared, used, honest := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, f := range tree(t) {
		if f.test || !strings.HasPrefix(f.pkg, "core/") {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.KeyValueExpr: // the table of names and helps
				key, ok := n.Key.(*ast.Ident)
				if text, lit := n.Value.(*ast.CompositeLit); ok && lit && f.pkg == "core/metrics" && len(text.Elts) >= 2 {
					declared[key.Name] = true
					if help, ok := text.Elts[1].(*ast.BasicLit); ok && strings.Contains(help.Value, "; 0") {
						honest[key.Name] = true
					}
				}
			case *ast.SelectorExpr:
				if pkg, ok := n.X.(*ast.Ident); ok && pkg.Name == "metrics" {
					used[n.Sel.Name] = true
				}
			}
			return true
		})
	}
	for name := range declared {
		if used[name] == honest[name] {
			t.Errorf("metrics.%s: set %t, said to be always 0 %t", name, used[name], honest[name])
		}
	}
	if len(declared) < 60 {
		t.Errorf("only %d instruments seen", len(declared))
	}
}
