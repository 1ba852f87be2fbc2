package house

import (
	"go/ast"
	"go/build/constraint"
	"regexp"
	"testing"
)

// plain are the tests that "make unit" runs without the race detector as well. The
// Makefile finds them by this name.
var plain = regexp.MustCompile(`^Test(Budget|Load)[A-Z0-9]`)

// settings are what tests take as they find it: it adapts to the race detector what a
// whole package starts, and leaves nothing untested by itself.
var settings = map[string]string{
	"core/pluginhost: memoryLimit": "none with the detector; TestBudgetHostileMemory has one",
}

// TestPlain: a test that asks for the race detector, to do less or nothing with it, is
// one that is run without it, too.
func TestPlain(t *testing.T) {
	aware := map[string]map[string]bool{} // by package: what is declared for one build only
	files := tree(t)
	for _, f := range files {
		if !f.test || !raceTagged(f.syntax) {
			continue
		}
		if aware[f.pkg] == nil {
			aware[f.pkg] = map[string]bool{}
		}
		for _, d := range f.syntax.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if isTest(d) && !plain.MatchString(d.Name.Name) {
					t.Errorf("%s: %s runs in one build only; name it TestBudget… or TestLoad…", f.set.Position(d.Pos()), d.Name.Name)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if v, ok := s.(*ast.ValueSpec); ok {
						for _, n := range v.Names {
							aware[f.pkg][n.Name] = true
						}
					}
				}
			}
		}
	}
	seen := map[string]bool{}
	for _, f := range files {
		if !f.test || raceTagged(f.syntax) {
			continue
		}
		for _, d := range f.syntax.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil || fn.Name.Name == "TestMain" || isTest(fn) && plain.MatchString(fn.Name.Name) {
				continue
			}
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				if x, ok := n.(*ast.Ident); ok && aware[f.pkg][x.Name] {
					key := f.pkg + ": " + x.Name
					if seen[key] = true; settings[key] == "" {
						t.Errorf("%s: %s depends on the race detector (%s); ask in a test named TestBudget… or TestLoad…, which is run without it as well",
							f.set.Position(x.Pos()), fn.Name.Name, x.Name)
					}
				}
				return true
			})
		}
	}
	for key := range settings {
		if !seen[key] {
			t.Errorf("settings: %s is not used", key)
		}
	}
	if len(aware) < 4 {
		t.Errorf("only %d packages know of the race detector: the test looks in the wrong place", len(aware))
	}
}

func isTest(fn *ast.FuncDecl) bool {
	return fn.Recv == nil && regexp.MustCompile(`^Test([^a-z]|$)`).MatchString(fn.Name.Name) && fn.Name.Name != "TestMain"
}

// raceTagged reports whether a file belongs to one of the two builds.
func raceTagged(f *ast.File) bool {
	for _, g := range f.Comments {
		if g.Pos() > f.Package {
			break
		}
		for _, c := range g.List {
			if x, err := constraint.Parse(c.Text); err == nil && mentions(x, "race") {
				return true
			}
		}
	}
	return false
}

func mentions(x constraint.Expr, tag string) bool {
	switch x := x.(type) {
	case *constraint.TagExpr:
		return x.Tag == tag
	case *constraint.NotExpr:
		return mentions(x.X, tag)
	case *constraint.AndExpr:
		return mentions(x.X, tag) || mentions(x.Y, tag)
	case *constraint.OrExpr:
		return mentions(x.X, tag) || mentions(x.Y, tag)
	}
	return false
}
