package amnesiawg

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/conf"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

func TestConfigMistakes(t *testing.T) {
	for name, tt := range map[string]struct {
		raw  map[string]any
		want string
	}{
		"address":     {map[string]any{"listen": []any{"nowhere"}}, "listen[0]: write it as"},
		"host name":   {map[string]any{"listen": []any{"relay.example:1"}}, "listen[0]: the address must be"},
		"tag":         {map[string]any{"parameters": map[string]any{"i1": "<r 4><c>"}}, `parameters.i1: column 7: unknown tag "c"`},
		"overlap":     {map[string]any{"parameters": map[string]any{"h1": "5-10", "h2": "10-12"}}, "parameters.h2: overlaps h1"},
		"length":      {map[string]any{"parameters": map[string]any{"s2": 56}}, "parameters.s2: makes the response 148"},
		"junk":        {map[string]any{"parameters": map[string]any{"jmin": 50, "jmax": 40}}, "parameters.jmax: must be larger"},
		"long packet": {map[string]any{"parameters": map[string]any{"i1": "<b 0x" + strings.Repeat("ab", 400) + ">"}}, "at most 512 fit"},
		"same name":   {map[string]any{"more": []any{map[string]any{"name": "main"}}}, "more[0].name"},
		"padding":     {map[string]any{"padding": "0-600"}, "padding: must be a range"},
		"key":         {map[string]any{"parameters": map[string]any{"header_protection_key": "short"}}, "parameters.header_protection_key: must be 32 bytes"},
		"plain": {map[string]any{"generation": "1.0", "parameters": map[string]any{
			"jc": 0, "s1": 0, "s2": 0, "s3": 0, "s4": 0, "h1": "1", "h2": "2", "h3": "3", "h4": "4",
		}}, "plain WireGuard's"},
	} {
		var c Config
		err := sdk.Decode(tt.raw, nil, &c)
		var mistakes sdk.ConfigErrors
		if !errors.As(err, &mistakes) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
}

func TestIdentity(t *testing.T) {
	folder := t.TempDir()
	id, err := loadIdentity(folder)
	if err != nil {
		t.Fatal(err)
	}
	p := id.drawn("main", obfs.V2)
	id.setPort("main", 0, 12345)
	if err := id.save(); err != nil {
		t.Fatal(err)
	}
	again, err := loadIdentity(folder)
	if err != nil {
		t.Fatal(err)
	}
	if again.private() != id.private() || again.port("main", 0) != 12345 || !bytes.Equal(again.drawn("main", obfs.V2).Marshal(), p.Marshal()) {
		t.Error("it was not kept")
	}
	if again.drawn("main", obfs.V3).Digest() == p.Digest() || !again.drawn("main", obfs.V3).Protected() {
		t.Error("another generation was not drawn")
	}
	if err := os.WriteFile(filepath.Join(folder, identityFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadIdentity(folder); sdk.KindOf(err) != sdk.Corrupt {
		t.Errorf("damaged: %v", err)
	}
}

func TestJournal(t *testing.T) {
	folder := t.TempDir()
	now := time.Unix(1_800_000_000, 0)
	open := func() *registry {
		t.Helper()
		r, err := newRegistry([32]byte{9}, 100, func() time.Time { return now }, folder)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := open()
	secret, _, err := r.link("link", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	key := func(n byte) [32]byte { return [32]byte{n, 5} }
	for n := range byte(3) {
		if _, err := r.device("device "+string('a'+n), key(n), now.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.revoke("device b"); err != nil {
		t.Fatal(err)
	}
	stamp := obfs.Stamp{1, 2, 3}
	if !r.advance(key(0), stamp) || r.advance(key(0), stamp) {
		t.Error("a replay is not seen")
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	// A crash in the middle of a line.
	f, err := os.OpenFile(filepath.Join(folder, guestsFile), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.WriteString(`{"id":"half`)
	_ = f.Close()
	r = open()
	if again, _, err := r.link("link", time.Time{}); err != nil || again != secret {
		t.Errorf("the secret changed: %v", err)
	}
	for n, want := range []bool{true, false, true} {
		if _, ok := r.known(key(byte(n))); ok != want {
			t.Errorf("device %d: %v", n, ok)
		}
	}
	if r.advance(key(0), stamp) {
		t.Error("a replay from before the restart is taken")
	}
	// Many changes do not make the file grow for ever.
	for i := range 3 * slack {
		if _, err := r.device("device a", key(0), now.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if r.log.lines > slack+20 {
		t.Errorf("%d lines", r.log.lines)
	}
	_ = r.close()
	now = now.Add(24 * time.Hour)
	if r = open(); len(r.byID) != 1 {
		t.Errorf("%d guests after the others' time was over", len(r.byID))
	}
	_ = r.close()
	if err := os.WriteFile(filepath.Join(folder, guestsFile), []byte("not a line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newRegistry([32]byte{9}, 100, time.Now, folder); sdk.KindOf(err) != sdk.Corrupt {
		t.Errorf("damaged: %v", err)
	}
}

func TestDesk(t *testing.T) {
	d := newDesk(&server{})
	now := time.Unix(1_800_000_000, 0)
	nonce := func(n int) [8]byte { return [8]byte{byte(n), byte(n >> 8), 1} }
	if !d.fresh(nonce(0), now, now) || d.fresh(nonce(0), now, now) {
		t.Error("a question is answered twice")
	}
	for _, off := range []time.Duration{-obfs.QuestionLife - time.Second, obfs.QuestionLife + time.Second} {
		if d.fresh(nonce(1), now.Add(off), now) {
			t.Errorf("a question of %v is answered", off)
		}
	}
	answered := 1
	for n := 2; n < 100; n++ {
		if d.fresh(nonce(n), now, now) {
			answered++
		}
	}
	if answered != deskRate {
		t.Errorf("%d answers in a second", answered)
	}
}

func TestRegister(t *testing.T) {
	folder := t.TempDir()
	r, err := newRegistry([32]byte(bytes.Repeat([]byte{1}, 32)), 4, time.Now, folder)
	if err != nil {
		t.Fatal(err)
	}
	device := func(id string, key byte) transport.Guest {
		return transport.Guest{ID: id, Public: bytes.Repeat([]byte{key}, 32)}
	}
	for _, step := range []struct {
		name    string
		guests  []transport.Guest
		gone    int
		refused int
		lines   int // of the journal
	}{
		{"new", []transport.Guest{device("a", 2), device("b", 3)}, 0, 0, 2},
		{"known", []transport.Guest{device("a", 2), device("b", 3)}, 0, 0, 2},
		{"changed", []transport.Guest{device("a", 4), device("b", 3)}, 1, 0, 3},
		{"bad ones", []transport.Guest{{ID: "x"}, device("", 9), device("y", 3), device("z", 1), device("c", 5), device("d", 5)}, 0, 5, 4},
		{"no room", []transport.Guest{device("d", 6), device("e", 7), device("a", 4)}, 0, 1, 5},
	} {
		gone, _, refused, err := r.devices(step.guests)
		if len(gone) != step.gone || refused != step.refused || err != nil || r.log.lines != step.lines {
			t.Errorf("%s: gone %d, refused %d, %d lines, %v", step.name, len(gone), refused, r.log.lines, err)
		}
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	again, err := newRegistry([32]byte(bytes.Repeat([]byte{1}, 32)), 4, time.Now, folder)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[byte]bool{2: false, 3: true, 4: true, 5: true, 6: true, 7: false} {
		if _, ok := again.known([32]byte(bytes.Repeat([]byte{key}, 32))); ok != want {
			t.Errorf("key %d: known %v", key, ok)
		}
	}
	if err := again.close(); err != nil {
		t.Error(err)
	}
}

// A list of all devices ends who is not in it, for good; a link is in no list.
func TestReplaced(t *testing.T) {
	folder := t.TempDir()
	server := [32]byte(bytes.Repeat([]byte{1}, 32))
	r, err := newRegistry(server, 10, time.Now, folder)
	if err != nil {
		t.Fatal(err)
	}
	key := func(n byte) [32]byte { return [32]byte(bytes.Repeat([]byte{n}, 32)) }
	device := func(id string, n byte) transport.Guest { k := key(n); return transport.Guest{ID: id, Public: k[:]} }
	if _, err := r.replaced(); sdk.KindOf(err) != sdk.Invalid {
		t.Error(err)
	}
	if _, _, err := r.link("link", time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := r.devices([]transport.Guest{device("listed", 2), device("revoked", 3), device("told", 4)}); err != nil {
		t.Fatal(err)
	}
	r.replacing() // of a list that did not come to its end
	if _, _, _, err := r.devices([]transport.Guest{device("revoked", 3)}); err != nil {
		t.Fatal(err)
	}
	r.replacing()
	if _, _, _, err := r.devices([]transport.Guest{device("listed", 2), device("new", 5)}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.device("told", key(4), time.Time{}); err != nil { // announced meanwhile
		t.Fatal(err)
	}
	gone, err := r.replaced()
	if err != nil || len(gone) != 1 || gone[0] != key(3) {
		t.Error(gone, err)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	if r, err = newRegistry(server, 10, time.Now, folder); err != nil {
		t.Fatal(err)
	}
	defer r.close()
	for n, want := range map[byte]bool{2: true, 3: false, 4: true, 5: true} {
		if _, ok := r.known(key(n)); ok != want {
			t.Errorf("key %d after a start: known %v", n, ok)
		}
	}
	if r.byID["link"] == nil {
		t.Error("the link is out")
	}
}

// Handshakes do not wait for the disk.
func TestRegistryWhileWriting(t *testing.T) {
	r, err := newRegistry([32]byte{1}, 10, time.Now, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	key := [32]byte{2}
	if _, err := r.device("d", key, time.Time{}); err != nil {
		t.Fatal(err)
	}
	r.writing.Lock() // as the one that waits for the disk
	defer r.writing.Unlock()
	if _, ok := r.known(key); !ok || !r.advance(key, obfs.Stamp{1}) || !r.knownAt(conf.ClientAddr(r.server, key)) {
		t.Error("a guest is not known")
	}
}
