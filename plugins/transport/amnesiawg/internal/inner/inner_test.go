package inner

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	left  = netip.MustParseAddr("fd00::1")
	right = netip.MustParseAddr("fd00::2")
)

// join carries packets between two networks, with a fault of mangle's if it is set:
// it may change, repeat or drop them.
func join(t testing.TB, a, b Options, mangle func([][]byte) [][]byte) (*Net, *Net) {
	t.Helper()
	a.Address, b.Address = left, right
	x, err := New(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := New(b)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	carry := func(from, to *Net) {
		const offset = 16
		bufs, sizes := make([][]byte, batchSize), make([]int, batchSize)
		for i := range bufs {
			bufs[i] = make([]byte, 65535)
		}
		for {
			n, err := from.Device().Read(bufs, sizes, offset)
			if err != nil {
				if !errors.Is(err, os.ErrClosed) {
					t.Error(err)
				}
				return
			}
			out := make([][]byte, n)
			for i := range n {
				p := bufs[i][offset : offset+sizes[i]]
				if len(p) > max(a.MTU, b.MTU) {
					t.Errorf("a packet of %d bytes", len(p))
				}
				// As WireGuard's receiver: the length counts.
				out[i] = bufs[i][:offset+ipSize+int(p[atLength])<<8+int(p[atLength+1])]
			}
			if mangle != nil {
				out = mangle(out)
			}
			if _, err := to.Device().Write(out, offset); err != nil && !errors.Is(err, os.ErrClosed) {
				t.Error(err)
			}
		}
	}
	wg.Go(func() { carry(x, y) })
	wg.Go(func() { carry(y, x) })
	t.Cleanup(func() {
		_ = x.Device().Close()
		_ = y.Device().Close()
		wg.Wait()
		x.Close()
		y.Close()
	})
	return x, y
}

// connect gives both ends of a connection from x to y.
func connect(t testing.TB, x, y *Net) (client, server *Conn) {
	t.Helper()
	ln, err := y.Listen(443, 16)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ln.Close)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	client, err = x.Dial(ctx, netip.AddrPortFrom(right, 443))
	if err != nil {
		t.Fatal(err)
	}
	server, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		_ = server.Close()
	})
	return client, server
}

// exchange sends size bytes each way at once.
func exchange(t *testing.T, a, b net.Conn, size int) {
	t.Helper()
	var wg sync.WaitGroup
	for i, ends := range [][2]net.Conn{{a, b}, {b, a}} {
		sent := make([]byte, size)
		r := rand.New(rand.NewPCG(7, uint64(i)))
		for j := range sent {
			sent[j] = byte(r.Uint32())
		}
		wg.Go(func() {
			if _, err := ends[0].Write(sent); err != nil {
				t.Error(err)
			}
			if err := ends[0].(*Conn).CloseWrite(); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			got, err := io.ReadAll(ends[1])
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("got %d bytes of %d, %v", len(got), len(sent), err)
			}
		})
	}
	wg.Wait()
}

func TestExchange(t *testing.T) {
	for name, o := range map[string]Options{
		"plain":   {MTU: 1280},
		"large":   {MTU: 1420},
		"short":   {MTU: 1184},
		"padding": {MTU: 1280, Padding: obfs.Range{Low: 4, High: 90}},
	} {
		t.Run(name, func(t *testing.T) {
			x, y := join(t, o, o, nil)
			c, s := connect(t, x, y)
			exchange(t, c, s, 3<<20)
		})
	}
}

// A peer with a larger packet size is held to ours.
func TestUnequal(t *testing.T) {
	x, y := join(t, Options{MTU: 1420}, Options{MTU: 1184}, nil)
	c, s := connect(t, x, y)
	exchange(t, c, s, 1<<20)
}

// What is lost, doubled or out of order is mended.
func TestBadPath(t *testing.T) {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(1, 2))
	mangle := func(in [][]byte) [][]byte {
		mu.Lock()
		defer mu.Unlock()
		var out [][]byte
		for _, p := range in {
			switch r.IntN(100) {
			case 0:
			case 1:
				out = append(out, p, bytes.Clone(p))
			case 2:
				out = append([][]byte{p}, out...)
			default:
				out = append(out, p)
			}
		}
		return out
	}
	x, y := join(t, Options{MTU: 1280}, Options{MTU: 1280}, mangle)
	c, s := connect(t, x, y)
	exchange(t, c, s, 256<<10)
}

func TestDeadlines(t *testing.T) {
	x, y := join(t, Options{MTU: 1280}, Options{MTU: 1280}, nil)
	c, s := connect(t, x, y)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read again: %v", err)
	}
	_ = c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	var err error
	for err == nil {
		_, err = c.Write(make([]byte, 64<<10))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write: %v", err)
	}
	// A moved deadline does not end the stream.
	_ = c.SetDeadline(time.Time{})
	go func() { _, _ = io.Copy(io.Discard, struct{ io.Reader }{s}) }()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Errorf("write afterwards: %v", err)
	}
	woken := make(chan error, 1)
	go func() { _, err := c.Read(make([]byte, 1)); woken <- err }()
	_ = c.SetReadDeadline(time.Now().Add(time.Hour))
	_ = c.SetReadDeadline(time.Now())
	if err := <-woken; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("moved: %v", err)
	}
}

func TestWriteTo(t *testing.T) {
	x, y := join(t, Options{MTU: 1280}, Options{MTU: 1280}, nil)
	c, s := connect(t, x, y)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	go func() {
		_, _ = c.Write(sent)
		_ = c.CloseWrite()
	}()
	var got bytes.Buffer
	n, err := s.WriteTo(&got)
	if err != nil || n != int64(len(sent)) || !bytes.Equal(got.Bytes(), sent) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestEnds(t *testing.T) {
	x, y := join(t, Options{MTU: 1280}, Options{MTU: 1280}, nil)
	t.Run("abort", func(t *testing.T) {
		c, s := connect(t, x, y)
		ended := make(chan struct{})
		s.OnClose(func() { close(ended) })
		s.Abort()
		<-ended
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: %v", err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read again: %v", err)
		}
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read of the aborted end: %v", err)
		}
		_ = s.Close()
	})
	t.Run("last words", func(t *testing.T) {
		ln, err := y.Listen(80, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		c, err := x.Dial(t.Context(), netip.AddrPortFrom(right, 80))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.Write([]byte("bye"))
		_ = s.Close()
		if got, err := io.ReadAll(c); err != nil || string(got) != "bye" {
			t.Errorf("%q, %v", got, err)
		}
		for !s.Gone() {
			time.Sleep(time.Millisecond)
		}
	})
	t.Run("nobody", func(t *testing.T) {
		if _, err := x.Dial(t.Context(), netip.AddrPortFrom(right, 81)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		if _, err := x.Dial(ctx, netip.MustParseAddrPort("[fd00::99]:80")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
	t.Run("closed listener", func(t *testing.T) {
		ln, err := y.Listen(82, 1)
		if err != nil {
			t.Fatal(err)
		}
		woken := make(chan error, 1)
		go func() { _, err := ln.Accept(); woken <- err }()
		ln.Close()
		if err := <-woken; !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v", err)
		}
	})
}
