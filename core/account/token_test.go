package account_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/identity"
)

// TestAPIW01W07W13Token is W-01, W-07, W-13 and W12 as far as tokens go.
func TestAPIW01W07W13Token(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, account.Options{})
	alice, _ := w.join(t, "alice", "dev-a")
	if len(alice.Token) != 64 {
		t.Fatalf("token of %d characters", len(alice.Token))
	}
	w.pass(50 * time.Minute)
	b, err := w.Token(ctx, alice.Token) // used: a whole life again
	if err != nil || b.Expires.Sub(w.now()) != time.Hour {
		t.Fatalf("%+v, %v", b, err)
	}
	w.pass(59 * time.Minute)
	if err := w.TouchToken(ctx, alice.TokenHash); err != nil {
		t.Fatal(err)
	}
	w.pass(59 * time.Minute)
	if _, err := w.Token(ctx, alice.Token); err != nil {
		t.Fatalf("touched token: %v", err)
	}
	if _, err := w.Token(ctx, alice.Token+"0"); !errors.Is(err, account.ErrToken) {
		t.Errorf("unknown token: %v", err)
	}
	second, err := w.IssueToken(ctx, "dev-a", "s2")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.DropToken(ctx, account.HashToken(second)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Token(ctx, second); !errors.Is(err, account.ErrToken) {
		t.Errorf("dropped token: %v", err)
	}
	if err := w.DropTokens(ctx, "dev-a"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Token(ctx, alice.Token); !errors.Is(err, account.ErrToken) {
		t.Errorf("after DropTokens: %v", err)
	}
	third, err := w.IssueToken(ctx, "dev-a", "s3")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.RevokeDevice(ctx, "", "dev-a"); err != nil {
		t.Fatal(err)
	}
	before := w.dir.Dump()
	if _, err := w.Token(ctx, third); !errors.Is(err, account.ErrRevoked) || !errors.Is(err, sdk.Denied) {
		t.Errorf("stolen bearer after revocation: %v", err)
	}
	if err := w.TouchToken(ctx, account.HashToken(third)); !errors.Is(err, account.ErrRevoked) {
		t.Errorf("touch after revocation: %v", err)
	}
	if _, err := w.IssueToken(ctx, "dev-a", "s4"); !errors.Is(err, account.ErrRevoked) {
		t.Errorf("issue after revocation: %v", err)
	}
	if diff := cmp.Diff(before, w.dir.Dump()); diff != "" {
		t.Error(diff)
	}
	w.pass(61 * time.Minute)
	if _, err := w.Token(ctx, third); !errors.Is(err, account.ErrToken) {
		t.Errorf("expired token: %v", err)
	}
}

// TestAPIW12Rotation is W-12 of the API sheet.
func TestAPIW12Rotation(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, account.Options{})
	old, _ := identity.GenerateDevice(nil)
	next, _ := identity.GenerateDevice(nil)
	g, err := w.Establish(ctx, account.Request{Device: "dev-a", Public: old.Public(), Invite: w.invite(t, 1), User: account.Hint{Handle: "alice"}})
	if err != nil {
		t.Fatal(err)
	}
	rotate := func(from, to identity.Device, life time.Duration) error {
		r := identity.Rotation{DeviceID: "dev-a", NewPublic: to.Public(), ExpiresAt: w.now().Add(life).Unix()}
		sig := r.Sign(from)
		_, err := w.RotateDevice(ctx, g.User.ID, r, sig[:])
		return err
	}
	before := w.dir.Dump()
	for _, tt := range []struct {
		name string
		err  error
		want error
	}{
		{"signed by the new key", rotate(next, next, time.Minute), account.ErrProof},
		{"same key", rotate(old, old, time.Minute), account.ErrUnchanged},
		{"ends in the past", rotate(old, next, -time.Second), account.ErrProofTime},
		{"lives too long", rotate(old, next, time.Hour), account.ErrProofTime},
	} {
		if !errors.Is(tt.err, tt.want) {
			t.Errorf("%s: %v", tt.name, tt.err)
		}
	}
	if diff := cmp.Diff(before, w.dir.Dump()); diff != "" {
		t.Error(diff)
	}
	if err := rotate(old, next, time.Minute); err != nil { // the registration just now does not count
		t.Fatal(err)
	}
	if err := rotate(next, old, time.Minute); !errors.Is(err, account.ErrTooSoon) {
		t.Errorf("second rotation: %v", err)
	}
	w.pass(24 * time.Hour)
	if err := rotate(next, old, time.Minute); !errors.Is(err, account.ErrKeyReused) {
		t.Errorf("reused key: %v", err)
	}
	if d, err := w.Device(ctx, "dev-a"); err != nil || d.Public != next.Public() || d.Certificate.PublicKey != next.Public() {
		t.Errorf("device %+v, %v", d, err)
	}
}
