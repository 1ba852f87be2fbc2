// Package proxy is a TCP line that a test can cut and slow down: it stands between a
// plugin and the real server.
package proxy

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Proxy carries connections to one server until the test ends.
type Proxy struct {
	ln     net.Listener
	target string
	delay  atomic.Int64 // ns, of each piece on its way to the server
	group  sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

// piece is how much is carried at once.
const piece = 32 << 10

// Start listens on a free loopback port and carries what comes to target, host:port.
func Start(t testing.TB, target string) *Proxy {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{ln: ln, target: target, conns: map[net.Conn]struct{}{}}
	p.group.Go(p.accept)
	t.Cleanup(func() {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		_ = ln.Close()
		p.Cut()
		p.group.Wait()
	})
	return p
}

// Address is where the line begins.
func (p *Proxy) Address() string { return p.ln.Addr().String() }

// Cut ends all connections; new ones are carried again.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close() // both copiers notice
	}
}

// Slow makes every piece on its way to the server wait for d; 0 is the line itself.
func (p *Proxy) Slow(d time.Duration) { p.delay.Store(int64(d)) }

func (p *Proxy) accept() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.group.Go(func() { p.carry(c) })
	}
}

// keep remembers a connection for Cut; false: there are to be none any more.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Proxy) forget(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	_ = c.Close() // it may have been cut
}

func (p *Proxy) carry(client net.Conn) {
	defer p.forget(client)
	server, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.target)
	if err != nil {
		return
	}
	defer p.forget(server)
	if !p.keep(client) || !p.keep(server) {
		return
	}
	ended := make(chan struct{}, 2)
	one := func(to, from net.Conn, delay *atomic.Int64) {
		b := make([]byte, piece)
		for {
			n, err := from.Read(b)
			if delay != nil {
				time.Sleep(time.Duration(delay.Load())) // this is what the line is for
			}
			if n > 0 {
				if _, err := to.Write(b[:n]); err != nil {
					break
				}
			}
			if err != nil {
				break
			}
		}
		ended <- struct{}{}
	}
	p.group.Go(func() { one(server, client, &p.delay) })
	p.group.Go(func() { one(client, server, nil) })
	<-ended
}
