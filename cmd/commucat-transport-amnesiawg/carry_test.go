package main

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/http2"
)

// Everything that a relay makes of the transport: sessions, their resumption when
// the process is killed, roaming, revocation.
func TestRelay(t *testing.T) {
	r := newRelay(t)
	l, _ := r.invite(t)
	road := newRoad(t)
	alice := newDevice(t, l, dialer(t, nil, road.take))
	bob := newDevice(t, l, http2.NewDialer())
	bob.event(t, "connected")
	if e := alice.event(t, "connected"); e.Transport != "amnesiawg" {
		t.Fatalf("connected by %s", e.Transport)
	}
	alice.says(t, bob, "hello")
	bob.says(t, alice, "hello yourself")

	t.Run("probe", func(t *testing.T) {
		if err := r.api.ProbeTransport(t.Context(), "amnesiawg"); err != nil {
			t.Error(err)
		}
	})

	t.Run("killed", func(t *testing.T) {
		pid, _ := r.process(t)
		began := time.Now()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		e := alice.event(t, "connected")
		t.Logf("a session again after %v", time.Since(began).Round(time.Millisecond))
		if !e.Resumed || e.Transport != "amnesiawg" {
			t.Errorf("connected again by %s, resumed %v", e.Transport, e.Resumed)
		}
		if now, running := r.process(t); now == pid || !running {
			t.Errorf("process %d, running %v", now, running)
		}
		alice.says(t, bob, "after the kill")
		bob.says(t, alice, "as before")
	})

	t.Run("roaming", func(t *testing.T) {
		road.move(t, "127.0.0.2:0")
		for range 3 {
			alice.says(t, bob, "from elsewhere")
			bob.says(t, alice, "to elsewhere")
		}
		for {
			select {
			case e := <-alice.events:
				if e.Name == "disconnected" || e.Name == "connected" {
					t.Errorf("%s: %v", e.Name, e.Err)
				}
				continue
			default:
			}
			break
		}
	})

	t.Run("link revoked", func(t *testing.T) {
		l, id := r.invite(t)
		carol := newDevice(t, l, dialer(t, nil, nil))
		carol.event(t, "connected")
		began := time.Now()
		if err := r.api.RevokeLink(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		carol.event(t, "disconnected")
		t.Logf("cut after %v", time.Since(began).Round(time.Millisecond))
		if e := carol.event(t, "waiting"); !strings.Contains(e.Err.Error(), "key: ") {
			// The first try may still see the end of the old stream.
			if e = carol.event(t, "waiting"); !strings.Contains(e.Err.Error(), "key: ") {
				t.Errorf("it says %v", e.Err)
			}
		}
	})

	t.Run("device revoked", func(t *testing.T) {
		dave := newDevice(t, l, dialer(t, nil, nil))
		dave.event(t, "connected")
		began := time.Now()
		u, err := r.api.User(t.Context(), dave.Profile().Handle)
		if err != nil || len(u.Devices) != 1 {
			t.Fatalf("%+v, %v", u, err)
		}
		if err := r.api.RevokeDevice(t.Context(), u.Devices[0].ID); err != nil {
			t.Fatal(err)
		}
		dave.event(t, "disconnected")
		t.Logf("cut after %v", time.Since(began).Round(time.Millisecond))
	})
}

// The client says what is wrong with the way, and takes another one.
func TestFallback(t *testing.T) {
	r := newRelay(t)
	l, _ := r.invite(t)
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	for name, tt := range map[string]struct {
		says   string
		change func(*transport.Endpoint)
	}{
		"wrong key": {"key: ", func(e *transport.Endpoint) { e.Params["s"] = strings.Repeat("A", 42) + "E" }},
		"wrong parameters": {"parameters: ", func(e *transport.Endpoint) {
			e.Params["w"] = "AQAGRYAGXTRTG8q16y2Qr7g--ORICY-yqyne_h1PlrTkKofXUGaYv99N"
		}},
		"blocked UDP": {"udp: no answer", func(e *transport.Endpoint) { e.Port = portOf(silent) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			both := newDevice(t, l, dialer(t, nil, tt.change), http2.NewDialer())
			if e := both.event(t, "connected"); e.Transport != http2.Name {
				t.Errorf("connected by %s", e.Transport)
			}
			alone := newDevice(t, l, dialer(t, nil, tt.change))
			began := time.Now()
			e := alone.event(t, "waiting")
			t.Logf("after %v: %v", time.Since(began).Round(time.Millisecond), e.Err)
			if !strings.Contains(e.Err.Error(), tt.says) {
				t.Errorf("it says %v", e.Err)
			}
		})
	}
}

func portOf(c net.PacketConn) uint16 { return c.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

// road carries a client's datagrams and can change the address that they come from.
type road struct {
	front *net.UDPConn

	mu     sync.Mutex
	back   *net.UDPConn
	relay  netip.AddrPort
	client netip.AddrPort
}

func newRoad(t *testing.T) *road {
	t.Helper()
	r := &road{front: udp(t, "127.0.0.1:0"), back: udp(t, "127.0.0.1:0")}
	var running sync.WaitGroup
	running.Go(r.up)
	running.Go(r.down)
	t.Cleanup(func() {
		r.front.Close()
		r.mu.Lock()
		r.back.Close()
		r.mu.Unlock()
		running.Wait()
	})
	return r
}

func udp(t *testing.T, at string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenPacket("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.UDPConn)
}

// take has an endpoint reached by the road.
func (r *road) take(e *transport.Endpoint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.relay = netip.AddrPortFrom(netip.MustParseAddr(e.Host), e.Port)
	e.Port = portOf(r.front)
}

// move has the client come from another address from now on.
func (r *road) move(t *testing.T, to string) {
	next := udp(t, to)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.back.Close()
	r.back = next
}

func (r *road) up() {
	buf := make([]byte, 65536)
	for {
		n, from, err := r.front.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		r.mu.Lock()
		r.client = from
		back, relay := r.back, r.relay
		r.mu.Unlock()
		_, _ = back.WriteToUDPAddrPort(buf[:n], relay) // datagrams may be lost
	}
}

func (r *road) down() {
	buf := make([]byte, 65536)
	for {
		r.mu.Lock()
		back := r.back
		r.mu.Unlock()
		n, err := back.Read(buf)
		r.mu.Lock()
		moved, client := back != r.back, r.client
		r.mu.Unlock()
		if err != nil && !moved {
			return
		}
		if err == nil {
			_, _ = r.front.WriteToUDPAddrPort(buf[:n], client)
		}
	}
}
