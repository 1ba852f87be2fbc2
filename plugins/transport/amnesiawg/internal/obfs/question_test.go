package obfs

import (
	"bytes"
	"testing"
	"time"
)

func TestQuestion(t *testing.T) {
	for n := range byte(50) {
		a := NewAsker([32]byte{n})
		q := Question{Time: time.Unix(1_800_000_000, 0), Parameters: Draw(V2).Digest(), Address: [16]byte{0xfd, n}}
		d := a.Ask(q)
		got, ok := a.ReadQuestion(d)
		if !ok || got != q {
			t.Fatalf("%+v, %v", got, ok)
		}
		asked := map[[8]byte]bool{[8]byte(d): true}
		for _, w := range []Answer{{}, {SameParameters: true}, {KnownKey: true}, {true, true}} {
			reply := a.Reply(d, w)
			if got, ok := a.ReadAnswer(reply, asked); !ok || got != w {
				t.Errorf("%+v: %+v, %v", w, got, ok)
			}
			if _, ok := a.ReadAnswer(reply, nil); ok {
				t.Error("an answer to nothing is read")
			}
			if _, ok := a.ReadQuestion(reply); ok {
				t.Error("an answer is read as a question")
			}
			if plainSize(len(reply)) || plainSize(len(d)) || len(reply) > MaxDatagram || len(d) > MaxDatagram {
				t.Errorf("%d and %d bytes", len(d), len(reply))
			}
		}
		// Another relay's key reads nothing, and what was changed is nothing.
		if _, ok := NewAsker([32]byte{n, 1}).ReadQuestion(d); ok {
			t.Error("read with another key")
		}
		changed := bytes.Clone(d)
		changed[30] ^= 1
		if _, ok := a.ReadQuestion(changed); ok {
			t.Error("a changed question is read")
		}
	}
}

func TestDigest(t *testing.T) {
	p := Draw(V2)
	q := *p
	q.Junk, q.Padding, q.Special[0] = DrawJunk(), Range{1, 9}, template(t, "<r 9>")
	if p.Digest() != q.Digest() {
		t.Error("the sender's own affair counts")
	}
	q.Prefix[Transport]++
	if p.Digest() == q.Digest() {
		t.Error("another prefix does not count")
	}
}

func FuzzReadQuestion(f *testing.F) {
	a := NewAsker([32]byte{7})
	f.Add(a.Ask(Question{Time: time.Unix(1, 0)}))
	f.Fuzz(func(t *testing.T, d []byte) {
		if q, ok := a.ReadQuestion(d); ok {
			if again, ok := a.ReadQuestion(a.Ask(q)); !ok || again != q {
				t.Errorf("%+v, then %+v", q, again)
			}
		}
		_, _ = a.ReadAnswer(d, map[[8]byte]bool{})
	})
}
