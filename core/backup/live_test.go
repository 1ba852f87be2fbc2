package backup

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	must(t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(t, os.WriteFile(path, []byte(content), 0o600))
}

// TestGather: what is gathered is archived as it was then, whatever becomes of the files
// afterwards; folders of others stand in the place of the relay's, and links that a plugin
// laid lead nowhere.
func TestGather(t *testing.T) {
	dir := t.TempDir()
	long := strings.Repeat("line\n", 1<<15)
	for name, content := range map[string]string{
		"relay.json": "state", "lock": "1", "keys/root": "secret", "audit/spool/1": "old", "plugins/storage-sqlite/relay.db": "torn",
		"plugins/ledger-file/records/1": long, "plugins/transport-x/state": "small", "snapshot-1/audit/spool/1": "cut",
		"plugins/storage-sqlite/snapshot-1/relay.db": "whole", "snapshot-1/other": "x",
	} {
		put(t, dir, name, content)
	}
	must(t, os.Symlink(filepath.Join(dir, "keys"), filepath.Join(dir, "plugins", "transport-x", "way")))
	must(t, os.Symlink(filepath.Join(dir, "keys", "root"), filepath.Join(dir, "plugins", "transport-x", "file")))
	stage := filepath.Join(dir, "snapshot-1", "stage")
	must(t, os.Mkdir(stage, 0o700))
	l := &Live{Dir: dir, Stage: stage, Keys: WithoutKeys, Instead: map[string]string{
		"audit": filepath.Join(dir, "snapshot-1", "audit"), "plugins/storage-sqlite": filepath.Join(dir, "plugins", "storage-sqlite", "snapshot-1"),
	}}
	files, others, err := l.Gather(t.Context())
	must(t, err)
	if want := []string{"plugins/transport-x/file", "plugins/transport-x/way"}; !slices.Equal(others, want) {
		t.Errorf("left out %q, want %q", others, want)
	}
	// The relay goes on.
	f, err := os.OpenFile(filepath.Join(dir, "plugins", "ledger-file", "records", "1"), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString("more\n")
	must(t, err)
	must(t, f.Close())
	must(t, os.Remove(filepath.Join(dir, "relay.json")))
	put(t, dir, "plugins/transport-x/state", "changed")

	by, err := age.GenerateX25519Identity()
	must(t, err)
	var out bytes.Buffer
	told := int64(0)
	_, err = Write(t.Context(), &out, []age.Recipient{by.Recipient()}, Info{Layout: 1, Keys: WithoutKeys}, files, func(n int64) { told += n })
	must(t, err)
	if told != Bytes(files) {
		t.Errorf("told of %d bytes of %d", told, Bytes(files))
	}
	to := filepath.Join(t.TempDir(), "new")
	_, _, err = Restore(t.Context(), &out, []age.Identity{by}, to, 1)
	must(t, err)
	var got []string
	must(t, filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(to, path)
			b, err := os.ReadFile(path)
			must(t, err)
			got = append(got, filepath.ToSlash(rel)+"="+string(b[:min(len(b), 5)]))
			if d.Name() == "1" && len(b) > 10 && string(b) != long {
				t.Errorf("%s has %d bytes, want %d", rel, len(b), len(long))
			}
		}
		return err
	}))
	want := []string{"audit/spool/1=cut", "plugins/ledger-file/records/1=line\n", "plugins/storage-sqlite/relay.db=whole", "plugins/transport-x/state=small", "relay.json=state"}
	if !slices.Equal(got, want) {
		t.Errorf("restored %q, want %q", got, want)
	}
}

// TestGatherKeys: the keys alone, from the folder that stands for them.
func TestGatherKeys(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"relay.json": "state", "keys/root": "secret", "plugins/ledger-file/records/1": "x", "snapshot-1/keys/root": "secret",
	} {
		put(t, dir, name, content)
	}
	stage := filepath.Join(dir, "snapshot-1", "stage")
	must(t, os.Mkdir(stage, 0o700))
	l := &Live{Dir: dir, Stage: stage, Keys: OnlyKeys, Instead: map[string]string{"keys": filepath.Join(dir, "snapshot-1", "keys")}}
	files, _, err := l.Gather(t.Context())
	must(t, err)
	var names []string
	for _, f := range files {
		names = append(names, f.Name)
	}
	if want := []string{"keys", "relay.json", "keys/root"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
}

// TestSnapshotsLeft: folders of a moment that was archived before are in no archive, since
// they may have keys in them; what is only named alike is.
func TestSnapshotsLeft(t *testing.T) {
	dir := t.TempDir()
	old := SnapshotName()
	for _, name := range []string{
		"relay.json", "snapshot-2026-11/notes", old + "/keys/root", "plugins/storage-x/" + old + "/relay.db", "plugins/storage-x/deep/" + old + "/own", "snapshot-1/audit/1",
	} {
		put(t, dir, name, "x")
	}
	want := []string{"plugins/storage-x/deep/" + old + "/own", "relay.json", "snapshot-2026-11/notes"}
	check := func(how string, files []File, want ...string) {
		t.Helper()
		var got []string
		for _, f := range files {
			if !f.Mode.IsDir() {
				got = append(got, f.Name)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", how, got, want)
		}
	}
	files, _, err := Scan(dir, WithoutKeys)
	must(t, err)
	check("a relay that does not run", files, slices.Sorted(slices.Values(append(slices.Clone(want), "snapshot-1/audit/1")))...)

	// The relay has another name for its data folder than who archives it.
	stage := filepath.Join(dir, "snapshot-1", "stage")
	must(t, os.Mkdir(stage, 0o700))
	t.Chdir(dir)
	files, _, err = (&Live{Dir: ".", Stage: stage, Keys: WithoutKeys}).Gather(t.Context())
	must(t, err)
	check("one that runs", files, want...)
}

func TestIsSnapshot(t *testing.T) {
	for range 20 {
		if n := SnapshotName(); !IsSnapshot(n) {
			t.Errorf("%q was drawn", n)
		}
	}
	letters := strings.Repeat("A", 25)
	for _, n := range []string{"", "snapshot-", "snapshot-2026-11", "snapshot-" + letters, "snapshot-" + letters + "AA", "snapshot-" + letters + "1", "snapshot-" + letters + "a", "snapshot-" + letters + "/", letters + "A"} {
		if IsSnapshot(n) {
			t.Errorf("%q was not drawn", n)
		}
	}
}
