package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
)

// part is one entry of an archive made by hand.
type part struct {
	name, content, link string
	kind                byte
}

// archive packs parts as they are.
func archive(t *testing.T, to age.Recipient, parts []part) []byte {
	t.Helper()
	var out bytes.Buffer
	sealed, err := age.Encrypt(&out, to)
	if err != nil {
		t.Fatal(err)
	}
	packed := gzip.NewWriter(sealed)
	w := tar.NewWriter(packed)
	for _, p := range parts {
		if p.kind == 0 {
			p.kind = tar.TypeReg
		}
		err := w.WriteHeader(&tar.Header{Typeflag: p.kind, Name: p.name, Linkname: p.link, Size: int64(len(p.content)), Mode: 0o600})
		if err == nil && p.content != "" {
			_, err = w.Write([]byte(p.content))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), packed.Close(), sealed.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func list(t *testing.T, entries ...Entry) part {
	t.Helper()
	b, err := json.Marshal(Manifest{entries})
	if err != nil {
		t.Fatal(err)
	}
	return part{name: digestsName, content: string(b)}
}

func entry(name, content string) Entry {
	sum := sha256.Sum256([]byte(content))
	return Entry{name, int64(len(content)), hex.EncodeToString(sum[:])}
}

// TestHostileArchives: whoever has the public key can make an archive; nothing of one
// that is not a data folder's comes to lie anywhere.
func TestHostileArchives(t *testing.T) {
	by, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	info := part{name: infoName, content: `{"format":1,"layout":1,"keys":"with"}`}
	file := part{name: "files/a", content: "x"}
	tests := map[string]struct {
		parts []part
		want  string // in the error; "" for none
	}{
		"as it should be":     {[]part{info, file, list(t, entry("a", "x"))}, ""},
		"out of the folder":   {[]part{info, {name: "files/../b", content: "x"}, list(t, entry("../b", "x"))}, "no file of a data folder"},
		"from the root":       {[]part{info, {name: "files//tmp/b", content: "x"}, list(t, entry("/tmp/b", "x"))}, "no file of a data folder"},
		"without the prefix":  {[]part{info, {name: "a", content: "x"}, list(t, entry("a", "x"))}, "no file of a data folder"},
		"a symbolic link":     {[]part{info, {name: "files/a", link: "/etc", kind: tar.TypeSymlink}, list(t, entry("a", ""))}, "no file of a data folder"},
		"a hard link":         {[]part{info, {name: "files/a", link: "/etc/passwd", kind: tar.TypeLink}, list(t, entry("a", ""))}, "no file of a data folder"},
		"a device":            {[]part{info, {name: "files/a", kind: tar.TypeChar}, list(t, entry("a", ""))}, "no file of a data folder"},
		"one file twice":      {[]part{info, file, file, list(t, entry("a", "x"), entry("a", "x"))}, "exist"},
		"another digest":      {[]part{info, file, list(t, entry("a", "y"))}, "not the file that was kept"},
		"a file too many":     {[]part{info, file, list(t)}, "lists 0 files"},
		"no digests":          {[]part{info, file}, "ends before its digests"},
		"no beginning":        {[]part{file, list(t, entry("a", "x"))}, "out of order"},
		"two beginnings":      {[]part{info, info, list(t)}, "out of order"},
		"of a newer program":  {[]part{{name: infoName, content: `{"format":2}`}, list(t)}, "newer version"},
		"of a newer relay":    {[]part{{name: infoName, content: `{"format":1,"layout":9}`}, list(t)}, "newer relay"},
		"a file as a folder":  {[]part{info, file, {name: "files/a/b", content: "x"}, list(t, entry("a", "x"), entry("a/b", "x"))}, "not a directory"},
		"a manifest too long": {[]part{info, {name: digestsName, content: strings.Repeat(" ", maxDocument+1)}}, "too long"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "one", "data")
			_, _, err := Restore(t.Context(), bytes.NewReader(archive(t, by.Recipient(), test.parts)), []age.Identity{by}, dir, 1)
			if test.want == "" {
				if b, errRead := os.ReadFile(filepath.Join(dir, "a")); err != nil || errRead != nil || string(b) != "x" {
					t.Errorf("%v, %v, %q", err, errRead, b)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
			_ = filepath.WalkDir(filepath.Dir(filepath.Dir(dir)), func(path string, d fs.DirEntry, err error) error {
				if err != nil || !d.IsDir() || strings.HasSuffix(path, "data") || strings.Contains(path, "restoring") {
					t.Errorf("%s is left, %v", path, err)
				}
				return nil
			})
		})
	}
}

// FuzzName: a name that is taken lies within the folder, wherever that is.
func FuzzName(f *testing.F) {
	for _, s := range []string{"files/a", "files/a/", "files/../a", "files//a", "files/a/../../b", "files/.", "files/a\\b", "files/..a", "a"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, s string, folder bool) {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: s}
		if folder {
			h.Typeflag = tar.TypeDir
		}
		name, err := nameOf(h)
		if err != nil {
			return
		}
		rel, err := filepath.Rel("/data", filepath.Join("/data", filepath.FromSlash(name)))
		if err != nil || rel != filepath.FromSlash(name) || rel == "." || rel == ".." || strings.HasPrefix(rel, "../") {
			t.Errorf("%q became %q, which is %q of the folder: %v", s, name, rel, err)
		}
	})
}
