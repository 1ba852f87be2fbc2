package interop

import (
	"bytes"
	"crypto/rand"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
)

const (
	// Each burst is more than a receiver can open before its queue is long; between
	// two of them it may work.
	burst      = 1500
	burstEvery = 100 * time.Millisecond
)

// Flood sends initiations of strangers who know a public key, so that its owner is
// under load, until the test ends or stop is called.
func Flood(t testing.TB, to string, wire *obfs.Params, server [32]byte) (stop func()) {
	t.Helper()
	c, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	mac := obfs.NewMAC(obfs.MAC1Key(server))
	for range burst {
		msg := make([]byte, obfs.InitiationSize)
		_, _ = rand.Read(msg)
		obfs.SetType(msg, wire.Type[obfs.Initiation].Pick())
		mac.Sign(msg)
		all = append(all, wire.Handshake(obfs.Initiation, msg))
	}
	over := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(burstEvery)
		defer tick.Stop()
		for {
			for _, d := range all {
				_, _ = c.Write(d) // what does not fit is lost
			}
			select {
			case <-over:
				return
			case <-tick.C:
			}
		}
	})
	stop = sync.OnceFunc(func() {
		close(over)
		running.Wait()
		c.Close()
	})
	t.Cleanup(stop)
	return stop
}

// Tap carries the datagrams of one client and keeps them.
type Tap struct {
	front, back *net.UDPConn

	mu     sync.Mutex
	client netip.AddrPort
	seen   []seen
}

type seen struct {
	up bool
	d  []byte
}

// NewTap carries to an address.
func NewTap(t testing.TB, to string) *Tap {
	t.Helper()
	front, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	back, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	p := &Tap{front: front.(*net.UDPConn), back: back.(*net.UDPConn)}
	var running sync.WaitGroup
	running.Go(func() { p.carry(true) })
	running.Go(func() { p.carry(false) })
	t.Cleanup(func() {
		front.Close()
		back.Close()
		running.Wait()
	})
	return p
}

// Addr is where the client sends.
func (p *Tap) Addr() netip.AddrPort { return p.front.LocalAddr().(*net.UDPAddr).AddrPort() }

func (p *Tap) carry(up bool) {
	buf := make([]byte, 65536)
	for {
		var n int
		var from netip.AddrPort
		var err error
		if up {
			n, from, err = p.front.ReadFromUDPAddrPort(buf)
		} else {
			n, err = p.back.Read(buf)
		}
		if err != nil {
			return
		}
		p.mu.Lock()
		p.seen = append(p.seen, seen{up, bytes.Clone(buf[:n])})
		if up {
			p.client = from
		}
		to := p.client
		p.mu.Unlock()
		if up {
			_, _ = p.back.Write(buf[:n])
		} else {
			_, _ = p.front.WriteToUDPAddrPort(buf[:n], to)
		}
	}
}

// Cookies counts the cookie replies to the client, and the client's initiations that
// show a cookie.
func (p *Tap) Cookies(wire *obfs.Params) (replies, shown int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.seen {
		d := bytes.Clone(s.d)
		sight := wire.Look(d, obfs.Initiation)
		switch {
		case !s.up && sight.Kind == obfs.Cookie:
			replies++
		case s.up && sight.Kind == obfs.Initiation && obfs.HasCookie(wire.Message(d, sight)):
			shown++
		}
	}
	return replies, shown
}

// Unlike tests that nothing that one side sent has a length or a beginning of
// WireGuard's. A release draws junk of any length, those of WireGuard's too: up is the
// side that is ours.
func (p *Tap) Unlike(t testing.TB, up bool) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.seen {
		if s.up != up {
			continue
		}
		if n := len(s.d); n == 148 || n == 92 || n == 64 || n >= 4 && s.d[0] >= 1 && s.d[0] <= 4 && s.d[1] == 0 && s.d[2] == 0 && s.d[3] == 0 {
			t.Errorf("%d bytes % x (by the client: %v)", n, s.d[:min(n, 4)], s.up)
		}
	}
}

// Cookies has a release connect to the transport while it is flooded, and the other
// way round: the one under load asks for a cookie, and the other one shows it.
func Cookies(t *testing.T, make Maker, generation obfs.Generation) {
	for name, once := range map[string]func(t *testing.T) (*Tap, *obfs.Params){
		"it dials": func(t *testing.T) (*Tap, *obfs.Params) {
			f, e := ExportTo(t, Relay(t, map[string]any{"generation": string(generation)}))
			stop := Flood(t, f.Endpoint, e.Wire, e.Server)
			tap := NewTap(t, f.Endpoint)
			f.Endpoint = tap.Addr().String()
			p := Start(t, make, f.Address.Addr(), f.Client())
			p.Dial(t, f)
			stop()
			// Another stream: the first one takes what its handshake has waited for
			// the tunnel for the time of a round trip, and repeats nothing for long.
			Echo(t, p.Dial(t, f))
			return tap, e.Wire
		},
		"it is dialled": func(t *testing.T) (*Tap, *obfs.Params) {
			wire := obfs.Draw(generation)
			p, e, key := Serve(t, make, wire)
			at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), p.Port).String()
			stop := Flood(t, at, wire, e.Server)
			tap := NewTap(t, at)
			e.Ports[0] = tap.Addr().Port()
			c := Dial(t, e.Transport(), key)
			stop()
			Echo(t, c)
			return tap, wire
		},
	} {
		t.Run(name, func(t *testing.T) {
			// It may come between two bursts.
			for range 20 {
				tap, wire := once(t)
				replies, shown := tap.Cookies(wire)
				tap.Unlike(t, name == "it is dialled")
				t.Logf("%d cookie replies, %d initiations with a cookie", replies, shown)
				if replies > 0 && shown > 0 || t.Failed() {
					return
				}
			}
			t.Error("no cookie was asked for and shown")
		})
	}
}
