package onion

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
)

func TestGuests(t *testing.T) {
	dir, now := t.TempDir(), time.Unix(1000, 0)
	open := func() *guests {
		g, err := openGuests(dir, 2, func() time.Time { return now })
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	key := bytes.Repeat([]byte{7}, 32)
	token := func(b byte) []byte { return bytes.Repeat([]byte{b}, tokenSize) }
	g := open()
	for i, id := range []string{"a", "b"} {
		if err := g.add(id, key, token(byte(i)), now.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.add("c", key, token(9), time.Time{}); !errors.Is(err, sdk.Full) {
		t.Errorf("a third guest: %v", err)
	}
	if err := g.add("a", key, token(5), now.Add(2*time.Hour)); err != nil {
		t.Errorf("an invitation again: %v", err)
	}
	g = open() // as after a restart
	for b, want := range map[byte]string{0: "", 1: "b", 5: "a", 9: ""} {
		if id, ok := g.who(token(b)); id != want || ok != (want != "") {
			t.Errorf("token %d is %q, want %q", b, id, want)
		}
	}
	service := filepath.Join(dir, "service")
	if err := g.write(service, false); err != nil {
		t.Fatal(err)
	}
	files := func() (n int) {
		all, err := os.ReadDir(filepath.Join(service, authFolder))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	if n := files(); n != 3 { // and nobody
		t.Errorf("%d files", n)
	}
	if known, err := g.remove("b"); !known || err != nil {
		t.Errorf("%v, %v", known, err)
	}
	if known, err := g.remove("b"); known || err != nil {
		t.Errorf("again: %v, %v", known, err)
	}
	if _, ok := g.who(token(1)); ok {
		t.Error("a revoked guest's token is good")
	}
	now = now.Add(3 * time.Hour)
	if _, ok := g.who(token(5)); ok {
		t.Error("an expired guest's token is good")
	}
	if err := g.write(service, false); err != nil || files() != 1 {
		t.Errorf("%d files, %v", files(), err)
	}
	b, err := os.ReadFile(filepath.Join(service, authFolder, "nobody.auth"))
	if err != nil || !strings.HasPrefix(string(b), "descriptor:x25519:") || len(strings.TrimSpace(string(b))) != len("descriptor:x25519:")+52 {
		t.Errorf("%q, %v", b, err)
	}
	if err := os.WriteFile(filepath.Join(dir, guestsFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openGuests(dir, 2, time.Now); !errors.Is(err, sdk.Corrupt) {
		t.Errorf("a broken file: %v", err)
	}
}

// Only what tor has to be told counts as a change.
func TestGuestsChanges(t *testing.T) {
	g, err := openGuests("", 10, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	one, two := make([]byte, 32), append(make([]byte, 31), 1)
	for i, step := range []struct {
		public []byte
		want   uint64
	}{{one, 1}, {one, 1}, {two, 2}} {
		if err := g.add("friend", step.public, []byte{byte(i)}, time.Time{}); err != nil || g.changes() != step.want {
			t.Errorf("invitation %d: %d changes, %v", i, g.changes(), err)
		}
		if _, ok := g.who([]byte{byte(i)}); !ok {
			t.Errorf("invitation %d: the token is not known", i)
		}
	}
	if _, err := g.remove("friend"); err != nil || g.changes() != 3 {
		t.Errorf("removed: %d changes, %v", g.changes(), err)
	}
}
