package tiles_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestReload: a file that cannot be written, as on a full disk, ends an Append somewhere;
// afterwards the log goes on with what is there, without being opened again.
func TestReload(t *testing.T) {
	for _, size := range []int{0, 1, 255, 256, 300} {
		for _, blocked := range []string{"tile/entries/%s.new", "tile/0/%s.new", "checkpoint.new"} {
			name := blocked
			if filepath.Dir(name) != "." {
				name = fmt.Sprintf(name, edge(size+20))
			}
			t.Run(fmt.Sprint(size, " ", name), func(t *testing.T) {
				o := options(t, t.TempDir())
				l := open(t, o)
				must(t, l.Append(entries(0, size)))
				before := l.Head()
				obstacle := filepath.Join(o.Dir, filepath.FromSlash(name))
				must(t, os.MkdirAll(obstacle, 0o700))
				for range 2 {
					if err := l.Append(entries(size, size+20)); err == nil {
						t.Fatal("appended")
					}
				}
				must(t, l.Reload())
				if l.Head() != before {
					t.Fatalf("head %+v, before %+v", l.Head(), before)
				}
				must(t, reader(t, o).Verify(t.Context(), nil))
				if err := l.Append(entries(size, size+20)); err == nil {
					t.Fatal("appended while the disk was full")
				}
				must(t, os.Remove(obstacle))
				must(t, l.Reload())
				must(t, l.Append(entries(size, size+20)))
				if h := l.Head(); h.Root != plainRoot(entries(0, size+20)) {
					t.Errorf("head %+v", h)
				}
				must(t, reader(t, o).Verify(t.Context(), nil))
				must(t, l.Close())
				if err := l.Reload(); err == nil {
					t.Error("a closed log was read again")
				}
				must(t, open(t, o).Append(entries(size+20, size+21)))
			})
		}
	}
}

// edge is the name, below its level, of the tile that ends with a tree of size records.
func edge(size int) string {
	if size%256 == 0 {
		return fmt.Sprintf("%03d", size/256-1)
	}
	return fmt.Sprintf("%03d.p/%d", size/256, size%256)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
