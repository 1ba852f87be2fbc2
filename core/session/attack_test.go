package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/noise"
	"github.com/commucat/commucat/sdk/transport"
)

// calm is the state that an attack must not change.
type calm struct {
	h        *house
	dir      string
	cache    string
	attached int
	victim   *Session
}

// victim connects alice's device and notes the state of the house.
func (h *house) calm(t *testing.T, d *device) (*client, calm) {
	t.Helper()
	c := h.join(t, d)
	return c, h.note(d.id)
}

func (h *house) note(id string) calm {
	s, _ := h.relay.link(id).box.(*Session)
	return calm{h, h.dir.Dump(), h.cache.dump(), h.relay.attached(), s}
}

// check says that nothing was stored, claimed or disturbed.
func (c calm) check(t *testing.T) {
	t.Helper()
	if diff := cmp.Diff(c.dir, c.h.dir.Dump()); diff != "" {
		t.Errorf("directory changed:\n%s", diff)
	}
	if c.cache != c.h.cache.dump() {
		t.Error("cache changed")
	}
	if n := c.h.relay.attached(); n != c.attached {
		t.Errorf("%d sessions attached, were %d", n, c.attached)
	}
	if c.victim != nil && c.victim.ending.Load() {
		t.Error("the live session was disturbed")
	}
}

// TestDowngrade is T-20: whatever somebody in the middle takes out of the offer or
// the answer, the handshake does not come about.
func TestDowngrade(t *testing.T) {
	strip := func(keep ...string) func([]byte) []byte {
		return func(b []byte) []byte {
			h, err := ccp.ParseHello(b)
			if err != nil {
				panic(err)
			}
			h.Capabilities = keep
			return h.Marshal()
		}
	}
	tests := []struct {
		name string
		caps ccp.Capabilities
		bend func([]byte) []byte
	}{
		{"all capabilities", ccp.AllCapabilities &^ (ccp.Sealed | ccp.PQ), strip()},
		{"all but the least", ccp.AllCapabilities &^ (ccp.Sealed | ccp.PQ), strip("proof-binding", "records", "ack")},
		{"proof-binding", ccp.AllCapabilities &^ (ccp.Sealed | ccp.PQ), strip("records", "ack", "resume")},
		{"resume", ccp.AllCapabilities &^ ccp.PQ, strip("proof-binding", "sealed", "records", "ack")},
		{"sealed", ccp.AllCapabilities &^ ccp.PQ, strip("proof-binding", "records", "ack", "resume")},
		{"the pq capability", ccp.AllCapabilities, strip("proof-binding", "sealed", "records", "ack", "resume")},
		{"the pq key", ccp.AllCapabilities, func(b []byte) []byte {
			h, _ := ccp.ParseHello(b)
			h.PQ = nil
			return h.Marshal()
		}},
		{"pq altogether", ccp.AllCapabilities, func(b []byte) []byte {
			h, _ := ccp.ParseHello(b)
			h.PQ, h.Capabilities = nil, h.Capabilities[:5]
			return h.Marshal()
		}},
		{"another pq key", ccp.AllCapabilities, func(b []byte) []byte {
			h, _ := ccp.ParseHello(b)
			h.PQ, _, _ = noise.PQClient(nil)
			return h.Marshal()
		}},
		{"an unknown name added", ccp.AllCapabilities, func(b []byte) []byte {
			h, _ := ccp.ParseHello(b)
			h.Capabilities = append(h.Capabilities, "zstd")
			return h.Marshal()
		}},
		{"versions", ccp.AllCapabilities, func(b []byte) []byte {
			h, _ := ccp.ParseHello(b)
			h.SupportedVersions = nil
			return h.Marshal()
		}},
		{"the pattern changed", ccp.AllCapabilities, func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"XK"`), []byte(`"IK"`), 1)
		}},
	}
	for _, tt := range tests {
		for _, compat := range []bool{false, true} {
			t.Run(tt.name, func(t *testing.T) {
				h := newHouse(t, nil)
				d := newDevice(t, "dev-a", "alice")
				before := h.dir.Dump()
				conn, _ := h.serve(transport.Facts{Transport: "pipe", Compat: compat})
				c := h.client(t, d, conn)
				c.caps, c.bendBytes = tt.caps, tt.bend
				err := c.connect()
				if err == nil {
					t.Fatalf("established with %v", c.got.Names())
				}
				if code := codeOf(err); code != "closed" && code != ccp.CodeHandshake {
					t.Errorf("code %s", code)
				}
				conn.Close()
				if diff := cmp.Diff(before, h.dir.Dump()); diff != "" || h.relay.attached() != 0 {
					t.Error("something was written", diff)
				}
			})
		}
	}
}

// TestMisbinding is T-21: identities, keys, domains and channels that do not belong
// together.
func TestMisbinding(t *testing.T) {
	other := newDevice(t, "dev-b", "")
	tests := []struct {
		name string
		code string
		bend func(c *client)
	}{
		{"another device id in the identity", ccp.CodeProofInvalid, func(c *client) {
			c.bendConfirm = func(f *ccp.Confirm) { f.Identity.DeviceID = "dev-b" }
		}},
		{"another device key", ccp.CodeProofInvalid, func(c *client) {
			c.bendConfirm = func(f *ccp.Confirm) { f.Identity.DevicePublic = other.key.Public() }
		}},
		{"another noise key named", ccp.CodeProofInvalid, func(c *client) {
			c.bendConfirm = func(f *ccp.Confirm) { f.Identity.ClientStatic = other.static.Public }
		}},
		{"the victim's noise key named, an own one used", ccp.CodeProofInvalid, func(c *client) {
			victim := *c.dev
			c.dev = &victim
			c.dev.static = other.static
			c.bendConfirm = func(f *ccp.Confirm) { _, f.Identity.ClientStatic = victim.key.Static() }
		}},
		{"another domain in the proof", ccp.CodeProofInvalid, func(c *client) { c.domain = "evil.example" }},
		{"proof over another handshake", ccp.CodeProofInvalid, func(c *client) {
			c.bendConfirm = func(f *ccp.Confirm) {
				f.Proof = identity.SignConfirm(c.dev.key, c.domain, c.dev.id, c.dev.static.Public, make([]byte, 32))
			}
		}},
		{"proof by another key", ccp.CodeProofInvalid, func(c *client) {
			c.bendConfirm = func(f *ccp.Confirm) {
				f.Proof = identity.SignConfirm(other.key, c.domain, c.dev.id, c.dev.static.Public, c.hs.Hash())
			}
		}},
		{"small-order device key (W5)", ccp.CodeProofInvalid, func(c *client) {
			c.bendConfirm = func(f *ccp.Confirm) { f.Identity.DevicePublic = [32]byte{1} }
		}},
		{"another's certificate", ccp.CodeCertificateInvalid, func(c *client) {
			cert, err := c.h.ca.Issue("someone", "dev-b", other.key.Public(), time.Now(), time.Hour, nil)
			if err != nil {
				panic(err)
			}
			c.dev.cert = &cert
		}},
		{"broken certificate", ccp.CodeCertificateInvalid, func(c *client) {
			c.bendConfirm = func(f *ccp.Confirm) { f.Identity.Certificate = []byte(`{"serial":1}`) }
		}},
		{"confirm without identity", ccp.CodeHandshake, func(c *client) {
			c.bendConfirm = func(f *ccp.Confirm) { f.Identity = nil }
		}},
		{"confirm names another than the hello", ccp.CodeProofInvalid, func(c *client) {
			c.caps &^= ccp.Sealed | ccp.PQ
			c.bendConfirm = func(f *ccp.Confirm) { f.Identity = other.identity(c.t) }
		}},
		{"another noise key than the hello's (W3)", ccp.CodeHandshake, func(c *client) {
			c.caps &^= ccp.Sealed | ccp.PQ
			victim := *c.dev
			c.bendHello = func(h *ccp.Hello) { // the victim's copied Hello, an own key in message 3
				h.Identity.ClientStatic = victim.static.Public
				p, _ := identity.ProveStatic(victim.key, c.domain, victim.id, victim.static.Public, nil)
				h.Proof = &ccp.StaticProof{Commitment: p.Commitment, Response: p.Response}
			}
			c.clearEnd = true
			mine := victim
			mine.static = other.static
			c.dev = &mine
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t, nil)
			d := newDevice(t, "dev-a", "alice")
			_, before := h.calm(t, d)
			c := h.dial(t, d)
			tt.bend(c)
			if code := codeOf(c.connect()); code != tt.code {
				t.Errorf("code %s, want %s", code, tt.code)
			}
			before.check(t)
		})
	}
}

// recorder keeps what a client wrote, for replays.
type recorder struct {
	net.Conn
	out bytes.Buffer
}

func (r *recorder) Write(b []byte) (int, error) {
	r.out.Write(b)
	return r.Conn.Write(b)
}

// TestReplay is T-23: a recorded handshake, played again byte for byte, changes
// nothing: its message 3 or Confirm belongs to another server ephemeral.
func TestReplay(t *testing.T) {
	for _, pattern := range []string{"XK", "IK", "unsealed XK"} {
		t.Run(pattern, func(t *testing.T) {
			h := newHouse(t, nil)
			d := newDevice(t, "dev-a", "alice")
			first := h.join(t, d)
			c := h.dial(t, d)
			rec := &recorder{Conn: c.conn}
			c.conn = rec
			switch pattern {
			case "IK":
				c.ik, c.resume = true, first.ack.Ext.Resume.Token
			case "unsealed XK":
				c.caps &^= ccp.Sealed | ccp.PQ
			}
			if err := c.connect(); err != nil {
				t.Fatal(err)
			}
			before := h.note("dev-a")
			conn, ended := h.serve(transport.Facts{Transport: "pipe"})
			go io.Copy(io.Discard, conn)
			_, _ = conn.Write(rec.out.Bytes())
			<-ended
			before.check(t)
		})
	}
}

// TestIKTouchesNothingBeforeConfirm: message 1 can be replayed, so up to the Confirm
// there is no drain, no replacement, no token, no storage.
func TestIKTouchesNothingBeforeConfirm(t *testing.T) {
	h := newHouse(t, nil)
	d := newDevice(t, "dev-a", "alice")
	first, before := h.calm(t, d)
	for _, after := range []string{"silence", "garbage record", "close"} {
		conn, ended := h.serve(transport.Facts{Transport: "pipe"})
		c := h.client(t, d, conn)
		c.ik, c.resume = true, first.ack.Ext.Resume.Token
		if err := c.first(); err != nil {
			t.Fatal(err)
		}
		before.check(t)
		switch after {
		case "garbage record":
			_, _ = conn.Write(append([]byte{32}, make([]byte, 32)...))
			if _, err := c.conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("a record that does not open got an answer: %v", err)
			}
		}
		conn.Close()
		<-ended
		before.check(t)
	}
}

// TestKeyCompromise is T-22: what each single stolen secret gives.
func TestKeyCompromise(t *testing.T) {
	t.Run("server static: the thief cannot speak for a device", func(t *testing.T) {
		h := newHouse(t, nil)
		d := newDevice(t, "dev-a", "alice")
		_, before := h.calm(t, d)
		// KCI: the thief pretends to be dev-a to the server whose key he has, but
		// without dev-a's static key.
		thief := newDevice(t, "dev-a", "alice")
		c := h.dial(t, thief)
		c.bendConfirm = func(f *ccp.Confirm) { f.Identity = d.identity(t) }
		if code := codeOf(c.connect()); code != ccp.CodeProofInvalid {
			t.Error(code)
		}
		before.check(t)
	})
	t.Run("device noise key alone: no proof", func(t *testing.T) {
		h := newHouse(t, nil)
		d := newDevice(t, "dev-a", "alice")
		_, before := h.calm(t, d)
		thief := newDevice(t, "dev-a", "alice")
		thief.static = d.static
		if code := codeOf(h.dial(t, thief).connect()); code != ccp.CodeKeyMismatch {
			t.Error(code)
		}
		before.check(t)
	})
	t.Run("resume token alone", func(t *testing.T) {
		h := newHouse(t, nil)
		d := newDevice(t, "dev-a", "alice")
		first := h.join(t, d)
		thief := newDevice(t, "dev-t", "thief")
		h.join(t, thief)
		before := h.note("dev-a")
		c := h.dial(t, thief)
		c.ik, c.resume = true, first.ack.Ext.Resume.Token
		if code := codeOf(c.connect()); code != ccp.CodeUseXK {
			t.Error(code)
		}
		before.check(t)
	})
}

// TestW1W2TakeoverOnTheWire is API W-10 and W-11, T-21a and T-21b, W1 and W2 as a client meets them.
func TestW1W2TakeoverOnTheWire(t *testing.T) {
	ctx := context.Background()
	tests := []struct {
		name string
		code string
		make func(t *testing.T, h *house, alice *client) *client
	}{
		{"known device id with another key", ccp.CodeKeyMismatch, func(t *testing.T, h *house, _ *client) *client {
			return h.dial(t, newDevice(t, "dev-a", ""))
		}},
		{"handle without link", ccp.CodeInviteInvalid, func(t *testing.T, h *house, _ *client) *client {
			return h.dial(t, newDevice(t, "dev-x", "alice"))
		}},
		{"taken handle with an invitation", ccp.CodeHandleTaken, func(t *testing.T, h *house, _ *client) *client {
			c := h.dial(t, newDevice(t, "dev-x", "Alice"))
			c.invite = h.invite(t)
			return c
		}},
		{"foreign invitation", ccp.CodeInviteInvalid, func(t *testing.T, h *house, _ *client) *client {
			c := h.dial(t, newDevice(t, "dev-x", "bob"))
			c.invite = &[16]byte{1}
			return c
		}},
		{"unknown device", ccp.CodeUnknownDevice, func(t *testing.T, h *house, _ *client) *client {
			return h.dial(t, newDevice(t, "dev-x", ""))
		}},
		{"spent pairing code", ccp.CodePairingInvalid, func(t *testing.T, h *house, a *client) *client {
			secret := [16]byte{7}
			if err := h.accounts.CreatePair(ctx, a.ack.User.ID, "dev-a", account.PairID(secret[:]), time.Minute); err != nil {
				t.Fatal(err)
			}
			first := h.dial(t, newDevice(t, "dev-2", ""))
			first.pair = ccp.PairSecret(secret, "laptop")
			if err := first.connect(); err != nil {
				t.Fatal(err)
			}
			c := h.dial(t, newDevice(t, "dev-3", ""))
			c.pair = ccp.PairSecret(secret, "thief")
			return c
		}},
		{"short code where they are off", ccp.CodePairingInvalid, func(t *testing.T, h *house, _ *client) *client {
			c := h.dial(t, newDevice(t, "dev-x", ""))
			c.pair = &ccp.Pair{Code: "AAAA-AAAA"}
			return c
		}},
		{"revoked device", ccp.CodeRevoked, func(t *testing.T, h *house, a *client) *client {
			go io.Copy(io.Discard, a.conn)
			if err := h.accounts.RevokeDevice(ctx, a.ack.User.ID, "dev-a"); err != nil {
				t.Fatal(err)
			}
			return h.dial(t, a.dev)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t, nil)
			alice := h.join(t, newDevice(t, "dev-a", "alice"))
			c := tt.make(t, h, alice)
			before, attached := h.dir.Dump(), h.relay.attached()
			if code := codeOf(c.connect()); code != tt.code {
				t.Errorf("code %s, want %s", code, tt.code)
			}
			if diff := cmp.Diff(before, h.dir.Dump()); diff != "" || h.relay.attached() != attached {
				t.Error("something was written", diff)
			}
		})
	}
}

// TestMalformed: wrong stages, cut and overlong input. Nothing gets past, nothing is
// answered but the one generic error.
func TestMalformed(t *testing.T) {
	hello := func(t *testing.T, h *house) *client {
		c := h.dial(t, newDevice(t, "dev-a", "alice"))
		c.invite = h.invite(t)
		return c
	}
	tests := []struct {
		name string
		run  func(t *testing.T, h *house) error
		code string
	}{
		{"auth first", func(t *testing.T, h *house) error {
			c := hello(t, h)
			if err := c.clear(ccp.TypeAuth, []byte(`{}`)); err != nil {
				return err
			}
			_, err := c.readClear()
			return err
		}, "closed"},
		{"second hello", func(t *testing.T, h *house) error {
			c := hello(t, h)
			if err := c.first(); err != nil {
				return err
			}
			if err := c.clear(ccp.TypeHello, c.hello); err != nil {
				return err
			}
			_, err := c.readClear()
			return err
		}, ccp.CodeHandshake},
		{"unknown pattern", func(t *testing.T, h *house) error {
			c := hello(t, h)
			c.bendHello = func(x *ccp.Hello) { x.Pattern = "NN" }
			return c.connect()
		}, ccp.CodeHandshake},
		{"short message 1", func(t *testing.T, h *house) error {
			c := hello(t, h)
			c.bendHello = func(x *ccp.Hello) { x.Handshake = x.Handshake[:47] }
			return c.connect()
		}, ccp.CodeHandshake},
		{"wrong server key", func(t *testing.T, h *house) error {
			c := hello(t, h)
			c.server = noise.KeyPairFrom([32]byte{5: 9}).Public
			return c.connect()
		}, ccp.CodeHandshake},
		{"key version that is not held", func(t *testing.T, h *house) error {
			c := hello(t, h)
			c.bendHello = func(x *ccp.Hello) { x.KeyVersion = 9 }
			return c.connect()
		}, ccp.CodeHandshake},
		{"no common version", func(t *testing.T, h *house) error {
			c := hello(t, h)
			c.bendHello = func(x *ccp.Hello) { x.SupportedVersions = ccp.Versions(2) }
			return c.connect()
		}, ccp.CodeHandshake},
		{"confirm on a channel", func(t *testing.T, h *house) error {
			return h.firstRecord(t, hello(t, h), func(c *client) error {
				return c.frame(ccp.TypeAuth, 1, c.confirmation().Marshal())
			})
		}, "closed"},
		{"message before confirm", func(t *testing.T, h *house) error {
			return h.firstRecord(t, hello(t, h), func(c *client) error { return c.frame(ccp.TypeMsg, 1, []byte("x")) })
		}, "closed"},
		{"confirm that is no object", func(t *testing.T, h *house) error {
			return h.firstRecord(t, hello(t, h), func(c *client) error { return c.frame(ccp.TypeAuth, 0, []byte(`[]`)) })
		}, ccp.CodeHandshake},
		{"confirm over 32 KiB", func(t *testing.T, h *house) error {
			return h.firstRecord(t, hello(t, h), func(c *client) error {
				head, _ := ccp.AppendHeader(nil, ccp.TypeAuth, 0, 3, 40<<10)
				return c.raw(head)
			})
		}, "closed"},
		{"record of 15 bytes", func(t *testing.T, h *house) error {
			return h.firstRecord(t, hello(t, h), func(c *client) error { _, err := c.conn.Write(make([]byte, 16)); return err })
		}, "closed"},
		{"record over 65 535", func(t *testing.T, h *house) error {
			return h.firstRecord(t, hello(t, h), func(c *client) error { _, err := c.conn.Write([]byte{0x80, 0x80, 0x04}); return err })
		}, "closed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t, func(o *Options, _ *account.Options) {
				if tt.name == "auth first" { // swallowed until the deadline
					o.Limits.Handshake = 100 * time.Millisecond
				}
			})
			if code := codeOf(tt.run(t, h)); code != tt.code {
				t.Errorf("code %s, want %s", code, tt.code)
			}
			if h.relay.attached() != 0 || h.dir.Count("user") != 0 {
				t.Error("something came of it")
			}
		})
	}
}

// firstRecord does the handshake and sends something else as the first record.
func (h *house) firstRecord(t *testing.T, c *client, send func(*client) error) error {
	t.Helper()
	if err := c.first(); err != nil {
		return err
	}
	if err := c.third(); err != nil {
		return err
	}
	if err := send(c); err != nil {
		return err
	}
	_, err := c.read()
	return err
}

// TestKeysAreTriedNewestFirst also finds a key by its version.
func TestKeysAreTriedNewestFirst(t *testing.T) {
	var keys []ServerKey
	for i := range 4 {
		keys = append(keys, ServerKey{Version: uint32(9 - i), Pair: noise.KeyPairFrom([32]byte{5: byte(i + 1)})})
	}
	h := newHouse(t, func(o *Options, _ *account.Options) { o.Keys = func() []ServerKey { return keys } })
	for i, k := range keys {
		for _, named := range []bool{false, true} {
			d := newDevice(t, identity.NewDeviceID(nil), identity.NewDeviceID(nil))
			c := h.dial(t, d)
			c.invite, c.server = h.invite(t), k.Pair.Public
			if named {
				c.bendHello = func(x *ccp.Hello) { x.KeyVersion = k.Version }
			}
			err := c.connect()
			if want := named || i < maxKeys; (err == nil) != want {
				t.Errorf("key %d named %t: %v", i, named, err)
			}
		}
	}
}
