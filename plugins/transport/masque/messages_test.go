package masque

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// heard is a connection whose peer has sent in, and that keeps what is written.
type heard struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func (h *heard) Read(p []byte) (int, error)       { return h.in.Read(p) }
func (h *heard) Write(p []byte) (int, error)      { return h.out.Write(p) }
func (h *heard) Close() error                     { return nil }
func (h *heard) SetWriteDeadline(time.Time) error { return nil }

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestFrames: the examples of RFC 6455 section 5.7 as binary frames, and what must
// be refused.
func TestFrames(t *testing.T) {
	for name, c := range map[string]struct {
		client bool
		in     string
		want   string
		err    error
		reply  string
	}{
		"unmasked":               {client: true, in: "820548656c6c6f", want: "Hello", err: io.EOF},
		"masked":                 {in: "828537fa213d7f9f4d5158", want: "Hello", err: io.EOF},
		"fragments":              {client: true, in: "020348656c" + "80026c6f", want: "Hello", err: io.EOF},
		"126":                    {client: true, in: "827e0005" + "48656c6c6f", want: "Hello", err: io.EOF},
		"127":                    {client: true, in: "827f0000000000000005" + "48656c6c6f", want: "Hello", err: io.EOF},
		"a close is the end":     {client: true, in: "820148" + "880203e8" + "820149", want: "H", err: io.EOF},
		"ping in the middle":     {in: "828137fa213d7f" + "898037fa213d" + "828137fa213d7f", want: "HH", err: io.EOF, reply: "8a00"},
		"pong is ignored":        {client: true, in: "8a00" + "820148", want: "H", err: io.EOF},
		"masked by the server":   {client: true, in: "828537fa213d7f9f4d5158", err: errMessages},
		"unmasked by the client": {in: "820548656c6c6f", err: errMessages},
		"text":                   {client: true, in: "810548656c6c6f", err: errMessages},
		"reserved bits":          {client: true, in: "c20548656c6c6f", err: errMessages},
		"unknown type":           {client: true, in: "8300", err: errMessages},
		"long ping":              {client: true, in: "897e0080", err: errMessages},
		"fragmented ping":        {client: true, in: "0900", err: errMessages},
		"negative length":        {client: true, in: "827fffffffffffffffff", err: errMessages},
		"cut in the head":        {client: true, in: "827e00", err: io.ErrUnexpectedEOF},
		"cut in the body":        {client: true, in: "8205486568", want: "Heh", err: io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			h := &heard{in: bytes.NewReader(unhex(t, c.in))}
			m := newMessages(h, c.client)
			var got []byte
			var err error
			for err == nil {
				p := make([]byte, 3)
				var n int
				n, err = m.Read(p)
				got = append(got, p[:n]...)
			}
			if string(got) != c.want || !errors.Is(err, c.err) {
				t.Errorf("%q, %v; want %q, %v", got, err, c.want, c.err)
			}
			if reply := hex.EncodeToString(h.out.Bytes()); reply != c.reply {
				t.Errorf("answered %s, want %s", reply, c.reply)
			}
		})
	}
}

// TestMessagesBothWays: what one end writes the other reads.
func TestMessagesBothWays(t *testing.T) {
	for _, client := range []bool{true, false} {
		h := &heard{}
		m := newMessages(h, client)
		sent := make([]byte, 200_000)
		for i := range sent {
			sent[i] = byte(i * 7)
		}
		for _, n := range []int{0, 1, 125, 126, 65535, 100_000} {
			if k, err := m.Write(sent[:n]); k != n || err != nil {
				t.Fatal(k, err)
			}
		}
		if err := m.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Write([]byte{1}); err == nil {
			t.Error("written after half-close")
		}
		_ = m.Close()
		got, err := io.ReadAll(newMessages(&heard{in: &h.out}, !client))
		var want []byte
		for _, n := range []int{0, 1, 125, 126, 65535, 100_000} {
			want = append(want, sent[:n]...)
		}
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("client %v: %d bytes of %d, %v", client, len(got), len(want), err)
		}
	}
}

func FuzzMessages(f *testing.F) {
	f.Add([]byte{0x82, 1, 'x', 0x88, 0}, true)
	f.Add([]byte{0x82, 0x81, 1, 2, 3, 4, 'x'}, false)
	f.Fuzz(func(t *testing.T, in []byte, client bool) {
		got, err := io.ReadAll(newMessages(&heard{in: bytes.NewReader(in)}, client))
		if err != nil {
			return
		}
		h := &heard{}
		m := newMessages(h, !client)
		if _, err := m.Write(got); err != nil {
			t.Fatal(err)
		}
		if again, err := io.ReadAll(newMessages(&heard{in: &h.out}, client)); err != nil || !bytes.Equal(again, got) {
			t.Fatalf("%x: %x %v", got, again, err)
		}
	})
}
