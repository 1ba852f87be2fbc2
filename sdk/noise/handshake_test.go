package noise

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func fill32(b byte) (k [32]byte) {
	for i := range k {
		k[i] = b
	}
	return k
}

// example builds the worked example of protocol-extensions: server static
// 32 x 33, client static 32 x 44, ephemerals 32 x 11 and 32 x 22.
func example(t testing.TB, pattern Pattern, pq bool) (client, server *Handshake) {
	t.Helper()
	rs := KeyPairFrom(fill32(0x33))
	e1, e2 := fill32(0x11), fill32(0x22)
	client = mustHandshake(t, Config{
		Pattern: pattern, Initiator: true, PQ: pq, Prologue: []byte(DefaultPrologue),
		Static: KeyPairFrom(fill32(0x44)), Peer: rs.Public, Random: bytes.NewReader(e1[:]),
	})
	server = mustHandshake(t, Config{
		Pattern: pattern, PQ: pq, Prologue: []byte(DefaultPrologue), Static: rs, Random: bytes.NewReader(e2[:]),
	})
	return client, server
}

// Section 2's h (the proof over it is sdk/identity's) and section 10's hashes.
func TestWorkedHashes(t *testing.T) {
	psk := key32(t, "145fed35232c98c53ebc41b5cdef258a26e523b831357c658f2dc5049b62af46")
	for _, test := range []struct {
		name    string
		pattern Pattern
		pq      bool
		hash    string
	}{
		{"XK", XK, false, "2032abae9666c7539d7c833392106538a888f573a948dc2dc11a70fb3b921ab7"},
		{"XKpsk3", XK, true, "686dcb888b503eb2e97a562e10772a230f0176dd21562a4f403a81ac0366a3b5"},
		{"IKpsk2", IK, true, "83a0c1d76251fb28ecc7559d95f3fb92267d35f53b19e9c35ce66129bb5fe962"},
	} {
		t.Run(test.name, func(t *testing.T) {
			client, server := example(t, test.pattern, test.pq)
			if test.pq {
				if err := errors.Join(client.SetPSK(psk), server.SetPSK(psk)); err != nil {
					t.Fatal(err)
				}
			}
			run(t, client, server, []byte("{}"))
			same(t, "client", client.Hash(), unhex(t, test.hash))
			same(t, "server", server.Hash(), unhex(t, test.hash))
		})
	}
}

func TestConfigRefused(t *testing.T) {
	s, peer := KeyPairFrom(fill32(1)), KeyPairFrom(fill32(2)).Public
	for name, c := range map[string]Config{
		"no pattern":               {Static: s},
		"unknown pattern":          {Pattern: 9, Static: s},
		"no static":                {Pattern: XK},
		"initiator without peer":   {Pattern: XK, Initiator: true, Static: s},
		"responder with peer (XK)": {Pattern: XK, Static: s, Peer: peer},
		"responder with peer (IK)": {Pattern: IK, Static: s, Peer: peer},
	} {
		if _, err := NewHandshake(c); !errors.Is(err, &Error{Kind: KindConfig}) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOutOfTurn(t *testing.T) {
	client, server := example(t, XK, false)
	if _, err := client.ReadMessage(nil, make([]byte, 48)); !errors.Is(err, ErrState) {
		t.Errorf("client reads first: %v", err)
	}
	if _, err := server.WriteMessage(nil, nil); !errors.Is(err, ErrState) {
		t.Errorf("server writes first: %v", err)
	}
	if _, _, err := client.Split(); !errors.Is(err, ErrState) {
		t.Errorf("split before the end: %v", err)
	}
	if client.Hash() != nil || client.Finished() {
		t.Error("a hash before the end")
	}
	if err := client.SetPSK(fill32(1)); !errors.Is(err, ErrState) {
		t.Errorf("psk without PQ: %v", err)
	}
	run(t, client, server, nil) // calls out of turn do no harm
	if _, err := client.WriteMessage(nil, nil); !errors.Is(err, ErrState) {
		t.Errorf("a fourth message: %v", err)
	}
	if _, err := server.ReadMessage(nil, make([]byte, 64)); !errors.Is(err, ErrState) {
		t.Errorf("a fourth message: %v", err)
	}
	if _, _, err := client.Split(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := client.Split(); !errors.Is(err, ErrState) {
		t.Errorf("a second split: %v", err)
	}
}

// IK has two messages: both sides split after the second.
func TestIKHasTwoMessages(t *testing.T) {
	client, server := example(t, IK, false)
	m1, err := client.WriteMessage(nil, nil)
	if err != nil || len(m1) != 96 {
		t.Fatalf("message 1: %d bytes, %v", len(m1), err)
	}
	if _, err := server.ReadMessage(nil, m1); err != nil {
		t.Fatal(err)
	}
	if server.Finished() || server.PeerStatic() != KeyPairFrom(fill32(0x44)).Public {
		t.Error("after message 1")
	}
	m2, err := server.WriteMessage(nil, []byte("{}"))
	if err != nil || len(m2) != 50 || !server.Finished() {
		t.Fatalf("message 2: %d bytes, %v", len(m2), err)
	}
	if _, err := client.ReadMessage(nil, m2); err != nil || !client.Finished() {
		t.Fatal(err)
	}
}

// Every bit of every message counts, and a failed handshake stays dead.
func TestTamperedMessages(t *testing.T) {
	for _, pattern := range []Pattern{XK, IK} {
		for broken := range pattern.Messages() {
			for _, at := range []int{0, 31, 40, -1} {
				t.Run(fmt.Sprintf("%s/%d/%d", pattern, broken, at), func(t *testing.T) {
					client, server := example(t, pattern, false)
					from, to := client, server
					for i := 0; i < broken; i++ {
						m, _ := from.WriteMessage(nil, nil)
						if _, err := to.ReadMessage(nil, m); err != nil {
							t.Fatal(err)
						}
						from, to = to, from
					}
					m, _ := from.WriteMessage(nil, nil)
					good := bytes.Clone(m)
					if at < 0 {
						at = len(m) - 1
					}
					m[at] ^= 1
					if _, err := to.ReadMessage(nil, m); !errors.Is(err, ErrDecrypt) {
						t.Errorf("tampered: %v", err)
					}
					if _, err := to.ReadMessage(nil, good); !errors.Is(err, ErrState) {
						t.Errorf("after a failure: %v", err)
					}
				})
			}
		}
	}
}

func TestMessageLengths(t *testing.T) {
	for _, n := range []int{0, 1, 32, 47, MaxMessage + 1} {
		_, server := example(t, XK, false)
		if _, err := server.ReadMessage(nil, make([]byte, n)); !errors.Is(err, ErrLength) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	client, server := example(t, XK, false)
	if _, err := client.WriteMessage(nil, make([]byte, MaxMessage-47)); !errors.Is(err, ErrLength) {
		t.Errorf("payload too long: %v", err)
	}
	m, err := client.WriteMessage(nil, make([]byte, MaxMessage-48))
	if err != nil || len(m) != MaxMessage {
		t.Fatalf("longest message: %d, %v", len(m), err)
	}
	if _, err := server.ReadMessage(nil, m); err != nil {
		t.Error(err)
	}
}

func TestWrongServerKeyAndPrologue(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"key":      func(c *Config) { c.Static = KeyPairFrom(fill32(0x55)) },
		"prologue": func(c *Config) { c.Prologue = nil },
		"pq":       func(c *Config) { c.PQ = true }, // another protocol name: no silent downgrade
	} {
		t.Run(name, func(t *testing.T) {
			for _, pattern := range []Pattern{XK, IK} {
				client, _ := example(t, pattern, false)
				c := Config{Pattern: pattern, Prologue: []byte(DefaultPrologue), Static: KeyPairFrom(fill32(0x33))}
				change(&c)
				m, err := client.WriteMessage(nil, nil)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := mustHandshake(t, c).ReadMessage(nil, m); !errors.Is(err, ErrDecrypt) {
					t.Errorf("%s: %v", pattern, err)
				}
			}
		})
	}
}

// A peer whose ephemeral or static key is of low order is refused by name.
func TestLowOrderKeys(t *testing.T) {
	message := make([]byte, 48) // e = 0
	_, server := example(t, XK, false)
	if _, err := server.ReadMessage(nil, message); !errors.Is(err, ErrKey) {
		t.Errorf("ephemeral of zero: %v", err)
	}
	low := key32(t, "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
	client := mustHandshake(t, Config{Pattern: XK, Initiator: true, Static: KeyPairFrom(fill32(1)), Peer: low})
	if _, err := client.WriteMessage(nil, nil); !errors.Is(err, ErrKey) {
		t.Errorf("server key of order 8: %v", err)
	}
}

// W3: what the responder compares client_static with is the key that Noise has
// proved, and h differs between any two handshakes, even of the same keys.
func TestW3PeerStaticIsProven(t *testing.T) {
	claimed := KeyPairFrom(fill32(0x44))
	thief := KeyPairFrom(fill32(0x45))
	for _, pattern := range []Pattern{XK, IK} {
		rs := KeyPairFrom(fill32(0x33))
		client := mustHandshake(t, Config{Pattern: pattern, Initiator: true, Static: thief, Peer: rs.Public})
		server := mustHandshake(t, Config{Pattern: pattern, Static: rs})
		run(t, client, server, nil)
		if got := server.PeerStatic(); got != thief.Public || got == claimed.Public {
			t.Errorf("%s: proven key %x", pattern, got)
		}
		again := mustHandshake(t, Config{Pattern: pattern, Initiator: true, Static: thief, Peer: rs.Public})
		other := mustHandshake(t, Config{Pattern: pattern, Static: rs})
		run(t, again, other, nil)
		if bytes.Equal(other.Hash(), server.Hash()) {
			t.Errorf("%s: two handshakes share h", pattern)
		}
	}
	// A claimed key pair that does not belong together proves nothing.
	rs := KeyPairFrom(fill32(0x33))
	forged := KeyPair{Private: thief.Private, Public: claimed.Public}
	client := mustHandshake(t, Config{Pattern: XK, Initiator: true, Static: forged, Peer: rs.Public})
	server := mustHandshake(t, Config{Pattern: XK, Static: rs})
	m1, _ := client.WriteMessage(nil, nil)
	_, _ = server.ReadMessage(nil, m1)
	m2, _ := server.WriteMessage(nil, nil)
	_, _ = client.ReadMessage(nil, m2)
	m3, err := client.WriteMessage(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.ReadMessage(nil, m3); !errors.Is(err, ErrDecrypt) {
		t.Errorf("a foreign static key: %v", err)
	}
}

// A replayed IK message 1 opens, but who replays it cannot seal a record.
func TestReplayedIKCannotSeal(t *testing.T) {
	rs := KeyPairFrom(fill32(0x33))
	honest := mustHandshake(t, Config{Pattern: IK, Initiator: true, Static: KeyPairFrom(fill32(0x44)), Peer: rs.Public})
	m1, _ := honest.WriteMessage(nil, nil)
	first := mustHandshake(t, Config{Pattern: IK, Static: rs})
	second := mustHandshake(t, Config{Pattern: IK, Static: rs})
	var answers [2][]byte
	for i, server := range []*Handshake{first, second} {
		if _, err := server.ReadMessage(nil, m1); err != nil {
			t.Fatal(err)
		}
		answers[i], _ = server.WriteMessage(nil, nil)
	}
	if _, err := honest.ReadMessage(nil, answers[0]); err != nil {
		t.Fatal(err)
	}
	send, _, _ := honest.Split()
	confirm, _ := NewSealer(send).AppendRecord(nil, []byte("confirm"))
	_, recv, _ := second.Split()
	if _, _, err := NewOpener(recv).Next(confirm); !errors.Is(err, ErrDecrypt) {
		t.Errorf("the replay accepts the first session's records: %v", err)
	}
}

func TestRandomnessFails(t *testing.T) {
	broken := iotest.ErrReader(io.ErrUnexpectedEOF)
	if _, err := GenerateKeyPair(broken); !errors.Is(err, &Error{Kind: KindRandom}) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("GenerateKeyPair: %v", err)
	}
	h := mustHandshake(t, Config{Pattern: XK, Initiator: true, Static: KeyPairFrom(fill32(1)), Peer: KeyPairFrom(fill32(2)).Public, Random: broken})
	if _, err := h.WriteMessage(nil, nil); !errors.Is(err, &Error{Kind: KindRandom}) {
		t.Errorf("WriteMessage: %v", err)
	}
	if k, err := GenerateKeyPair(nil); err != nil || k.Public == ([32]byte{}) {
		t.Errorf("crypto/rand: %v", err)
	}
}

func TestPatternNames(t *testing.T) {
	for _, p := range []Pattern{XK, IK} {
		if got, ok := ParsePattern(p.String()); !ok || got != p {
			t.Errorf("%s", p)
		}
	}
	for _, s := range []string{"", "xk", "XX", "XKpsk3"} {
		if _, ok := ParsePattern(s); ok {
			t.Errorf("%q is a pattern", s)
		}
	}
	if Pattern(0).String() != "?" || Pattern(7).MessageSize(0) != 0 || XK.MessageSize(3) != 0 {
		t.Error("unknown pattern")
	}
}

// Nothing that holds a key shows it, whatever the verb.
func TestSecretsDoNotPrint(t *testing.T) {
	k := KeyPairFrom(fill32(0xab))
	client, server := example(t, XK, false)
	run(t, client, server, nil)
	toServer := client.toServer
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%d", "%s", "%q"} {
		text := strings.ToLower(fmt.Sprintf(strings.Repeat(verb+" ", 4), k, &k, Config{Static: k}, client))
		for _, secret := range []string{strings.Repeat("ab", 8), "171 171 171", "0xab, 0xab", fmt.Sprintf("%x", toServer[:8]), strings.Trim(fmt.Sprintf("%d", toServer[:8]), "[]")} {
			if strings.Contains(text, secret) {
				t.Errorf("%s prints a secret: %s", verb, text)
			}
		}
	}
	c := NewCipher(fill32(0xab))
	if text := fmt.Sprintf("%v %+v %x", c, c, c); strings.Contains(text, "ab") {
		t.Error(text)
	}
}
