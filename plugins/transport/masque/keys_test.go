package masque

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
)

func testSecrets(t testing.TB) *secrets {
	t.Helper()
	s, err := openSecrets(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestKeyID(t *testing.T) {
	s, other := testSecrets(t), testSecrets(t)
	until := time.Unix(1_900_000_000, 0)
	for _, g := range []grant{
		{guest: "a"}, {guest: strings.Repeat("g", maxGuest), generation: 65535, expires: until},
		{guest: "link 1", generation: 3, expires: time.Unix(1<<40-1, 0)},
	} {
		public := publicOf(testKey(1))
		id, err := s.keyID(g, public)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.open(id, public)
		if err != nil || got != g {
			t.Errorf("%v, %v, want %v", got, err, g)
		}
		if _, err := other.open(id, public); err == nil {
			t.Error("another relay's key id was taken")
		}
		if _, err := s.open(id, publicOf(testKey(2))); err == nil {
			t.Error("taken with another key")
		}
		for i := range id {
			changed := bytes.Clone(id)
			changed[i] ^= 1
			if _, err := s.open(changed, public); err == nil {
				t.Errorf("byte %d changed: taken", i)
			}
			if _, err := s.open(id[:i], public); err == nil {
				t.Errorf("cut at %d: taken", i)
			}
		}
	}
	for _, guest := range []string{"", strings.Repeat("g", maxGuest+1)} {
		if _, err := s.keyID(grant{guest: guest}, publicOf(testKey(1))); err == nil {
			t.Errorf("a guest's id of %d bytes", len(guest))
		}
		if _, err := s.bearerToken(grant{guest: guest}); err == nil {
			t.Errorf("a bearer token for an id of %d bytes", len(guest))
		}
	}
}

func TestBearer(t *testing.T) {
	s := testSecrets(t)
	g := grant{guest: "link-1", generation: 2, expires: time.Unix(1_900_000_000, 0)}
	token, err := s.bearerToken(g)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.openBearer(token); err != nil || got != g {
		t.Errorf("%v %v", got, err)
	}
	for i := range token {
		changed := []byte(token)
		changed[i] ^= 1
		if _, err := s.openBearer(string(changed)); err == nil {
			t.Errorf("character %d changed: taken", i)
		}
	}
	// A key id is no bearer token.
	id, err := s.keyID(g, publicOf(testKey(1)))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", encode(id), strings.Repeat("A", 1000)} {
		if _, err := s.openBearer(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func FuzzKeyID(f *testing.F) {
	s := &secrets{vouch: []byte("vouch"), bearer: []byte("bearer")}
	public := publicOf(testKey(1))
	id, err := s.keyID(grant{guest: "g", expires: time.Unix(9, 0)}, public)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(id)
	f.Fuzz(func(t *testing.T, id []byte) {
		g, err := s.open(id, public)
		if err != nil {
			return
		}
		if again, err := s.keyID(g, public); err != nil || !bytes.Equal(again, id) {
			t.Fatalf("%x: %x %v", id, again, err)
		}
	})
}

func TestLinkKeysDiffer(t *testing.T) {
	s := testSecrets(t)
	seen := map[string]string{}
	for _, g := range []grant{{guest: "a"}, {guest: "b"}, {guest: "a", generation: 1}, {guest: "a", expires: time.Unix(1, 0)}, {guest: "a", expires: time.Unix(2, 0)}} {
		key, err := s.linkKey(g)
		if err != nil {
			t.Fatal(err)
		}
		if before, ok := seen[string(key)]; ok {
			t.Errorf("%v has the key of %s", g, before)
		}
		seen[string(key)] = fmt.Sprint(g)
		if again, _ := s.linkKey(g); !key.Equal(again) {
			t.Error("drawn anew")
		}
	}
}

func TestSecretsSurvive(t *testing.T) {
	dir := t.TempDir()
	first, err := openSecrets(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := openSecrets(dir)
	if err != nil || first.reset != second.reset || !bytes.Equal(first.vouch, second.vouch) {
		t.Error("other keys after a restart", err)
	}
	if st, err := os.Stat(filepath.Join(dir, secretFile)); err != nil || st.Mode().Perm() != 0o600 {
		t.Error(st.Mode(), err)
	}
	// A lost secret is not drawn anew where keys were given out.
	if err := os.WriteFile(filepath.Join(dir, revokedFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, secretFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := openSecrets(dir); !errors.Is(err, sdk.Corrupt) {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, secretFile), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openSecrets(dir); !errors.Is(err, sdk.Corrupt) {
		t.Error(err)
	}
	if _, err := openSecrets(""); !errors.Is(err, sdk.Invalid) {
		t.Error(err)
	}
}

func TestRevocations(t *testing.T) {
	name := filepath.Join(t.TempDir(), revokedFile)
	open := func() *revocations {
		t.Helper()
		r, err := openRevocations(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.close() })
		return r
	}
	r := open()
	for _, guest := range []string{"a", "b", "a", "a"} {
		if err := r.revoke(guest); err != nil {
			t.Fatal(err)
		}
	}
	check := func(r *revocations) {
		t.Helper()
		for guest, want := range map[string]uint16{"a": 3, "b": 1, "c": 0} {
			if got := r.generation(guest); got != want {
				t.Errorf("%s: generation %d, want %d", guest, got, want)
			}
		}
	}
	check(r)
	_ = r.close()
	r = open()
	check(r)
	_ = r.close()
	// A crash in the middle of a record.
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, append(content, 1, 2, 3), 0o600); err != nil {
		t.Fatal(err)
	}
	r = open()
	check(r)
	if err := r.revoke("c"); err != nil || r.generation("c") != 1 {
		t.Error(err)
	}
	_ = r.close()
	r = open()
	if r.generation("c") != 1 || r.generation("a") != 3 {
		t.Error("lost after a torn record")
	}
	// A full disk took a part of a record; the next is whole again.
	if _, err := r.file.WriteAt([]byte{1, 2, 3, 4, 5, 6, 7}, r.size); err != nil {
		t.Fatal(err)
	}
	if err := r.revoke("d"); err != nil {
		t.Fatal(err)
	}
	_ = r.close()
	r = open()
	if r.generation("d") != 1 || r.generation("a") != 3 || len(r.good) != 4 {
		t.Error("lost after a full disk", r.good)
	}
	r.good[guestHash("a")] = 65535
	if err := r.revoke("a"); !errors.Is(err, sdk.Full) {
		t.Error(err)
	}
}

func TestNewKey(t *testing.T) {
	private, public, err := newKey()
	if err != nil || len(private) != ed25519.SeedSize || !bytes.Equal(ed25519.NewKeyFromSeed(private)[32:], public) {
		t.Error(len(private), len(public), err)
	}
}

func TestGuests(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	g := newGuests(2, 100, func() time.Time { return now })
	enter := func(id string, want error) *pass {
		t.Helper()
		p, err := g.enter(grant{guest: id})
		if !errors.Is(err, want) {
			t.Fatalf("%s: %v, want %v", id, err, want)
		}
		return p
	}
	a, b := enter("x", nil), enter("x", nil)
	enter("x", errSessions)
	other := enter("y", nil)
	b.leave()
	b = enter("x", nil)
	// Bytes of all streams count, in a window of a day.
	if !a.count(60) || !b.count(40) || b.count(1) {
		t.Error("the quota of bytes")
	}
	closed := 0
	a.hold(closing(func() { closed++ }))
	other.hold(closing(func() { t.Error("a neighbour was closed") }))
	g.expel("x")
	g.expel("nobody")
	if closed != 1 {
		t.Errorf("closed %d times", closed)
	}
	b.hold(closing(func() { closed++ })) // too late: it ends at once
	if closed != 2 {
		t.Errorf("closed %d times", closed)
	}
	a.leave()
	b.leave()
	enter("x", errBytes)
	now = now.Add(quotaWindow)
	enter("x", nil).leave()
	other.leave()
	g.sweep()
	now = now.Add(quotaWindow)
	g.sweep()
	if len(g.all) != 0 {
		t.Errorf("%d guests are kept", len(g.all))
	}
}
