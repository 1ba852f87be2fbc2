package account_test

import (
	"context"
	"testing"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/account/accounttest"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/storage"
)

// miscounting answers with another number of records than it was asked for.
type miscounting struct {
	storage.Directory
	off int
}

func (d miscounting) Get(ctx context.Context, now time.Time, keys []storage.Key) ([]storage.Record, error) {
	recs, err := d.Directory.Get(ctx, now, keys)
	if d.off < 0 {
		return recs[:len(recs)+d.off], err
	}
	return append(recs, make([]storage.Record, d.off)...), err
}

// TestMiscountingStorage: a storage that answers with too few or too many records
// ends no process; each call fails.
func TestMiscountingStorage(t *testing.T) {
	ctx := t.Context()
	ca := newCA(t, 'c')
	for _, off := range []int{-1, 1} {
		s := account.New(miscounting{&accounttest.Directory{}, off}, account.Options{CA: func() identity.CA { return ca }, Registration: account.Open})
		for name, call := range map[string]func() error{
			"establish": func() error {
				_, err := s.Establish(ctx, account.Request{Device: "dev-a", Public: newKey(t), User: account.Hint{Handle: "a"}})
				return err
			},
			"invitation": func() error {
				_, err := s.Establish(ctx, account.Request{Device: "dev-a", Public: newKey(t), Invite: make([]byte, 16), User: account.Hint{Handle: "a"}})
				return err
			},
			"token":  func() error { _, err := s.Token(ctx, "x"); return err },
			"device": func() error { _, err := s.Device(ctx, "dev-a"); return err },
			"user":   func() error { _, err := s.User(ctx, "u"); return err },
			"revoke": func() error { return s.RevokeDevice(ctx, "", "dev-a") },
		} {
			if err := call(); sdk.KindOf(err) != sdk.Corrupt {
				t.Errorf("%s, %+d records: %v", name, off, err)
			}
		}
	}
}

// TestEarlierCAOpensNoAccount: a certificate of a CA that is no longer in use renews a
// known device's; it makes no device of whoever has got hold of the old key.
func TestEarlierCAOpensNoAccount(t *testing.T) {
	ctx := t.Context()
	old := newCA(t, 'o')
	w := newWorld(t, account.Options{TrustedCAs: func() [][32]byte { return [][32]byte{old.Public()} }})
	alice, _ := w.join(t, "alice", "dev-a")
	for _, tt := range []struct {
		ca   identity.CA
		code string
	}{{old, ccp.CodeCertificateInvalid}, {w.ca, ""}} {
		key := newKey(t)
		c, err := tt.ca.Issue(alice.User.ID, "dev-x", key, w.now(), time.Hour, nil)
		if err != nil {
			t.Fatal(err)
		}
		before := w.dir.Dump()
		_, err = w.Establish(ctx, account.Request{Device: "dev-x", Public: key, Certificate: &c})
		if tt.code != "" {
			w.wantCode(t, before, err, tt.code)
		} else if err != nil {
			t.Errorf("certificate of the present CA: %v", err)
		}
	}
}
