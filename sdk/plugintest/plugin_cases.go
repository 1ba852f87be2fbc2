package plugintest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

func pluginDescription(t T, k *pluginKit) {
	p, _ := k.half(t)
	d := transport.DescriptorOf(p)
	if p.Kind() != sdk.Transport || d.Name != p.Name() || d.Version != p.Version() || d.Summary != p.Summary() {
		t.Errorf("kind %d, %q and %q, %q and %q", p.Kind(), p.Name(), d.Name, p.Version(), d.Version)
	}
	if n := p.Name(); n == "" || len(n) > 32 || strings.Trim(n, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		t.Errorf("name %q: want 1 to 32 of a-z 0-9 -", n)
	}
	if p.Version() == "" || p.Summary() == "" || strings.Contains(p.Summary(), "\n") {
		t.Errorf("version %q, summary %q", p.Version(), p.Summary())
	}
	documented(t, "", sdk.Fields(p.Config()))
}

func documented(t testing.TB, at string, fields []sdk.Field) {
	t.Helper()
	for _, f := range fields {
		if f.Doc == "" && f.Type != "table" {
			t.Errorf("configuration key %s%s has no doc", at, f.Name)
		}
		documented(t, at+f.Name+".", f.Fields)
	}
}

func pluginUnknownKey(t T, k *pluginKit) {
	p, _ := k.half(t)
	raw := k.config(t, false)
	raw["no-such-key"] = sdk.Located{Value: true, Key: sdk.Position{File: "relay.toml", Line: 7, Column: 3}}
	o, err := transport.Open(t.Context(), p, k.lender(t), raw)
	if err == nil {
		_ = o.Close()
	}
	var mistakes sdk.ConfigErrors
	if !errors.As(err, &mistakes) || len(mistakes) != 1 || mistakes[0].Key != "no-such-key" || mistakes[0].Pos.String() != "relay.toml:7:3" {
		t.Errorf("%v", err)
	}
}

// counting counts the records of a log.
type counting struct {
	slog.Handler
	n *atomic.Int64
}

func (c counting) Handle(ctx context.Context, r slog.Record) error {
	c.n.Add(1)
	return c.Handler.Handle(ctx, r)
}

func (c counting) WithAttrs(a []slog.Attr) slog.Handler {
	return counting{c.Handler.WithAttrs(a), c.n}
}

// strangers opens raw connections to a listener, or sends datagrams, and gives what
// is open.
func strangers(t testing.TB, at net.Addr, n int, say func(i int) []byte) []net.Conn {
	t.Helper()
	to := transport.AddrPort(at)
	if !to.IsValid() {
		t.Skip("the listener has no address of its own")
	}
	network := "tcp"
	if strings.HasPrefix(at.Network(), "udp") {
		network = "udp"
	}
	var out []net.Conn
	for i := range n {
		c, err := net.DialTimeout(network, net.JoinHostPort("127.0.0.1", fmt.Sprint(to.Port())), patience)
		if err != nil {
			t.Fatalf("stranger %d: %v", i, err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = c.Write(say(i))
		out = append(out, c)
	}
	return out
}

// tlsHello is the beginning of a TLS ClientHello that never goes on.
var tlsHello = []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")

// Strangers send rubbish: the log says little, and a client comes through.
func pluginJunk(t T, k *pluginKit) {
	env := k.lender(t)
	var lines atomic.Int64
	env.Logger = slog.New(counting{env.Logger.Handler(), &lines})
	j := k.join(t, env, echo)
	const n = 200
	for i, c := range strangers(t, j.ln.Addr(), n, func(i int) []byte {
		switch i % 4 {
		case 0:
			return tlsHello
		case 1:
			return []byte("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
		case 2:
			return make([]byte, 1400)
		}
		return []byte(strings.Repeat("\xff\x00junk", 200))
	}) {
		if i%2 == 0 {
			c.Close()
		}
	}
	check := dialOne(t, j.guest.dial)
	if err := roundTrip(check, 1000); err != nil {
		t.Errorf("after the junk: %v", err)
	}
	if l := lines.Load(); l > n/2 {
		t.Errorf("%d lines of log for %d strangers", l, n)
	}
}

// Strangers begin and say no more: a client does not wait for them.
func pluginHeld(t T, k *pluginKit) {
	j := k.join(t, k.lender(t), echo)
	strangers(t, j.ln.Addr(), 100, func(i int) []byte { return tlsHello[:i%len(tlsHello)] })
	began := time.Now()
	if err := roundTrip(dialOne(t, j.guest.dial), 100); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > patience {
		t.Errorf("a client waited %v for strangers", took)
	}
}

func pluginProbe(t T, k *pluginKit) {
	p, _ := k.half(t)
	env := k.lender(t)
	o := k.open(t, p, env, false)
	probe := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return o.Probe(ctx)
	}
	ln := listen(t, o)
	serve(ln, true, echo)
	warm(t, env)
	if err := probe(); err != nil && !errors.Is(err, sdk.Unsupported) {
		t.Errorf("while it listens: %v", err)
	}
	if !k.o.Probes {
		return
	}
	_ = ln.Close()
	if err := probe(); err == nil {
		t.Error("no complaint while nothing listens")
	}
}

// A second instance takes the sockets over while clients come: none is refused.
func pluginHandOver(t T, k *pluginKit) {
	env := k.lender(t)
	j := k.join(t, env, echo)
	if !strings.HasPrefix(j.ln.Addr().Network(), "tcp") {
		t.Skip("two readers of one packet socket would take each other's packets")
	}
	stop, failed := make(chan struct{}), make(chan error, 4)
	var served atomic.Int64
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				c, err := j.guest.dial(ctx)
				cancel()
				if err == nil {
					err = roundTrip(c, 10)
					c.Close()
				}
				if err != nil {
					failed <- err
					return
				}
				served.Add(1)
			}
		})
	}
	wait := func(n int64) {
		for until := time.Now().Add(patience); served.Load() < n && time.Now().Before(until); {
			time.Sleep(5 * time.Millisecond)
		}
	}
	wait(20)
	before := served.Load()
	p, process := k.half(t)
	next := k.open(t, p, env, false)
	ln := listen(t, next)
	serve(ln, process == nil, echo)
	if j.server != nil {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := j.server.Drain(ctx); err != nil {
			t.Errorf("drain of the first: %v", err)
		}
	} else if err := j.ln.Close(); err != nil {
		t.Errorf("close of the first: %v", err)
	}
	wait(before + 100)
	close(stop)
	group.Wait()
	select {
	case err := <-failed:
		t.Errorf("a client was lost: %v", err)
	default:
	}
	t.Logf("%d clients", served.Load())
}

// Who is revoked is out within a second; others stay.
func pluginRevoked(t T, k *pluginKit) {
	j := k.join(t, k.lender(t), echo)
	s, ok := j.ln.(transport.Server)
	if !ok || k.o.Endpoint != nil {
		t.Skip("it makes no invitations")
	}
	other := k.invite(t, j.ln, j.guest.half, "another")
	out, in := dialOne(t, j.guest.dial), dialOne(t, other.dial)
	for _, c := range []net.Conn{out, in} {
		if err := roundTrip(c, 10); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Revoke(t.Context(), "nobody"); err != nil {
		t.Errorf("an unknown guest: %v", err)
	}
	if err := s.Revoke(t.Context(), j.guest.id); err != nil {
		t.Fatal(err)
	}
	_ = out.SetDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(out, make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a revoked guest stays: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if c, err := j.guest.dial(ctx); err == nil {
		if err := roundTrip(c, 10); err == nil {
			t.Error("a revoked guest comes in")
		}
		c.Close()
	}
	if err := roundTrip(in, 10); err != nil {
		t.Errorf("another guest is out as well: %v", err)
	}
}
