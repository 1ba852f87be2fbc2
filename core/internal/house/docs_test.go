package house

import (
	"go/ast"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestErrorCodesAreDocumented looks for every constant Code… in docs/errors.md.
func TestErrorCodesAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	codes := 0
	for _, f := range tree(t) {
		if f.test || (f.pkg != "sdk/ccp" && f.pkg != "core/account") {
			continue
		}
		for _, d := range f.syntax.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				for i, value := range v.Values {
					lit, ok := value.(*ast.BasicLit)
					if !ok || lit.Kind != token.STRING || !strings.HasPrefix(v.Names[i].Name, "Code") {
						continue
					}
					code, err := strconv.Unquote(lit.Value)
					if err != nil {
						t.Fatal(err)
					}
					codes++
					if !strings.Contains(string(page), "| `"+code+"` |") {
						t.Errorf("%s: %s = %q is not in docs/errors.md", f.name, v.Names[i].Name, code)
					}
				}
			}
		}
	}
	if codes < 20 {
		t.Errorf("only %d codes seen", codes)
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
