package client

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
)

// grants has a relay give an entry credential of that life with each Ack.
func (r *relay) grants(life time.Duration) {
	r.ack = func(a *ccp.Established) {
		e := &ccp.Entry{Key: [16]byte{1}}
		rand.Read(e.ID[4:])
		binary.BigEndian.PutUint32(e.ID[:], uint32(time.Now().Add(life).Unix()))
		a.Ext.Entry = e
	}
}

func newestEntry(t *testing.T, p *Profile) string {
	t.Helper()
	if len(p.Relay.Entry) == 0 {
		t.Fatal("no credential")
	}
	return string(p.Relay.Entry[len(p.Relay.Entry)-1].ID)
}

// The credential of an Ack is no reason to write the profile before the session begins,
// unless the one on the disk is about to expire; it is there a while later, and at the end.
func TestEntryIsSavedLater(t *testing.T) {
	for _, x := range []struct {
		name string
		life time.Duration
		wait time.Duration
		now  bool
	}{
		{"long", 30 * 24 * time.Hour, 0, false},
		{"after a while", 30 * 24 * time.Hour, 2 * flushAfter, true},
		{"short", 24 * time.Hour, 0, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRelay(t)
				r.grants(x.life)
				opt := r.options(0)
				dir := t.TempDir()
				if err := opt.Profile.Save(dir); err != nil {
					t.Fatal(err)
				}
				saved := func() string {
					p, err := LoadProfile(dir)
					if err != nil {
						t.Fatal(err)
					}
					return newestEntry(t, p)
				}
				u := start(t, opt)
				u.connected()
				if saved() != newestEntry(t, u.Profile()) {
					t.Error("the first credential is not in the file")
				}
				u.cut()
				time.Sleep(x.wait)
				if got := saved() == newestEntry(t, u.Profile()); got != x.now {
					t.Errorf("the next one is in the file: %v", got)
				}
				u.close()
				if saved() != newestEntry(t, u.Profile()) {
					t.Error("the last one is not in the file")
				}
			})
		})
	}
}

// Certificates that are renewed during a session are kept if they are this device's, and a
// relay that sends very many causes no more writes for that.
func TestCertificateDuringSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(t)
		opt := r.options(0)
		ca, err := identity.NewCA(bytes.Repeat([]byte{1}, 32))
		if err != nil {
			t.Fatal(err)
		}
		certify := func(device string, age time.Duration) []byte {
			c, err := ca.Issue("u-1", device, opt.Profile.device().Public(), time.Now().Add(-age), 0, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			b, err := c.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		var own []byte
		r.ready = func(p *peer) {
			tell := func(b []byte) {
				_ = p.send(ccp.TypeKeyUpdate, 0, fmt.Appendf(nil, `{"type":"certificate-renewed","certificate":%s}`, b))
			}
			for i := range 100 {
				own = certify(opt.Profile.DeviceID, time.Duration(100-i)*time.Hour)
				tell(own)
			}
			tell(certify("another", 0))
			_ = p.deliver(1, 1, "behind")
		}
		dir := t.TempDir()
		if err := opt.Profile.Save(dir); err != nil {
			t.Fatal(err)
		}
		file := func() (os.FileInfo, *Profile) {
			st, err := os.Stat(filepath.Join(dir, profileFile))
			if err != nil {
				t.Fatal(err)
			}
			p, err := LoadProfile(dir)
			if err != nil {
				t.Fatal(err)
			}
			return st, p
		}
		u := start(t, opt)
		u.heard(1)
		u.event("certificate")
		if got := u.Profile().Certificate; string(got) != string(own) {
			t.Errorf("got %s, want %s", got, own)
		}
		if _, p := file(); len(p.Certificate) != 0 {
			t.Error("written while the session reads")
		}
		time.Sleep(2 * flushAfter)
		first, p := file()
		compact := new(bytes.Buffer)
		if err := json.Compact(compact, p.Certificate); err != nil || compact.String() != string(own) {
			t.Errorf("in the file: %s, want %s", compact, own)
		}
		u.close()
		if last, _ := file(); !os.SameFile(first, last) {
			t.Error("written again without a change")
		}
	})
}

// hooked is a store whose SaveSession asks first.
type hooked struct {
	*MemoryStore
	mu   sync.Mutex
	hook func() error
}

func (h *hooked) set(hook func() error) {
	h.mu.Lock()
	h.hook = hook
	h.mu.Unlock()
}

func (h *hooked) SaveSession(s State) error {
	h.mu.Lock()
	hook := h.hook
	h.mu.Unlock()
	if hook != nil {
		if err := hook(); err != nil {
			return err
		}
	}
	return h.MemoryStore.SaveSession(s)
}

// Close waits for what Run saves at its end, also when Run has ended by itself, and nothing
// is written to the profile after it.
func TestCloseWaitsForLastSave(t *testing.T) {
	for _, by := range []string{"Close", "context"} {
		t.Run(by, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRelay(t)
				r.grants(30 * 24 * time.Hour)
				opt := r.options(0)
				store := &hooked{MemoryStore: memory()}
				opt.Store = store
				dir := t.TempDir()
				if err := opt.Profile.Save(dir); err != nil {
					t.Fatal(err)
				}
				u := start(t, opt)
				u.connected()
				u.cut() // the next credential is not urgent
				synctest.Wait()
				free := make(chan struct{})
				store.set(func() error { <-free; return nil })
				if by == "context" {
					u.stop()
					synctest.Wait() // Run is at its last saves
				}
				closed := make(chan struct{})
				go func() { u.Client.Close(); close(closed) }()
				synctest.Wait()
				select {
				case <-closed:
					t.Error("Close returned while Run saves")
				default:
				}
				close(free)
				<-closed
				if p, err := LoadProfile(dir); err != nil || newestEntry(t, p) != newestEntry(t, u.Profile()) {
					t.Error("the last credential is not in the file:", err)
				}
				u.revise(func(p *Profile) { p.Name = "late" })
				if err := u.flush(); !errors.Is(err, ErrClosed) {
					t.Error(err)
				}
				if p, err := LoadProfile(dir); err != nil || p.Name == "late" {
					t.Error("written after Close:", err)
				}
			})
		})
	}
}

// A disk that is full for a while ends no session and no client; what could not be saved is
// saved later.
func TestFlushFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(t)
		r.grants(30 * 24 * time.Hour)
		grant := r.ack
		r.ack = func(a *ccp.Established) { grant(a); a.Keepalive = 300 }
		opt := r.options(0)
		store := &hooked{MemoryStore: memory()}
		opt.Store = store
		log := new(bytes.Buffer)
		opt.Log = slog.New(slog.NewTextHandler(log, nil))
		dir := t.TempDir() + "/profile"
		if err := opt.Profile.Save(dir); err != nil {
			t.Fatal(err)
		}
		u := start(t, opt)
		u.connected()
		synctest.Wait()
		if err := errors.Join(os.Rename(dir, dir+".away"), os.WriteFile(dir, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		store.set(func() error { return errors.New("disk full") })
		u.cut() // the next credential is not urgent
		session := u.current()
		time.Sleep(3 * flushAfter)
		if err := errors.Join(os.Remove(dir), os.Rename(dir+".away", dir)); err != nil {
			t.Fatal(err)
		}
		store.set(nil)
		time.Sleep(2 * flushAfter)
		if u.current() != session {
			t.Error("the session ended")
		}
		if p, err := LoadProfile(dir); err != nil || newestEntry(t, p) != newestEntry(t, u.Profile()) {
			t.Error("the credential was not saved later:", err)
		}
		if st, err := store.State(); err != nil || string(st.Resume) != string(u.Client.state.Resume) {
			t.Error("the resume token was not saved later:", err)
		}
		u.close()
		if n := strings.Count(log.String(), "could not be saved"); n != 1 {
			t.Errorf("%d warnings: %s", n, log)
		}
	})
}
