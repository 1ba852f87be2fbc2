package client

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
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
