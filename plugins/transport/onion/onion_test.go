package onion

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/transport/internal/agent"
	"github.com/commucat/commucat/plugins/transport/onion/tornet"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/transport"
)

// patience bounds what needs the network.
const patience = 3 * time.Minute

// echo serves a listener until it ends.
func echo(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			echoed(c)
			c.Close()
		}()
	}
}

// echoed sends back what comes.
func echoed(c net.Conn) { _, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) }

// half opens the plugin in the test's network.
func half(t *testing.T, n *tornet.Network, env sdk.Env, more map[string]any) transport.Opened {
	t.Helper()
	var lines []any
	for _, l := range n.Torrc() {
		lines = append(lines, l)
	}
	raw := map[string]any{"torrc": lines, "stall": "15s"}
	for k, v := range more {
		raw[k] = v
	}
	o, err := transport.Open(t.Context(), Plugin(), env, raw)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return o
}

func listening(t *testing.T, o transport.Opened) *service {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ln, err := o.Listen(ctx)
	for sdk.KindOf(err) == sdk.Unavailable && ctx.Err() == nil { // on a busy machine
		t.Log(err)
		ln, err = o.Listen(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln.(*service)
}

func published(t *testing.T, s *service) {
	t.Helper()
	for until := time.Now().Add(patience); s.Health() != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not published: %v", s.Health())
		}
	}
}

func invited(t *testing.T, s *service, id string) transport.Endpoint {
	t.Helper()
	to, err := s.Invite(t.Context(), "relay.example", transport.Guest{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// talk sends a word and has it back.
func talk(c net.Conn, word string) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte(word)); err != nil {
		return err
	}
	b := make([]byte, len(word))
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if string(b) != word {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// TestOnion goes through the life of a service on a Tor network of its own.
func TestOnion(t *testing.T) {
	dir, err := os.MkdirTemp("", "tornet-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	began := time.Now()
	n, err := tornet.Start(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	t.Logf("the network is complete after %v", time.Since(began).Round(time.Millisecond))

	operator := operatorTor(t, n) // it is needed later
	env := plugintest.NewLender(t)
	server := half(t, n, env, map[string]any{"circuit_streams": 2})
	s := listening(t, server)
	if _, err := s.Invite(t.Context(), "", transport.Guest{}); sdk.KindOf(err) != sdk.Unavailable {
		t.Errorf("an address for everybody: %v", err)
	}
	friend := invited(t, s, "friend")
	accepted := make(chan transport.Facts, 16)
	go echo(noted{s, accepted})
	published(t, s)
	t.Logf("published after %v", time.Since(began).Round(time.Millisecond))

	client := half(t, n, plugintest.NewLender(t), map[string]any{"dial_limit": "3m"})
	first := dialWith(t, client, friend)
	t.Logf("dialled after %v", time.Since(began).Round(time.Millisecond))
	if err := talk(first, "hello"); err != nil {
		t.Fatal(err)
	}
	second := dialWith(t, client, friend)
	if err := talk(second, "again"); err != nil {
		t.Fatal(err)
	}
	a, b := <-accepted, <-accepted
	if a.Circuit == "" || a.Circuit != b.Circuit || !a.Hidden || a.Remote.IsValid() {
		t.Errorf("streams of one guest: %+v and %+v", a, b)
	}
	if _, ok := first.(transport.Attached).Attached().(*net.UnixConn); !ok {
		t.Errorf("the client's stream is a %T, which cannot be handed over", first)
	}

	// Another guest has another circuit, through the same tor as well.
	other := invited(t, s, "other")
	third := dialWith(t, client, other)
	if err := talk(third, "me too"); err != nil {
		t.Fatal(err)
	}
	if c := <-accepted; c.Circuit == a.Circuit {
		t.Error("two guests are one circuit")
	}

	// A stream more than one circuit may have ends that circuit, and no other's.
	for _, word := range []string{"one more", "too many"} {
		c, err := client.Dial(t.Context(), other, transport.Dial{})
		if err != nil {
			t.Log(err)
			continue
		}
		defer c.Close()
		if err := talk(c, word); err != nil {
			t.Log(err) // it may be the one that ends
		}
	}
	if _, err := io.ReadAll(third); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a circuit with too many streams goes on")
	}
	if err := talk(first, "unharmed"); err != nil {
		t.Errorf("another guest's circuit has ended: %v", err)
	}
	third = dialWith(t, client, other)
	if err := talk(third, "on a new circuit"); err != nil {
		t.Fatal(err)
	}

	// Who is revoked is out; the other one stays.
	if err := s.Revoke(t.Context(), "friend"); err != nil {
		t.Fatal(err)
	}
	_ = first.SetDeadline(time.Now().Add(patience))
	if _, err := io.ReadAll(first); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a revoked guest's stream goes on")
	}
	if err := talk(third, "still here"); err != nil {
		t.Errorf("another guest is out as well: %v", err)
	}
	if c, err := connectOnce(t, client, friend); err == nil {
		if err := talk(c, "back"); err == nil {
			t.Error("a revoked guest comes in")
		}
		c.Close()
	}

	// tor is killed: the transport says so, and comes back under the same address.
	before := s.Addr().String()
	s.mu.Lock()
	pid := s.daemon.cmd.Process.Pid
	s.mu.Unlock()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(patience); s.Health() == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("nobody noticed")
		}
	}
	published(t, s)
	t.Logf("published again after %v", time.Since(began).Round(time.Millisecond))
	if after := s.Addr().String(); after != before {
		t.Errorf("the address was %s, now it is %s", before, after)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// A new process: the same address, and guests as before. One of them has dialled
	// already, and has asked the directories in vain: it comes in by that dial.
	early := make(chan error, 1)
	go func() {
		c, err := client.Dial(t.Context(), other, transport.Dial{})
		if err == nil {
			err = talk(c, "already here")
			c.Close()
		}
		early <- err
	}()
	again := listening(t, half(t, n, env, nil))
	if after := again.Addr().String(); after != before {
		t.Errorf("after a restart the address was %s, now it is %s", before, after)
	}
	go echo(again)
	published(t, again)
	if err := <-early; err != nil {
		t.Errorf("who dialled too early does not come in: %v", err)
	}
	t.Logf("the early one came in after %v", time.Since(began).Round(time.Millisecond))
	operatorsTor(t, n, operator, client)
	t.Logf("the operator's tor served after %v", time.Since(began).Round(time.Millisecond))
	t.Run("conformance", func(t *testing.T) { few(t, n) })
	if os.Getenv("COMMUCAT_SOAK") == "" {
		return // directories are asked again after seconds here: on a slow machine tor is never locked out
	}
	if err := lockedOut(t.Context(), client, friend); err != nil {
		t.Error(err)
	}
}

// lockedOut dials as a guest who was revoked, and so cannot read the descriptor, while every
// directory is asked for it: attempts for which tor asks none make it forget that.
func lockedOut(ctx context.Context, o transport.Opened, revoked transport.Endpoint) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c := o.(*agent.Opened).Client.(*client)
	c.dir.mu.Lock()
	c.dir.again = agent.Pauses{Least: 300 * time.Millisecond, Most: 300 * time.Millisecond, Well: time.Hour}
	clear(c.dir.services)
	c.dir.mu.Unlock()
	end := make(chan struct{})
	go func() {
		defer close(end)
		if c, err := o.Dial(ctx, revoked, transport.Dial{}); err == nil {
			c.Close()
		}
	}()
	tor, err := c.tor(ctx)
	for purged := false; err == nil && !purged; time.Sleep(100 * time.Millisecond) {
		if _, err = tor.ask("HSFETCH " + strings.TrimSuffix(revoked.Host, ".onion")); ctx.Err() != nil {
			err = errors.New("tor was locked out, and never told to forget it")
		}
		c.dir.mu.Lock()
		purged = !c.dir.purged.last.IsZero()
		c.dir.mu.Unlock()
	}
	for again := false; err == nil && !again; time.Sleep(20 * time.Millisecond) {
		c.dir.mu.Lock()
		again = c.dir.services[strings.TrimSuffix(revoked.Host, ".onion")].asked
		c.dir.mu.Unlock()
		if ctx.Err() != nil {
			err = errors.New("tor does not ask directories again")
		}
	}
	cancel()
	<-end
	return err
}

// operatorTor starts a tor that is not ours.
func operatorTor(t *testing.T, n *tornet.Network) *tornet.Tor {
	t.Helper()
	tor, err := n.Run("operator", "SocksPort 0", "ClientOnly 1", "CookieAuthentication 1", "ControlPort auto", "ControlPortWriteToFile "+n.Path("operator-control"))
	if err != nil {
		t.Fatal(err)
	}
	return tor
}

// The operator's tor, by its control socket: no tor of ours, the same guests.
func operatorsTor(t *testing.T, n *tornet.Network, tor *tornet.Tor, client transport.Opened) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := tor.Bootstrap(ctx); err != nil {
		t.Fatalf("%v\n%s", err, tor.Log())
	}
	b, err := os.ReadFile(n.Path("operator-control"))
	if err != nil {
		t.Fatal(err)
	}
	at := strings.TrimPrefix(strings.TrimSpace(string(b)), "PORT=")
	env := plugintest.NewLender(t)
	open := func() *service {
		o, err := transport.Open(t.Context(), Plugin(), env, map[string]any{"control": at})
		if err != nil {
			t.Fatal(err)
		}
		return listening(t, o)
	}
	s := open()
	friend := invited(t, s, "friend")
	go echo(s)
	published(t, s)
	first := dialWith(t, client, friend)
	if err := talk(first, "by the operator's tor"); err != nil {
		t.Fatal(err)
	}
	// A new guest needs a new service; streams that stand go on.
	if err := talk(dialWith(t, client, invited(t, s, "other")), "me too"); err != nil {
		t.Error(err)
	}
	if err := talk(first, "still here"); err != nil {
		t.Error(err)
	}
	if err := s.Revoke(t.Context(), "friend"); err != nil {
		t.Error(err)
	}
	if c, err := connectOnce(t, client, friend); err == nil {
		if err := talk(c, "back"); err == nil {
			t.Error("a revoked guest comes in")
		}
		c.Close()
	}
	before := s.Addr().String()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if after := open().Addr().String(); after != before {
		t.Errorf("the address was %s, now it is %s", before, after)
	}
}

// dialWith dials, and once more on a machine that is too busy for the first.
func dialWith(t *testing.T, o transport.Opened, to transport.Endpoint) net.Conn {
	t.Helper()
	for last := false; ; last = true {
		c, err := o.Dial(t.Context(), to, transport.Dial{})
		if err == nil {
			t.Cleanup(func() { c.Close() })
			return c
		}
		if last {
			t.Fatal(err)
		}
		t.Log(err)
	}
}

// connectOnce is one dial with little time.
func connectOnce(t *testing.T, o transport.Opened, to transport.Endpoint) (net.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	return o.Dial(ctx, to, transport.Dial{})
}

// noted tells of what is accepted.
type noted struct {
	net.Listener
	told chan<- transport.Facts
}

func (n noted) Accept() (net.Conn, error) {
	c, err := n.Listener.Accept()
	if err == nil {
		n.told <- transport.FactsOf(c)
	}
	return c, err
}
