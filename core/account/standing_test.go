package account_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/storage"
)

// TestKnownDeviceReadsOnce counts what the third handshake of a device asks of
// the directory.
func TestKnownDeviceReadsOnce(t *testing.T) {
	w := newWorld(t, account.Options{})
	g, key := w.join(t, "alice", "dev-a")
	req := account.Request{Device: "dev-a", Public: key, Certificate: &g.Certificate, Capabilities: ccp.AllCapabilities}
	again, err := w.Establish(context.Background(), req)
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]int{}
	w.dir.Fail = func(op string) error { calls[op]++; return nil }
	third, err := w.Establish(context.Background(), req)
	if err != nil {
		t.Fatal(err)
	}
	if calls["get"] != 0 || calls["commit"] != 1 {
		t.Errorf("calls %v, want one commit alone", calls)
	}
	if third.Device != again.Device || third.User != again.User || third.Certificate != again.Certificate || third.Renewed {
		t.Errorf("from memory\n%+v, read\n%+v", third, again)
	}
}

// TestMemoryIsNeverBelieved: what another node did meanwhile counts.
func TestMemoryIsNeverBelieved(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		change func(t *testing.T, other *account.Store, g account.Grant, key [32]byte) (now [32]byte)
		code   string // of a handshake with the old key
	}{
		"revoked": {func(t *testing.T, o *account.Store, _ account.Grant, key [32]byte) [32]byte {
			if err := o.RevokeDevice(ctx, "", "dev-a"); err != nil {
				t.Fatal(err)
			}
			return key
		}, ccp.CodeRevoked},
		"another key": {func(t *testing.T, o *account.Store, g account.Grant, _ [32]byte) [32]byte {
			fresh := newKey(t)
			secret := []byte("0123456789abcdef")
			if err := o.CreatePair(ctx, g.User.ID, "", account.PairID(secret), 300e9); err != nil {
				t.Fatal(err)
			}
			if _, err := o.Establish(ctx, account.Request{Device: "dev-a", Public: fresh, Pair: secret}); err != nil {
				t.Fatal(err)
			}
			return fresh
		}, ccp.CodeKeyMismatch},
		"another name": {func(t *testing.T, o *account.Store, g account.Grant, key [32]byte) [32]byte {
			name := "Alice A."
			if _, err := o.UpdateProfile(ctx, g.User.ID, &name, nil); err != nil {
				t.Fatal(err)
			}
			return key
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, account.Options{})
			g, key := w.join(t, "alice", "dev-a")
			req := account.Request{Device: "dev-a", Public: key}
			for range 2 {
				if _, err := w.Establish(ctx, req); err != nil {
					t.Fatal(err)
				}
			}
			other := account.New(w.dir, account.Options{Clock: w.now, CA: func() identity.CA { return w.ca }})
			now := c.change(t, other, g, key)
			before := w.dir.Dump()
			got, err := w.Establish(ctx, req)
			if c.code != "" {
				w.wantCode(t, before, err, c.code)
			} else if err != nil || got.User.DisplayName != "Alice A." {
				t.Errorf("display name %q, %v", got.User.DisplayName, err)
			}
			if now == key {
				return
			}
			if _, err := w.Establish(ctx, account.Request{Device: "dev-a", Public: now}); err != nil {
				t.Errorf("new key: %v", err)
			}
		})
	}
}

// TestMemoryOfAFailedCommit: an unknown outcome is told at once, not repeated.
func TestMemoryOfAFailedCommit(t *testing.T) {
	w := newWorld(t, account.Options{})
	_, key := w.join(t, "alice", "dev-a")
	req := account.Request{Device: "dev-a", Public: key}
	if _, err := w.Establish(context.Background(), req); err != nil {
		t.Fatal(err)
	}
	commits := 0
	w.dir.Fail = func(op string) error {
		if op != "commit" {
			return nil
		}
		commits++
		return &storage.Error{Kind: sdk.Unavailable, Text: "down"}
	}
	if _, err := w.Establish(context.Background(), req); !errors.Is(err, sdk.Unavailable) || commits != 1 {
		t.Errorf("%v after %d commits", err, commits)
	}
}

// TestOldCertificatesCostNothing: whatever old certificate a device presents, it gets the
// stored one while that is good: nothing is signed, and its history does not grow.
func TestOldCertificatesCostNothing(t *testing.T) {
	ctx := context.Background()
	former := newCA(t, 'f')
	w := newWorld(t, account.Options{TrustedCAs: func() [][32]byte { return [][32]byte{former.Public()} }})
	g, key := w.join(t, "alice", "dev-a")
	static, first := newKey(t), g.Certificate
	issue := func(ca identity.CA, key [32]byte) *identity.Certificate {
		c, err := ca.Issue(g.User.ID, "dev-a", key, w.now(), 30*24*time.Hour, nil)
		if err != nil {
			t.Fatal(err)
		}
		return &c
	}
	old := map[string]*identity.Certificate{
		"first": &first, "of the former CA": issue(former, key), "for the Noise key": issue(w.ca, static),
	}
	w.pass(31 * 24 * time.Hour) // expired, and in its grace
	req := account.Request{Device: "dev-a", Public: key, ClientStatic: static, Capabilities: ccp.AllCapabilities, Certificate: &first}
	g, err := w.Establish(ctx, req)
	if err != nil || !g.Renewed {
		t.Fatalf("renewed %t, %v", g.Renewed, err)
	}
	events := w.dir.Count("key-event")
	for name, c := range old {
		for range 20 {
			w.pass(time.Millisecond)
			req.Certificate = c
			again, err := w.Establish(ctx, req)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if !again.Renewed || again.Certificate != g.Certificate {
				t.Fatalf("%s: renewed %t, serial %d, want the stored %d", name, again.Renewed, again.Certificate.Serial, g.Certificate.Serial)
			}
		}
	}
	if n := w.dir.Count("key-event") - events; n != 0 {
		t.Errorf("%d key events", n)
	}
}
