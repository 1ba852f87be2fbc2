package interop

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/tun/netstack"

	"github.com/commucat/commucat/plugins/transport/amnesiawg"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/conf"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// size is how much goes to and fro; patience is for all of it, on a slow machine.
const (
	size     = 1 << 20
	patience = 60 * time.Second
)

// Device is what the devices of WireGuard and of all releases of AmneziaWG have.
type Device interface {
	IpcSet(text string) error
	IpcGet() (string, error)
	Up() error
	Close()
}

// Maker makes a device on a network inside the tunnel.
type Maker func(tun.Device) Device

// Relay is the transport's server half; its streams echo. raw are keys of its
// configuration.
func Relay(t testing.TB, raw map[string]any) transport.Server {
	t.Helper()
	return listen(t, raw, echoAll)
}

func listen(t testing.TB, raw map[string]any, serve func(net.Listener)) transport.Server {
	t.Helper()
	raw["listen"] = []any{"127.0.0.1:0"}
	o, err := transport.Open(t.Context(), amnesiawg.Plugin(), sdk.NewEnv(sdk.EnvOptions{State: t.TempDir()}), raw)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := o.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go serve(ln)
	return ln.(transport.Server)
}

func echoAll(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(c, struct{ io.Reader }{c})
			c.Close()
		}()
	}
}

// Export is the configuration file of a new link of a relay.
func Export(t testing.TB, s transport.Server) File {
	t.Helper()
	f, _ := ExportTo(t, s)
	return f
}

// ExportTo is Export with the endpoint.
func ExportTo(t testing.TB, s transport.Server) (File, conf.Endpoint) {
	t.Helper()
	to, err := s.Invite(t.Context(), "127.0.0.1", transport.Guest{ID: rand.Text()})
	if err != nil {
		t.Fatal(err)
	}
	text, err := amnesiawg.Export(to, nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := ParseFile(string(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	e, err := conf.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	return f, e
}

// Peer is a device that others wrote, with a network stack that they wrote.
type Peer struct {
	Device Device
	Net    *netstack.Net
	// Port is the UDP port that it took.
	Port uint16
}

// Start makes a peer of what it is told.
func Start(t testing.TB, make Maker, address netip.Addr, text string) *Peer {
	t.Helper()
	link, stack, err := netstack.CreateNetTUN([]netip.Addr{address}, nil, 1280)
	if err != nil {
		t.Fatal(err)
	}
	p := &Peer{Device: make(link), Net: stack}
	t.Cleanup(p.Device.Close)
	if err := p.Device.IpcSet(text); err != nil {
		t.Fatalf("it does not take what it is told: %v\n%s", err, text)
	}
	if err := p.Device.Up(); err != nil {
		t.Fatal(err)
	}
	said, err := p.Device.IpcGet()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(said) {
		_, _ = fmt.Sscanf(line, "listen_port=%d", &p.Port)
	}
	return p
}

// Dial connects to the relay's port inside the tunnel of a file.
func (p *Peer) Dial(t testing.TB, f File) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := p.Net.DialContextTCPAddrPort(ctx, netip.AddrPortFrom(f.Allowed.Addr(), conf.Port))
	if err != nil {
		t.Fatalf("no stream through the tunnel: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Serve makes a peer that stands for a relay, and an endpoint that leads to it with
// the key of one device. Its streams echo.
func Serve(t testing.TB, make Maker, wire *obfs.Params) (p *Peer, e conf.Endpoint, key []byte) {
	t.Helper()
	return stand(t, make, wire, echoAll)
}

func stand(t testing.TB, make Maker, wire *obfs.Params, serve func(net.Listener)) (p *Peer, e conf.Endpoint, key []byte) {
	t.Helper()
	draw := func() (private, public [32]byte) {
		_, _ = rand.Read(private[:])
		private[0], private[31] = private[0]&248, private[31]&127|64
		public, err := conf.PublicKey(private)
		if err != nil {
			t.Fatal(err)
		}
		return private, public
	}
	private, server := draw()
	own, client := draw()
	e = conf.Endpoint{Host: "127.0.0.1", Ports: []uint16{1}, Server: server, Wire: wire, MTU: conf.DefaultMTU}
	text, err := conf.File(e.Transport(), own[:])
	if err != nil {
		t.Fatal(err)
	}
	f, err := ParseFile(string(text))
	if err != nil {
		t.Fatal(err)
	}
	p = Start(t, make, conf.ServerAddr(server), f.Server(hex.EncodeToString(private[:]), hex.EncodeToString(client[:]), conf.ClientAddr(server, client)))
	ln, err := p.Net.ListenTCPAddrPort(netip.AddrPortFrom(conf.ServerAddr(server), conf.Port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go serve(ln)
	e.Ports[0] = p.Port
	return p, e, own[:]
}

// Dial is the transport's client half.
func Dial(t testing.TB, to transport.Endpoint, key []byte) net.Conn {
	t.Helper()
	o, err := transport.Open(t.Context(), amnesiawg.Plugin(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var c net.Conn
	for {
		if c, err = o.Dial(ctx, to, transport.Dial{Key: key}); err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Echo sends size bytes over a stream that echoes.
func Echo(t testing.TB, c net.Conn) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(patience))
	sent, got := make([]byte, size), make([]byte, size)
	_, _ = rand.Read(sent)
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = c.Write(sent) })
	if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back: %v", n, size, err)
	}
	wg.Wait()
}

// Matrix has a release talk to the transport in both roles, with parameters of its
// generation; raw are more keys of the relay's configuration.
func Matrix(t *testing.T, make Maker, generation obfs.Generation, special string) {
	t.Run("it dials", func(t *testing.T) {
		raw := map[string]any{"generation": string(generation)}
		if special != "" {
			raw["parameters"] = map[string]any{"i1": special, "i2": "<r 24>"}
		}
		f := Export(t, Relay(t, raw))
		if special != "" && !strings.Contains(f.Wire, "i1="+special+"\n") {
			t.Errorf("the file lacks the special packet:\n%s", f.Wire)
		}
		Echo(t, Start(t, make, f.Address.Addr(), f.Client()).Dial(t, f))
	})
	t.Run("it is dialled", func(t *testing.T) {
		wire := obfs.Draw(generation)
		if special != "" {
			var err error
			if wire.Special[0], err = obfs.ParseTemplate(special); err != nil {
				t.Fatal(err)
			}
		}
		_, e, key := Serve(t, make, wire)
		Echo(t, Dial(t, e.Transport(), key))
	})
}

// Plain has a device without parameters be dialled by the transport without parameters.
// A relay refuses to listen so; what it would say as the other side is tested in
// package bind.
func Plain(t *testing.T, make Maker) {
	_, e, key := Serve(t, make, obfs.Plain())
	Echo(t, Dial(t, e.Transport(), key))
}
