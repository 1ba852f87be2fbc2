package masque

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/quic-go/quic-go/quicvarint"
)

func TestDatagram(t *testing.T) {
	for _, payload := range []string{"", "x", string(make([]byte, 1500))} {
		got, ok, err := parseDatagram(appendDatagram(nil, []byte(payload)))
		if string(got) != payload || !ok || err != nil {
			t.Errorf("%d bytes: %d %v %v", len(payload), len(got), ok, err)
		}
	}
	for name, c := range map[string]struct {
		in  []byte
		ok  bool
		err error
	}{
		"empty":           {nil, false, errDatagram},
		"half a varint":   {[]byte{0x40}, false, errDatagram},
		"another context": {append(quicvarint.Append(nil, 2), 1, 2), false, nil},
		"too large":       {appendDatagram(nil, make([]byte, maxPayload+1)), false, errDatagram},
		"a longer zero":   {[]byte{0x40, 0, 7}, true, nil}, // varints need not be the shortest (RFC 9000 section 16)
	} {
		if _, ok, err := parseDatagram(c.in); ok != c.ok || !errors.Is(err, c.err) {
			t.Errorf("%s: %v %v", name, ok, err)
		}
	}
}

func TestCapsules(t *testing.T) {
	var b []byte
	b = appendCapsule(b, []byte("one"))
	b = quicvarint.Append(b, 0x2575) // a type that nobody knows
	b = quicvarint.Append(b, 5)
	b = append(b, "later"...)
	b = quicvarint.Append(b, capsuleDatagram) // another context
	b = append(quicvarint.Append(b, 3), 4, 'n', 'o')
	b = appendCapsule(b, nil)
	b = appendCapsule(b, bytes.Repeat([]byte{7}, 2000))
	for name, r := range map[string]io.Reader{"whole": bytes.NewReader(b), "byte by byte": iotest.OneByteReader(bytes.NewReader(b))} {
		c := newCapsules(r)
		for _, want := range []string{"one", "", string(bytes.Repeat([]byte{7}, 2000))} {
			if got, err := c.next(); err != nil || string(got) != want {
				t.Errorf("%s: %d bytes, %v, want %d", name, len(got), err, len(want))
			}
		}
		if _, err := c.next(); err != io.EOF {
			t.Errorf("%s: end: %v", name, err)
		}
	}
	for i := 1; i < 5; i++ {
		if _, err := newCapsules(bytes.NewReader(b[:i])).next(); err != io.ErrUnexpectedEOF {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	huge := quicvarint.Append(quicvarint.Append(nil, capsuleDatagram), 1<<40)
	if _, err := newCapsules(bytes.NewReader(huge)).next(); !errors.Is(err, errDatagram) {
		t.Errorf("a datagram of a terabyte: %v", err)
	}
}

func FuzzDatagram(f *testing.F) {
	f.Add(appendDatagram(nil, []byte("x")))
	f.Add([]byte{0xc0, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		payload, ok, err := parseDatagram(b)
		if err != nil || !ok {
			return
		}
		if again, ok, err := parseDatagram(appendDatagram(nil, payload)); err != nil || !ok || !bytes.Equal(again, payload) {
			t.Fatalf("%x: %x %v %v", b, again, ok, err)
		}
	})
}

func FuzzCapsules(f *testing.F) {
	f.Add(appendCapsule(appendCapsule(nil, []byte("one")), nil))
	f.Add([]byte{1, 1, 1, 0, 2, 0, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		var written []byte
		var all [][]byte
		c := newCapsules(bytes.NewReader(b))
		for {
			p, err := c.next()
			if err != nil {
				break
			}
			all = append(all, bytes.Clone(p)) // p holds until the next call
			written = appendCapsule(written, p)
		}
		c = newCapsules(bytes.NewReader(written))
		for i, want := range all {
			if got, err := c.next(); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("capsule %d: %x, %v, want %x", i, got, err, want)
			}
		}
		if _, err := c.next(); err != io.EOF {
			t.Fatal(err)
		}
	})
}
