package obfs

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"net/netip"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

func pair(t testing.TB) (private, public [32]byte) {
	t.Helper()
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return [32]byte(k.Bytes()), [32]byte(k.PublicKey().Bytes())
}

// MACs and cookies as WireGuard's own code sees them.
func TestAgainstWireGuard(t *testing.T) {
	_, public := pair(t)
	var theirs device.CookieChecker
	theirs.Init(device.NoisePublicKey(public))
	var maker device.CookieGenerator
	maker.Init(device.NoisePublicKey(public))
	mac := NewMAC(MAC1Key(public))
	for _, n := range []int{InitiationSize, ResponseSize} {
		msg := make([]byte, n)
		Fill(msg)
		mac.Sign(msg)
		if !theirs.CheckMAC1(msg) || HasCookie(msg) {
			t.Errorf("%d bytes: our MAC1 is refused", n)
		}
		maker.AddMacs(msg)
		if !mac.Check(msg) {
			t.Errorf("%d bytes: their MAC1 is refused", n)
		}
		msg[0] ^= 1
		if mac.Check(msg) {
			t.Errorf("%d bytes: another message is accepted", n)
		}
	}

	now := time.Unix(1_800_000_000, 0)
	clock := func() time.Time { return now }
	source := netip.MustParseAddrPort("192.0.2.1:1234")
	msg := make([]byte, InitiationSize)
	Fill(msg)
	mac.Sign(msg)

	t.Run("their cookie", func(t *testing.T) {
		jar := NewJar(public, clock)
		jar.Sign(msg)
		reply, err := theirs.CreateReply(msg, Sender(msg), []byte("source"))
		if err != nil {
			t.Fatal(err)
		}
		raw := append(append(make([]byte, 8, CookieSize), reply.Nonce[:]...), reply.Cookie[:]...)
		if !jar.Open(raw) {
			t.Fatal("their cookie does not open")
		}
		next := bytes.Clone(msg)
		mac.Sign(next)
		jar.Sign(next)
		if !theirs.CheckMAC2(next, []byte("source")) {
			t.Error("MAC2 with their cookie is refused")
		}
		now = now.Add(CookieLife)
		mac.Sign(next)
		if jar.Sign(next); HasCookie(next) {
			t.Error("an old cookie is used")
		}
	})

	t.Run("our cookie", func(t *testing.T) {
		maker.AddMacs(msg)
		oven := NewOven(public, clock)
		raw := oven.Reply(msg, source)
		var reply device.MessageCookieReply
		copy(reply.Nonce[:], raw[8:])
		copy(reply.Cookie[:], raw[32:])
		if Sender(raw) != Sender(msg) || !maker.ConsumeReply(&reply) {
			t.Fatal("our cookie does not open")
		}
		maker.AddMacs(msg)
		if !oven.Check(msg, source) {
			t.Error("MAC2 with our cookie is refused")
		}
		if oven.Check(msg, netip.MustParseAddrPort("192.0.2.1:1235")) {
			t.Error("a cookie of another source is accepted")
		}
	})
}

func TestOven(t *testing.T) {
	_, public := pair(t)
	now := time.Unix(1_800_000_000, 0)
	oven := NewOven(public, func() time.Time { return now })
	jar := NewJar(public, func() time.Time { return time.Unix(0, 0) }) // its clock stands
	source := netip.MustParseAddrPort("[2001:db8::1]:1234")
	mac := NewMAC(MAC1Key(public))
	msg := make([]byte, ResponseSize)
	Fill(msg)
	mac.Sign(msg)
	if oven.Check(msg, source) {
		t.Error("no MAC2 is accepted")
	}
	copy(msg[ResponseSize-MACSize:], "sixteen bytes of")
	if oven.Check(msg, source) {
		t.Error("any MAC2 is accepted")
	}
	mac.Sign(msg)
	jar.Sign(msg)
	reply := oven.Reply(msg, source)
	if !jar.Open(reply) {
		t.Fatal("does not open")
	}
	if reply[40] ^= 1; jar.Open(reply) {
		t.Error("a changed reply opens")
	}
	mac.Sign(msg)
	jar.Sign(msg)
	for _, step := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {CookieLife - 1, true}, {1, true}, {CookieLife - 1, true}, {1, false}, {time.Hour, false}} {
		now = now.Add(step.after)
		if oven.Check(msg, source) != step.want {
			t.Errorf("after %v: %v", step.after, !step.want)
		}
	}
}
