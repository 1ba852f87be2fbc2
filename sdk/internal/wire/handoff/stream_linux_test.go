package handoff

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/commucat/commucat/sdk/transport"
)

const patience = 20 * time.Second

// ends are two joined streams.
func ends(t testing.TB) (a, b *Stream) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, to := range []**Stream{&a, &b} {
		if *to, err = NewStream(fds[i], &Message{Kind: KindPump}, nil); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*to).Close() })
	}
	return a, b
}

func TestStreamAllocatesNothing(t *testing.T) {
	a, b := ends(t)
	out, in := make([]byte, 1000), make([]byte, 1000)
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := a.Write(out); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(b, in); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a write and a read", n)
	}
}

func TestStreamDeadlines(t *testing.T) {
	a, b := ends(t)
	for range 2 {
		_ = a.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		_, err := a.Read(make([]byte, 1))
		var timeout net.Error
		if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Error(err)
		}
	}
	_ = a.SetReadDeadline(time.Time{})
	if _, err := b.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if n, err := a.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Error("not usable after a deadline:", n, err)
	}
	_ = a.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	n, err := a.Write(make([]byte, 10<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n == 10<<20 {
		t.Error(n, err)
	}
}

func TestStreamEnds(t *testing.T) {
	a, b := ends(t)
	if err := a.CloseWrite(); err != nil {
		t.Error(err)
	}
	if _, err := b.Read(make([]byte, 1)); err != io.EOF {
		t.Error(err)
	}
	if _, err := b.Write([]byte("still")); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(io.LimitReader(a, 5)); string(got) != "still" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	woken := make(chan error, 1)
	go func() {
		_, err := a.Read(make([]byte, 1))
		woken <- err
	}()
	a.Close()
	if err := <-woken; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := a.Close(); err != nil {
		t.Error("second close:", err)
	}
	for _, err := range []error{second(a.Read(make([]byte, 1))), second(a.Write([]byte("x"))), a.CloseWrite(), a.SetDeadline(time.Now())} {
		if !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
	if _, err := b.Write([]byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Error(err)
	}
	if n, err := a.Read(nil); n != 0 || err != nil {
		t.Error("an empty read asks nothing:", n, err)
	}
}

func second(_ int, err error) error { return err }

// given hands a conn over and gives the receiver's end.
func given(t *testing.T, p *Pumps, conn net.Conn) *Stream {
	t.Helper()
	var c Counters
	in, file, err := Pair(&c)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	file.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, err := NewSocket(fd, &c)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	m := Message{Type: Accepted}
	m.Describe(conn)
	if err := p.Give(out, &m, conn, time.Now().Add(patience), nil); err != nil {
		t.Fatal(err)
	}
	got, fd, err := in.Receive()
	if err != nil {
		t.Fatal(err)
	}
	s, err := in.Stream(fd, &got, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// tcp are two ends of a connection.
func tcp(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// A pump passes bytes, half-closes and closes on, both ways.
func TestPump(t *testing.T) {
	p := NewPumps()
	client, server := tcp(t)
	s := given(t, p, struct{ *net.TCPConn }{server})
	if s.Kind() != KindPump || p.Open() != 1 || s.RemoteAddr().String() != client.LocalAddr().String() {
		t.Error(s.Kind(), p.Open(), s.RemoteAddr())
	}
	sent := bytes.Repeat([]byte("0123456789abcdef"), 100_000)
	var group sync.WaitGroup
	for _, end := range []interface {
		net.Conn
		CloseWrite() error
	}{client, s} {
		group.Go(func() {
			if _, err := end.Write(sent); err != nil {
				t.Error(err)
			}
			if err := end.CloseWrite(); err != nil {
				t.Error(err)
			}
		})
		group.Go(func() {
			if got, err := io.ReadAll(end); err != nil || !bytes.Equal(got, sent) {
				t.Error(len(got), err)
			}
		})
	}
	group.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.Wait(ctx); err != nil {
		t.Error("the pump stays:", err)
	}
}

// Whichever end closes, the other one sees it and the pump ends.
func TestPumpEnds(t *testing.T) {
	for name, end := range map[string]func(client *net.TCPConn, s *Stream){
		"client":            func(c *net.TCPConn, _ *Stream) { c.Close() },
		"client resets":     func(c *net.TCPConn, _ *Stream) { _ = c.SetLinger(0); c.Close() },
		"host":              func(_ *net.TCPConn, s *Stream) { s.Close() },
		"host, half before": func(_ *net.TCPConn, s *Stream) { _ = s.CloseWrite(); s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			p := NewPumps()
			client, server := tcp(t)
			s := given(t, p, struct{ *net.TCPConn }{server})
			end(client, s)
			if name[0] == 'h' {
				_ = client.SetReadDeadline(time.Now().Add(patience))
				if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
					t.Error(err)
				}
			} else {
				_ = s.SetReadDeadline(time.Now().Add(patience))
				if _, err := s.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error(err)
				}
				s.Close()
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := p.Wait(ctx); err != nil {
				t.Error("the pump stays:", err)
			}
		})
	}
}

// lengths is a client's conn that gives what it is told and notes how large the buffers
// are that it reads into.
type lengths struct {
	net.Conn
	give, asked []int
}

func (c *lengths) Read(b []byte) (int, error) {
	c.asked = append(c.asked, len(b))
	if len(c.give) == 0 {
		return 0, io.EOF
	}
	n := min(c.give[0], len(b))
	c.give = c.give[1:]
	return n, nil
}

func (*lengths) Close() error { return nil }

// An idle stream holds a small buffer, whatever it carried before; a busy one a large.
func TestPumpBuffers(t *testing.T) {
	if n := unsafe.Sizeof(pump{}); n > 1152 {
		t.Errorf("a stream's own memory is %d bytes", n)
	}
	for _, tt := range []struct {
		name        string
		give, asked []int
	}{
		{"chat", []int{300, 1000, 20}, []int{smallBuffer, smallBuffer, smallBuffer, smallBuffer}},
		{"a long message", []int{smallBuffer, 9000}, []int{smallBuffer, largeBuffer, smallBuffer}},
		{
			"a file in records of 16 KiB", []int{smallBuffer, 15 << 10, 16 << 10, 16 << 10, 100},
			[]int{smallBuffer, largeBuffer, largeBuffer, largeBuffer, largeBuffer, smallBuffer},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			near, far := ends(t)
			go func() { _, _ = io.Copy(io.Discard, far) }()
			c := &lengths{give: tt.give}
			p := &pump{set: NewPumps(), conn: c, end: near}
			p.both.Add(1)
			p.up()
			if !slices.Equal(c.asked, tt.asked) {
				t.Errorf("asked for %v, want %v", c.asked, tt.asked)
			}
		})
	}
}

// A client that takes nothing cannot keep a stream that the host has closed.
func TestPumpOfAStalledClient(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the limit")
	}
	p := NewPumps()
	_, server := tcp(t)
	s := given(t, p, struct{ *net.TCPConn }{server})
	_ = s.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	for err := error(nil); err == nil; {
		_, err = s.Write(make([]byte, 64<<10))
	}
	s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), linger+patience)
	defer cancel()
	if err := p.Wait(ctx); err != nil {
		t.Error("the pump stays:", err)
	}
}

func TestBare(t *testing.T) {
	p := NewPumps()
	client, server := tcp(t)
	s := given(t, p, transport.Attach(server, transport.Facts{Circuit: "c"}))
	if s.Kind() != KindSocket || p.Open() != 0 || s.Path().Circuit != "c" {
		t.Error(s.Kind(), p.Open(), s.Path())
	}
	if _, err := client.Write([]byte("hello")); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(io.LimitReader(s, 5)); string(got) != "hello" || err != nil {
		t.Errorf("%q %v", got, err)
	}
}

// A receiver that does not receive holds the sender up, and only as long as it says.
func TestSendWaits(t *testing.T) {
	var c Counters
	in, file, err := Pair(&c)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer file.Close()
	began := time.Now()
	for err == nil {
		err = in.Send(&Message{Type: Bind, Number: 1}, -1, began.Add(200*time.Millisecond))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	woken := make(chan error, 1)
	go func() { woken <- in.Send(&Message{Type: Bind, Number: 1}, -1, time.Time{}) }()
	time.Sleep(10 * time.Millisecond)
	in.Close()
	if err := <-woken; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
