package reality

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/transport"
)

// wire keeps what passes through a client's socket.
type wire struct {
	*net.TCPConn
	mu      sync.Mutex
	in, out bytes.Buffer
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.TCPConn.Read(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.in.Write(p[:n])
	return n, err
}

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	w.out.Write(p)
	w.mu.Unlock()
	return w.TCPConn.Write(p)
}

// lengths are those of the records so far, either way.
func (w *wire) lengths() (in, out []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	in, _ = recordLengths(w.in.Bytes())
	out, _ = recordLengths(w.out.Bytes())
	return in, out
}

// dialWire is dialRig with the wire under it.
func dialWire(t *testing.T, r *rig) (net.Conn, *wire) {
	t.Helper()
	var w *wire
	c, err := (&dialer{now: r.now}).dial(t.Context(), r.endpoint(), transport.Dial{
		Roots: testAuthority().roots, DialTCP: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			w = &wire{TCPConn: c.(*net.TCPConn)}
			return w, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, w
}

// TestRecordLengths: a client cuts its records as browsers do, a server as its cover does:
// Go begins with one packet's worth and grows, others fill records from the first.
func TestRecordLengths(t *testing.T) {
	const full = recordHeader + maxPlain + 1 + 16
	for name, cover := range covers(t) {
		r := startServer(t, baseConfig(t, cover))
		c, w := dialWire(t, r)
		s, err := r.ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		seen, sent := w.lengths()
		body := make([]byte, 2*maxPlain)
		wrote := make(chan error, 2)
		go func() { _, err := c.Write(body); wrote <- err }()
		if _, err := io.ReadFull(s, body); err != nil {
			t.Fatal(err)
		}
		go func() { _, err := s.Write(body); wrote <- err }()
		if _, err := io.ReadFull(c, body); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := <-wrote; err != nil {
				t.Fatal(err)
			}
		}
		in, out := w.lengths()
		if got := out[len(sent):]; !slices.Equal(got, []int{full, full}) {
			t.Errorf("%s: the client's records are %d", name, got)
		}
		in = slices.DeleteFunc(in[len(seen):], func(n int) bool { return n < 600 }) // what follows the handshake
		if grows := len(in) > 2 && in[0] < 1300; grows != (name != "nginx") {
			t.Errorf("%s: the server's records are %d", name, in)
		}
	}
}

// TestNoAddresses: no log, at no level, has a client's or a stranger's address.
func TestNoAddresses(t *testing.T) {
	r := newRig(t, baseConfig(t, coverSelf))
	var log lockedBuffer
	r.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	r.start()
	r.awaitHealth(nil)
	r.echoAll()
	p, err := parseParams(r.endpoint(), "")
	if err != nil {
		t.Fatal(err)
	}
	var ports []string
	for _, first := range [][]byte{[]byte("GET / HTTP/1.1\r\n\r\n"), (shape{params: p, profile: "chrome", now: time.Now()}).record(t), capture(t, r)} {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, c.LocalAddr().String())
		_, _ = c.Write(first)
		_ = transport.CloseWrite(c)
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	}
	if err := r.ln.Close(); err != nil {
		t.Fatal(err)
	}
	for _, addr := range ports {
		if strings.Contains(log.String(), addr) {
			t.Errorf("%s is in the log:\n%s", addr, log.String())
		}
	}
	if !strings.Contains(log.String(), "client was left to the cover") {
		t.Errorf("the withheld hello is not in the log:\n%s", log.String())
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
