package obfs

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// variants are parameters of every generation.
func variants() map[string]*Params {
	trailers := Draw(V3)
	trailers.Trailers = true
	return map[string]*Params{"plain": Plain(), "1.0": Draw(V1), "1.5": Draw(V1_5), "2.0": Draw(V2), "3.0": Draw(V3), "3.1": trailers}
}

// datagram makes a message of kind k with n bytes and a type word of the wire.
func datagram(p *Params, k Kind, n int) (d, msg []byte) {
	msg = make([]byte, n)
	Fill(msg)
	if k == Transport {
		prefix := make([]byte, p.Prefix[k])
		fillUnlike(prefix)
		body := bytes.Clone(msg)
		p.Header(prefix, body)
		return append(prefix, body...), msg
	}
	SetType(msg, p.Type[k].Pick())
	return p.Handshake(k, msg), msg
}

func TestClassify(t *testing.T) {
	for name, p := range variants() {
		t.Run(name, func(t *testing.T) {
			for k := Initiation; k <= Transport; k++ {
				sizes := []int{messageSize[k]}
				if k == Transport {
					sizes = []int{32, 112, 128, 1312}
				}
				for _, n := range sizes {
					d, msg := datagram(p, k, n)
					// By chance a random word lies in an earlier kind's range; the
					// caller's MAC check then goes on with the next kind.
					s := p.Look(d, k)
					if s.Kind != k || s.At != p.Prefix[k] {
						t.Fatalf("kind %d, %d bytes: %+v", k, n, s)
					}
					copied := bytes.Clone(d)
					got := p.Message(d, s)
					if !p.Type[k].Contains(Type(got)) {
						t.Errorf("kind %d: type %d", k, Type(got))
					}
					from := 4
					if !bytes.Equal(got[from:], msg[from:]) {
						t.Errorf("kind %d: another message", k)
					}
					if k != Transport {
						p.Uncover(d, s)
						if !bytes.Equal(d, copied) {
							t.Errorf("kind %d: not undone", k)
						}
					}
				}
			}
		})
	}
}

func TestClassifyBareKeepalive(t *testing.T) {
	p := Draw(V2)
	d := make([]byte, 32)
	SetType(d, p.Type[Transport].Pick())
	if s := p.Look(d, Initiation); s.Kind != Transport || s.At != 0 {
		t.Errorf("%+v", s)
	}
	for n := range 32 {
		if s := p.Look(make([]byte, n), Initiation); s.Kind != None {
			t.Errorf("%d bytes: %+v", n, s)
		}
	}
}

func TestClassifyOtherParameters(t *testing.T) {
	a, b := Draw(V2), Draw(V2)
	b.Type = [4]Range{{5, 9}, {15, 19}, {25, 29}, {35, 39}}
	for k := Initiation; k <= Transport; k++ {
		for range 100 {
			d, _ := datagram(a, k, messageSize[k])
			if s := b.Look(d, Initiation); s.Kind != None {
				t.Fatalf("kind %d taken for %+v", k, s)
			}
		}
	}
}

// Nothing that is sent has the length or the type word of plain WireGuard.
func TestUnlikeWireGuard(t *testing.T) {
	for name, p := range variants() {
		if p.IsPlain() {
			continue
		}
		for range 2000 {
			for k := Initiation; k <= Transport; k++ {
				n := messageSize[k]
				if k == Transport && rand.IntN(2) == 0 {
					n = 32 + 16*(4+rand.IntN(76))
				}
				d, _ := datagram(p, k, n)
				word := binary.LittleEndian.Uint32(d)
				// The first generation has no prefix before the cookie reply.
				plain := plainSize(len(d)) && !(name == "1.0" && k == Cookie)
				if plain || word >= 1 && word <= 4 {
					t.Fatalf("%s: kind %d: %d bytes, word %d", name, k, len(d), word)
				}
			}
		}
	}
}

func FuzzLook(f *testing.F) {
	all := variants()
	names := []string{"plain", "1.0", "1.5", "2.0", "3.0", "3.1"}
	for i, name := range names {
		for k := Initiation; k <= Transport; k++ {
			d, _ := datagram(all[name], k, messageSize[k])
			f.Add(uint8(i), d)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, d []byte) {
		p := all[names[int(which)%len(names)]]
		before := bytes.Clone(d)
		for from := Initiation; ; {
			s := p.Look(d, from)
			if s.Kind == None {
				break
			}
			if s.Kind < from {
				t.Fatalf("looked from %d, found %d", from, s.Kind)
			}
			msg := p.Message(d, s)
			if len(msg) < messageSize[s.Kind] || !p.Type[s.Kind].Contains(Type(msg)) {
				t.Fatalf("kind %d: %d bytes, type %d", s.Kind, len(msg), Type(msg))
			}
			if s.Kind == Transport {
				break
			}
			p.Uncover(d, s)
			if !bytes.Equal(d, before) {
				t.Fatal("the datagram was changed")
			}
			from = s.Kind + 1
		}
	})
}
