package account_test

import (
	"context"
	"testing"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/sdk/ccp"
)

// TestW1W2Takeover is W1, W2, API W-10 and W-11, T-21a and T-21b: every way to get at an account or
// a device that is not one's own is refused with its code and leaves no trace.
func TestW1W2Takeover(t *testing.T) {
	ctx := context.Background()
	foreign := newCA(t, 'f')
	tests := []struct {
		name string
		code string
		opt  account.Options
		req  func(t *testing.T, w *world, alice account.Grant, key [32]byte) account.Request
	}{
		{name: "known device, other key", code: ccp.CodeKeyMismatch,
			req: func(t *testing.T, w *world, _ account.Grant, _ [32]byte) account.Request {
				return account.Request{Device: "dev-a", Public: newKey(t)}
			}},
		{name: "known device, other key, with a certificate for the new key", code: ccp.CodeKeyMismatch,
			req: func(t *testing.T, w *world, a account.Grant, _ [32]byte) account.Request {
				k := newKey(t)
				c, err := w.ca.Issue(a.User.ID, "dev-a", k, w.now(), time.Hour, nil)
				if err != nil {
					t.Fatal(err)
				}
				return account.Request{Device: "dev-a", Public: k, Certificate: &c}
			}},
		{name: "known device, other key, with an invitation", code: ccp.CodeKeyMismatch,
			req: func(t *testing.T, w *world, _ account.Grant, _ [32]byte) account.Request {
				return account.Request{Device: "dev-a", Public: newKey(t), Invite: w.invite(t, 1), User: account.Hint{Handle: "alice"}}
			}},
		{name: "known device named with another user", code: ccp.CodeKeyMismatch,
			req: func(t *testing.T, w *world, _ account.Grant, k [32]byte) account.Request {
				return account.Request{Device: "dev-a", Public: k, User: account.Hint{Handle: "bob"}}
			}},
		{name: "handle without link", code: ccp.CodeInviteInvalid,
			req: func(t *testing.T, w *world, _ account.Grant, _ [32]byte) account.Request {
				return account.Request{Device: "dev-x", Public: newKey(t), User: account.Hint{Handle: "alice"}}
			}},
		{name: "free handle without link looks the same", code: ccp.CodeInviteInvalid,
			req: func(t *testing.T, w *world, _ account.Grant, _ [32]byte) account.Request {
				return account.Request{Device: "dev-x", Public: newKey(t), User: account.Hint{Handle: "nobody"}}
			}},
		{name: "user id alone", code: ccp.CodeUnknownDevice,
			req: func(t *testing.T, w *world, a account.Grant, _ [32]byte) account.Request {
				return account.Request{Device: "dev-x", Public: newKey(t), User: account.Hint{ID: a.User.ID}}
			}},
		{name: "user id and handle with an invitation", code: ccp.CodeUnknownDevice,
			req: func(t *testing.T, w *world, a account.Grant, _ [32]byte) account.Request {
				return account.Request{Device: "dev-x", Public: newKey(t), Invite: w.invite(t, 1), User: account.Hint{ID: a.User.ID, Handle: "alice"}}
			}},
		{name: "taken handle with a valid invitation", code: ccp.CodeHandleTaken,
			req: func(t *testing.T, w *world, _ account.Grant, _ [32]byte) account.Request {
				return account.Request{Device: "dev-x", Public: newKey(t), Invite: w.invite(t, 1), User: account.Hint{Handle: "alice"}}
			}},
		{name: "near-duplicate of a handle", code: ccp.CodeHandleTaken,
			req: func(t *testing.T, w *world, _ account.Grant, _ [32]byte) account.Request {
				return account.Request{Device: "dev-x", Public: newKey(t), Invite: w.invite(t, 1), User: account.Hint{Handle: "ALIce"}}
			}},
		{name: "handle that is a device id", code: ccp.CodeHandleTaken,
			req: func(t *testing.T, w *world, _ account.Grant, _ [32]byte) account.Request {
				return account.Request{Device: "dev-x", Public: newKey(t), Invite: w.invite(t, 1), User: account.Hint{Handle: "dev-a"}}
			}},
		{name: "device id that is a user id", code: ccp.CodeKeyMismatch,
			req: func(t *testing.T, w *world, a account.Grant, _ [32]byte) account.Request {
				return account.Request{Device: a.User.ID, Public: newKey(t), Invite: w.invite(t, 1), User: account.Hint{Handle: "mallory"}}
			}},
		{name: "device id that is a handle", code: ccp.CodeKeyMismatch,
			req: func(t *testing.T, w *world, _ account.Grant, _ [32]byte) account.Request {
				return account.Request{Device: "alice", Public: newKey(t), Invite: w.invite(t, 1), User: account.Hint{Handle: "mallory"}}
			}},
		{name: "open registration of a taken handle", code: ccp.CodeHandleTaken, opt: account.Options{Registration: account.Open},
			req: func(t *testing.T, w *world, _ account.Grant, _ [32]byte) account.Request {
				return account.Request{Device: "dev-x", Public: newKey(t), User: account.Hint{Handle: "alice"}}
			}},
		{name: "spent invitation", code: ccp.CodeInviteInvalid,
			req: func(t *testing.T, w *world, _ account.Grant, _ [32]byte) account.Request {
				inv := w.invite(t, 1)
				_, err := w.Establish(ctx, account.Request{Device: "dev-s", Public: newKey(t), Invite: inv, User: account.Hint{Handle: "first"}})
				if err != nil {
					t.Fatal(err)
				}
				return account.Request{Device: "dev-x", Public: newKey(t), Invite: inv, User: account.Hint{Handle: "second"}}
			}},
		{name: "expired invitation", code: ccp.CodeInviteInvalid,
			req: func(t *testing.T, w *world, _ account.Grant, _ [32]byte) account.Request {
				inv := w.invite(t, 1)
				w.pass(time.Hour)
				return account.Request{Device: "dev-x", Public: newKey(t), Invite: inv, User: account.Hint{Handle: "second"}}
			}},
		{name: "revoked invitation", code: ccp.CodeInviteInvalid,
			req: func(t *testing.T, w *world, _ account.Grant, _ [32]byte) account.Request {
				inv := w.invite(t, 1)
				if err := w.RevokeInvite(ctx, account.InviteID(inv)); err != nil {
					t.Fatal(err)
				}
				return account.Request{Device: "dev-x", Public: newKey(t), Invite: inv, User: account.Hint{Handle: "second"}}
			}},
		{name: "foreign invitation", code: ccp.CodeInviteInvalid,
			req: func(t *testing.T, w *world, _ account.Grant, _ [32]byte) account.Request {
				return account.Request{Device: "dev-x", Public: newKey(t), Invite: make([]byte, 16), User: account.Hint{Handle: "second"}}
			}},
		{name: "closed registration with an invitation", code: ccp.CodeInviteInvalid,
			req: func(t *testing.T, w *world, _ account.Grant, _ [32]byte) account.Request {
				inv := w.invite(t, 1)
				w.SetRegistration(account.Closed)
				return account.Request{Device: "dev-x", Public: newKey(t), Invite: inv, User: account.Hint{Handle: "second"}}
			}},
		{name: "pairing code twice", code: ccp.CodePairingInvalid,
			req: func(t *testing.T, w *world, a account.Grant, _ [32]byte) account.Request {
				code := w.code(t, a.User.ID, "dev-a")
				if _, err := w.Establish(ctx, account.Request{Device: "dev-2", Public: newKey(t), Pair: code}); err != nil {
					t.Fatal(err)
				}
				return account.Request{Device: "dev-x", Public: newKey(t), Pair: code}
			}},
		{name: "expired pairing code", code: ccp.CodePairingInvalid,
			req: func(t *testing.T, w *world, a account.Grant, _ [32]byte) account.Request {
				code := w.code(t, a.User.ID, "dev-a")
				w.pass(5 * time.Minute)
				return account.Request{Device: "dev-x", Public: newKey(t), Pair: code}
			}},
		{name: "pairing code of a revoked issuer", code: ccp.CodePairingInvalid,
			req: func(t *testing.T, w *world, a account.Grant, _ [32]byte) account.Request {
				code := w.code(t, a.User.ID, "dev-a")
				if err := w.RevokeDevice(ctx, a.User.ID, "dev-a"); err != nil {
					t.Fatal(err)
				}
				return account.Request{Device: "dev-x", Public: newKey(t), Pair: code}
			}},
		{name: "pairing code of another account for a known device", code: ccp.CodePairingInvalid,
			req: func(t *testing.T, w *world, a account.Grant, _ [32]byte) account.Request {
				_, _ = w.join(t, "bob", "dev-b")
				return account.Request{Device: "dev-b", Public: newKey(t), Pair: w.code(t, a.User.ID, "dev-a")}
			}},
		{name: "certificate of a foreign authority", code: ccp.CodeCertificateInvalid,
			req: func(t *testing.T, w *world, a account.Grant, _ [32]byte) account.Request {
				k := newKey(t)
				c, _ := foreign.Issue(a.User.ID, "dev-x", k, w.now(), time.Hour, nil)
				return account.Request{Device: "dev-x", Public: k, Certificate: &c}
			}},
		{name: "certificate with a broken signature", code: ccp.CodeCertificateInvalid,
			req: func(t *testing.T, w *world, a account.Grant, _ [32]byte) account.Request {
				k := newKey(t)
				c, _ := w.ca.Issue(a.User.ID, "dev-x", k, w.now(), time.Hour, nil)
				c.Signature[3] ^= 1
				return account.Request{Device: "dev-x", Public: k, Certificate: &c}
			}},
		{name: "certificate of another device", code: ccp.CodeCertificateInvalid,
			req: func(t *testing.T, w *world, a account.Grant, _ [32]byte) account.Request {
				c := a.Certificate
				return account.Request{Device: "dev-x", Public: newKey(t), Certificate: &c}
			}},
		{name: "certificate for another key", code: ccp.CodeCertificateInvalid,
			req: func(t *testing.T, w *world, a account.Grant, _ [32]byte) account.Request {
				c, _ := w.ca.Issue(a.User.ID, "dev-x", newKey(t), w.now(), time.Hour, nil)
				return account.Request{Device: "dev-x", Public: newKey(t), Certificate: &c}
			}},
		{name: "certificate that has expired, device unknown", code: ccp.CodeCertificateInvalid,
			req: func(t *testing.T, w *world, a account.Grant, _ [32]byte) account.Request {
				k := newKey(t)
				c, _ := w.ca.Issue(a.User.ID, "dev-x", k, w.now().Add(-2*time.Hour), time.Hour, nil)
				return account.Request{Device: "dev-x", Public: k, Certificate: &c}
			}},
		{name: "certificate from the future", code: ccp.CodeCertificateInvalid,
			req: func(t *testing.T, w *world, a account.Grant, _ [32]byte) account.Request {
				k := newKey(t)
				c, _ := w.ca.Issue(a.User.ID, "dev-x", k, w.now().Add(6*time.Minute), time.Hour, nil)
				return account.Request{Device: "dev-x", Public: k, Certificate: &c}
			}},
		{name: "certificate of a user that does not exist", code: ccp.CodeUnknownDevice,
			req: func(t *testing.T, w *world, _ account.Grant, _ [32]byte) account.Request {
				k := newKey(t)
				c, _ := w.ca.Issue("nobody", "dev-x", k, w.now(), time.Hour, nil)
				return account.Request{Device: "dev-x", Public: k, Certificate: &c}
			}},
		{name: "revoked device", code: ccp.CodeRevoked,
			req: func(t *testing.T, w *world, a account.Grant, k [32]byte) account.Request {
				if err := w.RevokeDevice(ctx, "", "dev-a"); err != nil {
					t.Fatal(err)
				}
				c := a.Certificate
				return account.Request{Device: "dev-a", Public: k, Certificate: &c}
			}},
		{name: "revoked device with a pairing code", code: ccp.CodeRevoked,
			req: func(t *testing.T, w *world, a account.Grant, k [32]byte) account.Request {
				if _, err := w.Establish(ctx, account.Request{Device: "dev-2", Public: newKey(t), Pair: w.code(t, a.User.ID, "dev-a")}); err != nil {
					t.Fatal(err)
				}
				if err := w.RevokeDevice(ctx, a.User.ID, "dev-a"); err != nil {
					t.Fatal(err)
				}
				return account.Request{Device: "dev-a", Public: k, Pair: w.code(t, a.User.ID, "dev-2")}
			}},
		{name: "small-order device key", code: ccp.CodeProofInvalid,
			req: func(t *testing.T, w *world, _ account.Grant, _ [32]byte) account.Request {
				return account.Request{Device: "dev-x", Public: [32]byte{1}, Invite: w.invite(t, 1), User: account.Hint{Handle: "x"}}
			}},
		{name: "zero device key", code: ccp.CodeProofInvalid,
			req: func(t *testing.T, w *world, _ account.Grant, _ [32]byte) account.Request {
				return account.Request{Device: "dev-x", Invite: w.invite(t, 1), User: account.Hint{Handle: "x"}}
			}},
		{name: "device id that breaks the rules", code: ccp.CodeUnknownDevice,
			req: func(t *testing.T, w *world, _ account.Grant, _ [32]byte) account.Request {
				return account.Request{Device: "dev x", Public: newKey(t), Invite: w.invite(t, 1), User: account.Hint{Handle: "x"}}
			}},
		{name: "handle that breaks the rules", code: account.CodeHandleInvalid,
			req: func(t *testing.T, w *world, _ account.Grant, _ [32]byte) account.Request {
				return account.Request{Device: "dev-x", Public: newKey(t), Invite: w.invite(t, 1), User: account.Hint{Handle: "a@b"}}
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, tt.opt)
			alice, key := w.join(t, "alice", "dev-a")
			req := tt.req(t, w, alice, key)
			before := w.dir.Dump()
			_, err := w.Establish(ctx, req)
			w.wantCode(t, before, err, tt.code)
			_, err = w.Preview(ctx, req)
			w.wantCode(t, before, err, tt.code)
		})
	}
}
