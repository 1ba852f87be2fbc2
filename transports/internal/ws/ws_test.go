package ws

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// memory is a connection that reads from a slice and remembers what was
// written.
type memory struct {
	net.Conn
	in      *bytes.Reader
	step    int // bytes a read gives at most; 0: all
	timeout bool
	out     bytes.Buffer
}

func (m *memory) Read(p []byte) (int, error) {
	if m.timeout = !m.timeout; m.timeout && m.step > 0 {
		return 0, os.ErrDeadlineExceeded
	}
	if m.step > 0 && len(p) > m.step {
		p = p[:m.step]
	}
	return m.in.Read(p)
}
func (m *memory) Write(p []byte) (int, error)      { return m.out.Write(p) }
func (m *memory) SetWriteDeadline(time.Time) error { return nil }

func frame(opcode byte, fin, masked bool, payload string) []byte {
	h := header{fin: fin, opcode: opcode, masked: masked, length: uint64(len(payload)), mask: [4]byte{1, 2, 3, 4}}
	b := appendHeader(nil, h)
	at := len(b)
	b = append(b, payload...)
	if masked {
		xor(h.mask, 0, b[at:])
	}
	return b
}

func join(frames ...[]byte) []byte { return bytes.Join(frames, nil) }

// readAll reads over timeouts.
func readAll(c *Conn) (string, error) {
	var all []byte
	p := make([]byte, 7)
	for {
		n, err := c.Read(p)
		all = append(all, p[:n]...)
		if err == io.EOF {
			return string(all), nil
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return string(all), err
		}
	}
}

func TestRead(t *testing.T) {
	bye := frame(opClose, true, true, "")
	long := strings.Repeat("x", 70_000)
	tests := []struct {
		name string
		in   []byte
		want string
		sent []byte // by us
		err  error
	}{
		{"close", bye, "", nil, nil},
		{"close with code", frame(opClose, true, true, "\x03\xe8bye"), "", nil, nil},
		{"one", join(frame(opBinary, true, true, "hello"), bye), "hello", nil, nil},
		{"two", join(frame(opBinary, true, true, "hello "), frame(opBinary, true, true, "world"), bye), "hello world", nil, nil},
		{"empty", join(frame(opBinary, true, true, ""), frame(opBinary, true, true, "x"), bye), "x", nil, nil},
		{"long", join(frame(opBinary, true, true, long), bye), long, nil, nil},
		{"fragments", join(frame(opBinary, false, true, "a"), frame(opContinuation, false, true, "b"), frame(opContinuation, true, true, "c"), bye), "abc", nil, nil},
		{"ping", join(frame(opPing, true, true, "p"), bye), "", frame(opPong, true, false, "p"), nil},
		{"ping between fragments", join(frame(opBinary, false, true, "a"), frame(opPing, true, true, ""), frame(opContinuation, true, true, "b"), bye), "ab", frame(opPong, true, false, ""), nil},
		{"pong", join(frame(opPong, true, true, "x"), bye), "", nil, nil},
		{"no close", frame(opBinary, true, true, "a"), "a", nil, io.ErrUnexpectedEOF},
		{"half a frame", frame(opBinary, true, true, "abc")[:7], "a", nil, io.ErrUnexpectedEOF},
		{"half a head", frame(opBinary, true, true, "abc")[:1], "", nil, io.ErrUnexpectedEOF},
		{"not masked", frame(opBinary, true, false, "a"), "", frame(opClose, true, false, "\x03\xea"), ErrProtocol},
		{"text", frame(opText, true, true, "a"), "", frame(opClose, true, false, "\x03\xeb"), ErrProtocol},
		{"continuation of nothing", frame(opContinuation, true, true, "a"), "", frame(opClose, true, false, "\x03\xea"), ErrProtocol},
		{"message in a message", join(frame(opBinary, false, true, "a"), frame(opBinary, true, true, "b")), "a", frame(opClose, true, false, "\x03\xea"), ErrProtocol},
		{"reserved bit", append([]byte{0xc2}, frame(opBinary, true, true, "a")[1:]...), "", frame(opClose, true, false, "\x03\xea"), ErrProtocol},
		{"opcode 3", frame(3, true, true, "a"), "", frame(opClose, true, false, "\x03\xea"), ErrProtocol},
		{"long ping", frame(opPing, true, true, long[:126]), "", frame(opClose, true, false, "\x03\xea"), ErrProtocol},
		{"ping in fragments", frame(opPing, false, true, "a"), "", frame(opClose, true, false, "\x03\xea"), ErrProtocol},
		{"long form", []byte{0x82, 0xfe, 0, 1, 1, 2, 3, 4, 'a'}, "", frame(opClose, true, false, "\x03\xea"), ErrProtocol},
		{"close of one byte", frame(opClose, true, true, "\x03"), "", frame(opClose, true, false, "\x03\xea"), ErrProtocol},
	}
	for _, tt := range tests {
		for _, step := range []int{0, 1, 3} {
			t.Run(tt.name, func(t *testing.T) {
				m := &memory{in: bytes.NewReader(tt.in), step: step}
				early := tt.in[:len(tt.in)/2]
				m.in = bytes.NewReader(tt.in[len(tt.in)/2:])
				c := New(m, Server, early, new(Buffers))
				got, err := readAll(c)
				if !errors.Is(err, tt.err) || err == nil && tt.err != nil {
					t.Errorf("error %v, want %v", err, tt.err)
				}
				if got != tt.want || !bytes.Equal(m.out.Bytes(), tt.sent) {
					t.Errorf("read %.40q, sent %x; want %.40q, %x", got, m.out.Bytes(), tt.want, tt.sent)
				}
			})
		}
	}
}

func TestText(t *testing.T) {
	in := join(frame(opText, true, true, "good"), frame(opText, true, true, "bad"), frame(opText, false, true, "go"),
		frame(opContinuation, true, true, "od"), frame(opBinary, true, true, "!"), frame(opClose, true, true, ""))
	c := New(&memory{in: bytes.NewReader(in)}, Server, nil, new(Buffers))
	c.Text = func(m []byte) ([]byte, error) {
		if string(m) != "good" {
			return nil, errors.New("bad")
		}
		return []byte("G"), nil
	}
	if got, err := readAll(c); got != "GG!" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	m := &memory{in: bytes.NewReader(frame(opText, true, true, strings.Repeat("x", MaxText+1)))}
	c = New(m, Server, nil, new(Buffers))
	c.Text = func(m []byte) ([]byte, error) { return m, nil }
	if _, err := readAll(c); !errors.Is(err, ErrProtocol) {
		t.Errorf("too long: %v", err)
	}
}

func TestWrite(t *testing.T) {
	for _, role := range []Role{Server, Client} {
		for _, size := range []int{0, 1, 125, 126, chunk, chunk + 1, 100_000} {
			m := &memory{}
			c := New(m, role, nil, new(Buffers))
			sent := bytes.Repeat([]byte("abc"), size/3+1)[:size]
			if n, err := c.Write(sent); n != size || err != nil {
				t.Fatal(n, err)
			}
			if err := c.WriteMessage(sent); err != nil {
				t.Fatal(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("write after the close: %v", err)
			}
			back := New(&memory{in: bytes.NewReader(m.out.Bytes())}, 1-role, nil, new(Buffers))
			if got, err := readAll(back); err != nil || got != string(sent)+string(sent) {
				t.Errorf("role %d, %d bytes: got %d, %v", role, size, len(got), err)
			}
		}
	}
}

// loop reads what it is given again and again.
type loop struct {
	memory
	data []byte
	pos  int
}

func (l *loop) Read(p []byte) (int, error) {
	n := copy(p, l.data[l.pos:])
	l.pos = (l.pos + n) % len(l.data)
	return n, nil
}
func (l *loop) Write(p []byte) (int, error) { return len(p), nil }

func FuzzRead(f *testing.F) {
	f.Add(join(frame(opBinary, false, true, "a"), frame(opPing, true, true, "x"), frame(opContinuation, true, true, "b"), frame(opClose, true, true, "")), true)
	f.Add(frame(opText, true, true, "aGk="), true)
	f.Add(frame(opBinary, true, false, "a"), false)
	f.Fuzz(func(t *testing.T, in []byte, server bool) {
		role := Client
		if server {
			role = Server
		}
		c := New(&memory{in: bytes.NewReader(in)}, role, nil, new(Buffers))
		c.Text = func(m []byte) ([]byte, error) { return m, nil }
		got, _ := readAll(c)
		if len(got) > len(in) {
			t.Errorf("%d bytes out of %d", len(got), len(in))
		}
	})
}

// A head that is accepted has one spelling.
func FuzzHeader(f *testing.F) {
	f.Add(frame(opBinary, true, true, "abc"))
	f.Add([]byte{0x82, 126, 0, 126})
	f.Add([]byte{0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHeader(b)
		if err != nil {
			return
		}
		if again := appendHeader(nil, h); !bytes.Equal(again, b[:headerSize(b)]) {
			t.Errorf("%x became %x", b, again)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	c := New(&loop{data: frame(opBinary, true, true, strings.Repeat("x", 256))}, Server, nil, new(Buffers))
	p := make([]byte, 512)
	b.SetBytes(256)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = c.Read(p)
	}
}
