package host

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestFoldersOfTheKilledAreSwept: what a killed process left goes with the next start,
// and what a living one uses stays.
func TestFoldersOfTheKilledAreSwept(t *testing.T) {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	o := Options{Runtime: dir}
	alive, err := privateFolder(o)
	if err != nil {
		t.Fatal(err)
	}
	killed, err := privateFolder(o)
	if err != nil {
		t.Fatal(err)
	}
	killed.lock.Close() // as the kernel does
	foreign := filepath.Join(dir, "others")
	for _, path := range []string{foreign, filepath.Join(killed.path, "within")} {
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(foreign, filepath.Join(dir, folderPrefix+"link")); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		at    time.Time
		swept bool
	}{{time.Now(), false}, {time.Now().Add(2 * sweepAge), true}} {
		sweep(o, step.at)
		for path, want := range map[string]bool{alive.path: true, killed.path: !step.swept, foreign: true} {
			if _, err := os.Stat(path); (err == nil) != want {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
	alive.remove()
	if _, err := os.Stat(alive.path); !os.IsNotExist(err) {
		t.Errorf("removed: %v", err)
	}
}
