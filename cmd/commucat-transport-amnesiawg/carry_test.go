package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/transport/amnesiawg"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/conf"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/client"
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
		var used keysUsed
		carol := newDevice(t, l, dialer(t, nil, used.note))
		carol.event(t, "connected")
		carol.owns(t)
		began := time.Now()
		if err := r.api.RevokeLink(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		carol.event(t, "disconnected")
		t.Logf("cut after %v", time.Since(began).Round(time.Millisecond))
		// The device has a key of its own since it has registered.
		carol.event(t, "connected")
		carol.says(t, bob, "with a key of my own")
		if link, own := used.counts(); link != 1 || own == 0 {
			t.Errorf("%d dials with the link's key and %d without", link, own)
		}
		stranger := newDevice(t, l, dialer(t, nil, nil))
		if e := stranger.event(t, "waiting"); !strings.Contains(e.Err.Error(), "key: ") {
			t.Errorf("it says %v", e.Err)
		}
	})

	l, _ = r.invite(t)
	t.Run("key renewed", func(t *testing.T) {
		erin := newDevice(t, l, dialer(t, nil, nil))
		erin.event(t, "connected")
		old, at := erin.owns(t)
		if err := erin.RenewKeys(); err != nil {
			t.Fatal(err)
		}
		until(t, "the new key is in use", func() bool {
			p := erin.Profile()
			return len(p.Keys) == 1 && !p.Keys[0].Confirmed.IsZero() && string(p.Keys[0].Private) != string(old)
		})
		if _, own := erin.owns(t); own.Params["s"] != "" {
			t.Error("the device's endpoint has a secret")
		}
		r.unknown(t, at, old)
		erin.says(t, bob, "with a new key")
	})

	t.Run("key of another", func(t *testing.T) {
		alice.owns(t)
		mallory := newDevice(t, l, &firstKey{Dialer: dialer(t, nil, nil), key: alice.Profile().Keys[0]})
		mallory.event(t, "connected")
		if keys := mallory.Profile().Keys; len(keys) != 1 || !keys[0].Refused || !keys[0].Confirmed.IsZero() {
			t.Error("another's key is taken", keys)
		}
		if _, err := mallory.Connected(t.Context()); err != nil {
			t.Fatal(err)
		}
		mallory.Disconnect()
		private, at := mallory.owns(t) // a new one, at its next connection
		r.knows(t, at, private)
		alice.says(t, bob, "mine is good as before")
	})

	t.Run("key of a file", func(t *testing.T) {
		grace := newDevice(t, l, dialer(t, nil, nil))
		grace.event(t, "connected")
		own, _ := grace.owns(t)
		export := func() (private []byte, at transport.Endpoint) {
			private, public, err := conf.NewKey()
			if err != nil {
				t.Fatal(err)
			}
			e, err := r.api.SetTransportKey(t.Context(), grace.Profile().DeviceID, amnesiawg.Name, public)
			if err != nil {
				t.Fatal(err)
			}
			at = transport.Endpoint{Transport: e.Transport, Host: e.Host, Port: e.Port, Params: e.Params}
			if _, err := conf.File(at, private); err != nil {
				t.Error(err)
			}
			return private, at
		}
		old, at := export()
		r.knows(t, at, old)
		private, _ := export()
		r.unknown(t, at, old)
		// It stands beside the device's own.
		r.knows(t, at, private)
		r.knows(t, at, own)
		if _, err := r.api.SetTransportKey(t.Context(), "nobody", amnesiawg.Name, private); err == nil {
			t.Error("a key for no device")
		}
		if _, err := r.api.SetTransportKey(t.Context(), grace.Profile().DeviceID, "nothing", private); err == nil {
			t.Error("a key for no transport")
		}
	})

	t.Run("state lost", func(t *testing.T) {
		frank := newDevice(t, l, dialer(t, nil, nil))
		frank.event(t, "connected")
		frank.owns(t)
		frank.Disconnect()
		frank.event(t, "disconnected")
		frank.event(t, "connected") // with its own key
		// All that the plugin knows of devices, and its process; the relay has it too.
		found := ""
		err := filepath.WalkDir(r.data, func(path string, _ fs.DirEntry, err error) error {
			if filepath.Base(path) == "guests.jsonl" {
				found = path
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		pid, _ := r.process(t)
		if err := errors.Join(os.Remove(found), syscall.Kill(pid, syscall.SIGKILL)); err != nil {
			t.Fatal(err)
		}
		frank.event(t, "disconnected")
		if e := frank.event(t, "connected"); e.Transport != "amnesiawg" {
			t.Errorf("connected by %s", e.Transport)
		}
		frank.says(t, bob, "still known")
	})

	t.Run("device revoked", func(t *testing.T) {
		l, _ := r.invite(t) // the others went with the state folder
		dave := newDevice(t, l, dialer(t, nil, nil))
		dave.event(t, "connected")
		private, at := dave.owns(t)
		dave.Disconnect()
		dave.event(t, "disconnected")
		dave.event(t, "connected") // with its own key
		began := time.Now()
		u, err := r.api.User(t.Context(), dave.Profile().Handle)
		if err != nil || len(u.Devices) != 1 {
			t.Fatalf("%+v, %v", u, err)
		}
		if err := r.api.RevokeDevice(t.Context(), u.Devices[0].ID); err != nil {
			t.Fatal(err)
		}
		// It learns why, although the tunnel goes as well.
		if code, refused := client.IsRefused(dave.event(t, "disconnected").Err); !refused || code != ccp.CodeRevoked {
			t.Errorf("refused with %q", code)
		}
		t.Logf("told after %v", time.Since(began).Round(time.Millisecond))
		r.unknown(t, at, private)
	})
}

// knows dials with a key.
func (r *relay) knows(t *testing.T, at transport.Endpoint, private []byte) {
	t.Helper()
	c, err := dialer(t, nil, nil).Dial(t.Context(), at, transport.Dial{Key: private})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// unknown waits until the transport does not know a key.
func (r *relay) unknown(t *testing.T, at transport.Endpoint, private []byte) {
	t.Helper()
	d := dialer(t, nil, nil)
	until(t, "the transport forgets the key", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		c, err := d.Dial(ctx, at, transport.Dial{Key: private})
		if err == nil {
			c.Close()
			return false
		}
		if !strings.Contains(err.Error(), "does not know this key") {
			t.Logf("it says %v", err)
			return false
		}
		return true
	})
}

// keysUsed counts the dials with a link's secret and those without.
type keysUsed struct {
	mu        sync.Mutex
	link, own int
}

func (k *keysUsed) note(e *transport.Endpoint) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e.Params["s"] != "" {
		k.link++
	} else {
		k.own++
	}
}

func (k *keysUsed) counts() (link, own int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.link, k.own
}

// firstKey is a dialer whose first key is given.
type firstKey struct {
	transport.Dialer
	key   client.TransportKey
	drawn atomic.Bool
}

// NewKey implements transport.KeyMaker.
func (f *firstKey) NewKey() (private, public []byte, err error) {
	if !f.drawn.Swap(true) {
		return f.key.Private, f.key.Public, nil
	}
	return f.Dialer.(transport.KeyMaker).NewKey()
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
