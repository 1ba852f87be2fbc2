package client

import (
	"crypto/rand"
	"encoding/binary"
	"testing"
	"testing/synctest"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
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
