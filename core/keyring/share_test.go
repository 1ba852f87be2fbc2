package keyring

import (
	"bytes"
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/commucat/commucat/sdk"
)

// copied is a second node's folder, set up from the first's.
func copied(t *testing.T, from string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	if b, err := exec.Command("cp", "-a", from, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return dir
}

func share(t *testing.T, r *Ring) []byte {
	t.Helper()
	b, err := r.Share()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func adopt(t *testing.T, r *Ring, shared []byte) (newer bool) {
	t.Helper()
	newer, err := r.Adopt(shared)
	if err != nil {
		t.Fatal(err)
	}
	return newer
}

// agree fails unless a device may go from one node to the other.
func agree(t *testing.T, a, b *Ring) {
	t.Helper()
	if a.NoiseKeys()[0].Pair != b.NoiseKeys()[0].Pair || !bytes.Equal(a.EntryMasters()[0], b.EntryMasters()[0]) || !bytes.Equal(a.Catalogue(), b.Catalogue()) {
		t.Error("the nodes have different keys")
	}
}

func TestNodesShareKeys(t *testing.T) {
	c := start()
	first := filepath.Join(t.TempDir(), "keys")
	a := mustOpen(t, first, options(c))
	dir := copied(t, first)
	b := mustOpen(t, dir, options(c))
	agree(t, a, b)

	// One rotates, the other takes it over and keeps it.
	c.add(61 * day)
	if _, err := a.Rotate(); err != nil {
		t.Fatal(err)
	}
	shared := share(t, a)
	if bytes.Contains(shared, []byte("private")) {
		t.Error("shared in the clear")
	}
	if newer := adopt(t, b, shared); newer {
		t.Error("older keys call themselves newer")
	}
	agree(t, a, b)
	agree(t, a, mustOpen(t, dir, options(c)))
	if changes, err := b.Rotate(); err != nil || len(changes) != 0 {
		t.Errorf("what was taken over is due again: %v %v", changes, err)
	}

	// Both rotate at once, as when one starts after a long stop: what was shared first
	// counts.
	c.add(61 * day)
	for _, r := range []*Ring{a, b} {
		if _, err := r.Rotate(); err != nil {
			t.Fatal(err)
		}
	}
	if a.NoiseKeys()[0].Pair == b.NoiseKeys()[0].Pair {
		t.Fatal("two nodes drew one key")
	}
	lost := b.EntryMasters()[0]
	if newer := adopt(t, b, share(t, a)); !newer {
		t.Error("the second of two new masters is not shared")
	}
	agree(t, a, b)
	if newer := adopt(t, a, share(t, b)); newer {
		t.Error("the nodes never agree")
	}
	agree(t, a, b)
	for _, r := range []*Ring{a, b, mustOpen(t, dir, options(c))} {
		if !slices.ContainsFunc(r.EntryMasters(), func(m []byte) bool { return bytes.Equal(m, lost) }) {
			t.Error("tokens of a node that rotated second are not accepted")
		}
	}

	// A storage that came back from a backup has older keys.
	if newer := adopt(t, b, shared); !newer {
		t.Error("older keys were taken over")
	}
	agree(t, a, b)
}

// TestStaleShareKeepsMasters: shared keys that are older, though not by their Noise keys,
// take no entry master away, and those that are over do not come back.
func TestStaleShareKeepsMasters(t *testing.T) {
	c := start()
	opt := options(c)
	opt.Rotate, opt.Grace = 360*day, 30*day
	a := mustOpen(t, filepath.Join(t.TempDir(), "keys"), opt)
	stale := share(t, a)
	for round := range 3 {
		c.add(61 * day)
		if _, err := a.Rotate(); err != nil {
			t.Fatal(err)
		}
		before := a.EntryMasters()
		if newer := adopt(t, a, stale); !newer {
			t.Errorf("round %d: the older masters stay shared", round)
		}
		if _, err := a.Rotate(); err != nil {
			t.Fatal(err)
		}
		if after := a.EntryMasters(); !slices.EqualFunc(before, after, bytes.Equal) {
			t.Errorf("round %d: %d masters became %d or others", round, len(before), len(after))
		}
	}
}

func TestAdoptRefuses(t *testing.T) {
	c := start()
	a := mustOpen(t, filepath.Join(t.TempDir(), "keys"), options(c))
	other := mustOpen(t, filepath.Join(t.TempDir(), "keys"), options(c))
	good := share(t, a)
	bad := bytes.Clone(good)
	bad[len(bad)-1] ^= 1
	for name, b := range map[string][]byte{"another relay's": share(t, other), "changed": bad, "cut": good[:10], "none": nil, "long": make([]byte, maxShare+1)} {
		before := a.NoiseKeys()[0].Pair
		if _, err := a.Adopt(b); !errors.Is(err, sdk.Denied) {
			t.Errorf("%s: %v", name, err)
		}
		if a.NoiseKeys()[0].Pair != before {
			t.Errorf("%s: taken over", name)
		}
	}
}
