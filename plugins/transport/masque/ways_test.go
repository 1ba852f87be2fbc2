package masque

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// nat forwards UDP to a server from a socket of its own, and can change that socket.
type nat struct {
	in  *net.UDPConn
	to  *net.UDPAddr
	mu  sync.Mutex
	out *net.UDPConn
	// client is whom answers go to.
	client  atomic.Pointer[net.UDPAddr]
	blocked atomic.Bool // nothing passes
	first   atomic.Pointer[[]byte]
}

func newNAT(t *testing.T, to net.Addr) *nat {
	t.Helper()
	in, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	n := &nat{in: in, to: to.(*net.UDPAddr)}
	n.rebind(t)
	var group sync.WaitGroup
	group.Go(func() {
		buf := make([]byte, 2000)
		for {
			k, from, err := in.ReadFromUDP(buf)
			if err != nil {
				return
			}
			n.client.Store(from)
			if n.first.Load() == nil {
				b := bytes.Clone(buf[:k])
				n.first.Store(&b)
			}
			if n.blocked.Load() {
				continue
			}
			n.mu.Lock()
			out := n.out
			n.mu.Unlock()
			_, _ = out.Write(buf[:k])
		}
	})
	t.Cleanup(func() {
		_ = in.Close()
		n.mu.Lock()
		_ = n.out.Close()
		n.mu.Unlock()
		group.Wait()
	})
	return n
}

// lead changes where the packets go.
func (n *nat) lead(t *testing.T, to net.Addr) {
	t.Helper()
	n.to = to.(*net.UDPAddr)
	n.rebind(t)
}

// rebind gives the client another address, as the server sees it; the old one is gone.
func (n *nat) rebind(t *testing.T) {
	t.Helper()
	out, err := net.DialUDP("udp", nil, n.to)
	if err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	old := n.out
	n.out = out
	n.mu.Unlock()
	if old != nil {
		_ = old.Close()
	}
	go func() {
		buf := make([]byte, 2000)
		for {
			k, err := out.Read(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if c := n.client.Load(); err == nil && c != nil && !n.blocked.Load() {
				_, _ = n.in.WriteToUDP(buf[:k], c)
			}
		}
	}()
}

// TestMigration: a client whose address changes in mid-stream goes on, several times.
func TestMigration(t *testing.T) {
	served := make(chan net.Conn, 1)
	r := start(t, nil, func(c net.Conn) {
		served <- c
		echo(c)
	})
	n := newNAT(t, r.server.Addr())
	e := r.endpoint(t, "phone")
	e.Port, e.Params[paramTCP] = transport.AddrPort(n.in.LocalAddr()).Port(), ""
	c, err := dialled(t, opened(t, nil), e, transport.Dial{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	s := <-served
	for i := range 3 {
		if err := works(c, "message "+strconv.Itoa(i)); err != nil {
			t.Fatalf("after %d moves: %v", i, err)
		}
		// The server follows once the new path is validated.
		for end := time.Now().Add(5 * time.Second); seen[s.RemoteAddr().String()] && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
		if seen[s.RemoteAddr().String()] {
			t.Errorf("the server still sends to %v", s.RemoteAddr())
		}
		seen[s.RemoteAddr().String()] = true
		n.rebind(t)
	}
	if err := works(c, "the last message"); err != nil {
		t.Error(err)
	}
}

// TestBlockedQUIC: where no UDP comes through, the same endpoint works over TCP.
func TestBlockedQUIC(t *testing.T) {
	r := start(t, nil, echo)
	// TCP passes, UDP to the same port number is swallowed.
	var front net.Listener
	var hole *net.UDPConn
	for range bindTries {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		hole, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: ln.Addr().(*net.TCPAddr).Port})
		if err == nil {
			front = ln
			break
		}
		_ = ln.Close()
	}
	if front == nil {
		t.Fatal("no port is free for both")
	}
	defer hole.Close()
	defer front.Close()
	e := r.endpoint(t, "guest")
	inside := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(e.Port)))
	e.Port = uint16(front.Addr().(*net.TCPAddr).Port)
	with := transport.Dial{DialTCP: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, inside)
	}}
	began := time.Now()
	c, err := dialled(t, opened(t, nil), e, with)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("over %T after %v", c, time.Since(began))
	if _, ok := c.(*h2Client); !ok {
		t.Errorf("%T", c)
	}
	if err := works(c, "hello"); err != nil {
		t.Error(err)
	}
}

// TestBlockedInTheMiddle: a connection that has become silent is given up once TCP
// answers, and the next dial comes over TCP; while nothing answers, it is kept.
func TestBlockedInTheMiddle(t *testing.T) {
	r := start(t, nil, echo)
	n := newNAT(t, r.server.Addr())
	e := r.endpoint(t, "guest")
	inside := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(e.Port)))
	e.Port = transport.AddrPort(n.in.LocalAddr()).Port()
	var away atomic.Bool
	asked := make(chan struct{}, 100)
	with := transport.Dial{DialTCP: func(ctx context.Context, network, _ string) (net.Conn, error) {
		asked <- struct{}{}
		if away.Load() {
			return nil, syscall.ENETUNREACH
		}
		return new(net.Dialer).DialContext(ctx, network, inside)
	}}
	c, err := dialled(t, opened(t, map[string]any{"fallback": "10s"}), e, with)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := c.(*streamConn); !ok {
		t.Fatalf("%T", c)
	}
	if err := works(c, "before"); err != nil {
		t.Fatal(err)
	}
	// The network is away, and comes back.
	away.Store(true)
	n.blocked.Store(true)
	over := make(chan error, 1)
	go func() { over <- works(c, "meanwhile") }()
	<-asked
	n.blocked.Store(false)
	if err := <-over; err != nil {
		t.Fatalf("a gap ended the connection: %v", err)
	}
	// UDP alone is blocked.
	away.Store(false)
	n.blocked.Store(true)
	began := time.Now()
	if _, err := c.Write([]byte("lost")); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(began.Add(time.Minute))
	if _, err := c.Read(make([]byte, 9)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) || err == io.EOF {
		t.Fatalf("after %v: %v", time.Since(began), err)
	}
	noticed := time.Since(began)
	c, err = dialled(t, opened(t, nil), e, with)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("noticed after %v, over %T after %v", noticed, c, time.Since(began))
	if _, ok := c.(*h2Client); !ok {
		t.Errorf("%T", c)
	}
	if err := works(c, "hello"); err != nil {
		t.Error(err)
	}
}

// TestHeldBack: a peer that does not read is not taken for one that is gone.
func TestHeldBack(t *testing.T) {
	read := make(chan struct{})
	got := make(chan int64, 1)
	r := start(t, nil, func(c net.Conn) {
		<-read
		n, _ := io.Copy(io.Discard, struct{ io.Reader }{c})
		got <- n
	})
	c, err := dialled(t, opened(t, nil), r.endpoint(t, "guest"), transport.Dial{})
	if err != nil {
		t.Fatal(err)
	}
	var sent int64
	for end := time.Now().Add(3 * silenceLeast); time.Now().Before(end); {
		_ = c.SetWriteDeadline(time.Now().Add(silenceLeast / 3))
		n, err := c.Write(make([]byte, 1<<20))
		sent += int64(n)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
	close(read)
	_ = c.SetWriteDeadline(time.Time{})
	c.(*streamConn).torn = false // every byte that was taken counts
	if err := c.(transport.CloseWriter).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n := <-got; n != sent || sent == 0 {
		t.Errorf("%d bytes arrived of %d", n, sent)
	}
}

// TestThroughProxy: another relay of ours as the proxy; it forwards to targets of its
// list alone, and its own access is a bearer token.
func TestThroughProxy(t *testing.T) {
	loopback := func(ctx context.Context, host string, port uint16) (*net.UDPConn, error) {
		return dialAllowed(ctx, host, port, netip.Addr.IsLoopback)
	}
	r := start(t, map[string]any{"chained": "127.0.0.1:0"}, func(c net.Conn) {
		if !transport.FactsOf(c).Hidden {
			t.Error("a chained client's address is shown as its own")
		}
		echo(c)
	})
	e := r.endpoint(t, "guest")
	for _, c := range []struct {
		name    string
		targets []string
		dial    udpDialer
		bearer  string // added to the token
		refusal string // "" for none
	}{
		{"on the list", []string{"127.0.0.1:*"}, loopback, "", ""},
		{"not on the list", []string{"127.0.0.2:*"}, loopback, "", "403 \"127.0.0.1\";error=http_request_denied"},
		{"not public", []string{"127.0.0.1:*"}, dialPublic, "", "403 \"127.0.0.1\";error=destination_ip_prohibited"},
		{"off", nil, loopback, "", "403 \"127.0.0.1\";error=http_request_denied"},
		{"a stranger of the proxy", []string{"127.0.0.1:*"}, loopback, "A", "405"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var cfg Config
			sdk.Defaults(&cfg)
			cfg.Listen, cfg.Bearer, cfg.Targets = "127.0.0.1:0", true, c.targets
			proxy, err := newServer(t.Context(), sdk.NewEnv(sdk.EnvOptions{State: t.TempDir(), Cover: page}), cfg, serverOptions{now: time.Now, dialUDP: c.dial})
			if err != nil {
				t.Fatal(err)
			}
			defer proxy.Close()
			token, err := proxy.secrets.bearerToken(grant{guest: "proxy user"})
			if err != nil {
				t.Fatal(err)
			}
			at := transport.AddrPort(proxy.Addr())
			var told atomic.Bool
			conn, err := dialled(t, opened(t, map[string]any{
				"proxy":     "https://" + at.String() + udpPath + "{target_host}/{target_port}/",
				"proxy_pin": encode(proxy.pin[:]), "proxy_authorization": "Bearer " + token + c.bearer,
			}), e, transport.Dial{ServerTime: func(time.Time) { told.Store(true) }})
			if err == nil {
				err = works(conn, "through")
			}
			switch {
			case c.refusal == "":
				if err != nil {
					t.Error(err)
				}
			case err == nil || !strings.Contains(err.Error(), "it answered "+c.refusal):
				t.Errorf("%v", err)
			case errors.Is(err, transport.ErrRefused):
				t.Errorf("%v is taken for the relay's refusal", err)
			case told.Load():
				t.Error("the proxy's clock is taken for the relay's")
			}
			if conn != nil {
				_ = conn.Close()
			}
		})
	}
}
