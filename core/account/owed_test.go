package account_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
)

func (w *world) owed(t *testing.T) []account.Change {
	t.Helper()
	out, err := w.Owed(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestNoticesAreOwed: a change of the device list and the notice of it are one commit.
// Who should have told it and did not is followed by one other, and again, until it is
// settled.
func TestNoticesAreOwed(t *testing.T) {
	ctx := context.Background()
	add := func(t *testing.T, w *world, g account.Grant) {
		t.Helper()
		if _, err := w.Establish(ctx, account.Request{Device: "dev-b", Public: newKey(t), Pair: w.code(t, g.User.ID, "dev-a")}); err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func(*testing.T, *world, account.Grant){
		"added": add,
		"revoked": func(t *testing.T, w *world, _ account.Grant) {
			if err := w.RevokeDevice(ctx, "", "dev-a"); err != nil {
				t.Fatal(err)
			}
		},
		"replaced by pairing": func(t *testing.T, w *world, g account.Grant) {
			if _, err := w.Establish(ctx, account.Request{Device: "dev-a", Public: newKey(t), Pair: w.code(t, g.User.ID, "")}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, account.Options{})
			g, _ := w.join(t, "alice", "dev-a")
			told := len(w.changes)
			change(t, w, g)
			if len(w.changes) != told+1 || w.dir.Count("owed-notice") != 1 {
				t.Fatalf("told %+v, %d owed", w.changes[told:], w.dir.Count("owed-notice"))
			}
			c := w.changes[told]
			c.Came, c.Gone = nil, nil // transports are told by other ways
			if got := w.owed(t); len(got) != 0 {
				t.Fatalf("owed at once, while it is being told: %+v", got)
			}
			w.pass(time.Minute)
			if diff := cmp.Diff([]account.Change{c}, w.owed(t)); diff != "" {
				t.Fatal(diff)
			}
			if got := w.owed(t); len(got) != 0 {
				t.Fatalf("taken over twice: %+v", got)
			}
			if err := w.Settle(ctx, c, "dev-x"); err != nil {
				t.Fatal(err)
			}
			w.pass(time.Minute)
			c.To = []string{"dev-x"}
			if diff := cmp.Diff([]account.Change{c}, w.owed(t)); diff != "" {
				t.Fatal(diff)
			}
			if err := w.Settle(ctx, c); err != nil {
				t.Fatal(err)
			}
			if n := w.dir.Count("owed-notice"); n != 0 {
				t.Errorf("%d owed after it was settled", n)
			}
			if err := w.Settle(ctx, c, "dev-x"); err != nil || w.dir.Count("owed-notice") != 0 {
				t.Errorf("owed again: %v", err)
			}
		})
	}
}

// TestNothingIsOwed: no notice is left where there is nothing to tell.
func TestNothingIsOwed(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, account.Options{})
	g, key := w.join(t, "alice", "dev-a")
	req := account.Request{Device: "dev-a", Public: key, Certificate: &g.Certificate, Keys: []ccp.TransportKey{{Transport: "door", Public: []byte("1")}}}
	if _, err := w.Establish(ctx, req); err != nil {
		t.Fatal(err)
	}
	code := w.code(t, g.User.ID, "dev-a")
	w.dir.Fail = func(op string) error {
		if op == "commit" {
			return errors.New("away")
		}
		return nil
	}
	if err := w.RevokeDevice(ctx, "", "dev-a"); err == nil {
		t.Error("revoked without storage")
	}
	if _, err := w.Establish(ctx, account.Request{Device: "dev-b", Public: newKey(t), Pair: code}); err == nil {
		t.Error("added without storage")
	}
	w.dir.Fail = nil
	if n := w.dir.Count("owed-notice"); n != 0 {
		t.Errorf("%d notices", n)
	}
}

// TestRotationIsOwed: also the rotation that a device makes itself.
func TestRotationIsOwed(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, account.Options{})
	old, err := identity.GenerateDevice(nil)
	if err != nil {
		t.Fatal(err)
	}
	g, err := w.Establish(ctx, account.Request{Device: "dev-a", Public: old.Public(), User: account.Hint{Handle: "alice"}, Invite: w.invite(t, 1)})
	if err != nil {
		t.Fatal(err)
	}
	rot := identity.Rotation{DeviceID: "dev-a", NewPublic: newKey(t), ExpiresAt: w.now().Add(time.Minute).Unix()}
	signature := rot.Sign(old)
	if _, err := w.RotateDevice(ctx, g.User.ID, rot, signature[:]); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Minute)
	if got := w.owed(t); len(got) != 1 || got[0].Kind != account.DeviceRotated || got[0].Public != rot.NewPublic {
		t.Errorf("%+v", got)
	}
}
