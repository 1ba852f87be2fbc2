package bind

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/inner"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	serverAddr = netip.MustParseAddr("fd00::1")
	clientAddr = netip.MustParseAddr("fd00::2")
)

// ports of the servers inside; one that closed is held for a while.
var ports atomic.Uint32

type keys struct{ private, public [32]byte }

func draw(t testing.TB) keys {
	t.Helper()
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return keys{[32]byte(k.Bytes()), [32]byte(k.PublicKey().Bytes())}
}

// guard admits its keys and refuses replays.
type guard struct {
	mu    sync.Mutex
	last  map[[32]byte]obfs.Stamp
	admit func(static [32]byte) // may add the peer
}

func guards(known ...[32]byte) *guard {
	g := &guard{last: map[[32]byte]obfs.Stamp{}}
	for _, k := range known {
		g.last[k] = obfs.Stamp{}
	}
	return g
}

func (g *guard) Known(static [32]byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.last[static]
	return ok
}

func (g *guard) Admit(static [32]byte, stamp obfs.Stamp, _ *Endpoint) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if last, ok := g.last[static]; !ok || !stamp.After(last) {
		return false
	}
	g.last[static] = stamp
	if g.admit != nil {
		g.admit(static)
	}
	return true
}

// node is one end of a tunnel.
type node struct {
	dev  *device.Device
	net  *inner.Net
	bind *Bind // nil for a stock one
	port uint16
}

type nodeOptions struct {
	keys   keys
	addr   netip.Addr
	params *obfs.Params // nil is a stock bind
	conn   net.PacketConn
	guard  Guard
	more   func(*Options)
}

func start(t testing.TB, o nodeOptions) *node {
	t.Helper()
	n := &node{}
	var err error
	if n.net, err = inner.New(inner.Options{Address: o.addr, MTU: 1280}); err != nil {
		t.Fatal(err)
	}
	var b conn.Bind
	if o.params == nil {
		b = conn.NewStdNetBind()
	} else {
		if o.conn == nil {
			o.conn = socketAt(t, "127.0.0.1:0")
		}
		n.port = o.conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		opts := Options{Private: o.keys.private, Guard: o.guard, Sockets: []Socket{{Conn: o.conn, Params: o.params}}}
		if o.more != nil {
			o.more(&opts)
		}
		if n.bind, err = New(opts); err != nil {
			t.Fatal(err)
		}
		b = n.bind
	}
	log := &device.Logger{Verbosef: device.DiscardLogf, Errorf: device.DiscardLogf}
	n.dev = device.NewDevice(n.net.Device(), b, log)
	t.Cleanup(func() {
		n.dev.Close()
		n.net.Close()
		if n.bind != nil {
			n.bind.Wait()
		}
	})
	n.set(t, "private_key="+hex.EncodeToString(o.keys.private[:])+"\n")
	if err := n.dev.Up(); err != nil {
		t.Fatal(err)
	}
	if n.bind == nil {
		text, err := n.dev.IpcGet()
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines([]byte(text)) {
			_, _ = fmt.Sscanf(string(line), "listen_port=%d", &n.port)
		}
	}
	return n
}

func socketAt(t testing.TB, addr string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.(*net.UDPConn).SetReadBuffer(4 << 20) // a burst should not be lost here
	return c.(*net.UDPConn)
}

func (n *node) set(t testing.TB, text string) {
	t.Helper()
	if err := n.dev.IpcSet(text); err != nil {
		t.Fatal(err)
	}
}

// peer adds a peer; at is its address or "".
func (n *node) peer(t testing.TB, public [32]byte, addr netip.Addr, at string) {
	t.Helper()
	if n.bind != nil {
		if err := n.bind.Add(public); err != nil {
			t.Fatal(err)
		}
	}
	text := "public_key=" + hex.EncodeToString(public[:]) + "\nallowed_ip=" + addr.String() + "/128\n"
	if at != "" {
		text += "endpoint=" + at + "\n"
	}
	n.set(t, text)
}

// talk opens a connection from client to server and sends size bytes to and fro.
func talk(t testing.TB, client, server *node, size int) {
	t.Helper()
	port := 1024 + uint16(ports.Add(1))
	ln, err := server.net.Listen(port, 16)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(c, struct{ io.Reader }{c})
		_ = c.Close()
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := client.net.Dial(ctx, netip.AddrPortFrom(serverAddr, port))
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	sent := make([]byte, size)
	_, _ = rand.Read(sent)
	go func() {
		_, _ = c.Write(sent)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("got %d of %d bytes, %v", len(got), size, err)
	}
}

// wire is a UDP relay between client and server that sees everything.
type wire struct {
	front, back *net.UDPConn
	server      *net.UDPAddr

	mu     sync.Mutex
	client netip.AddrPort
	seen   [][]byte                     // from both sides
	hold   func(up bool, d []byte) bool // true drops
}

func tap(t testing.TB, server uint16) *wire {
	t.Helper()
	w := &wire{front: socketAt(t, "127.0.0.1:0"), back: socketAt(t, "127.0.0.1:0"), server: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(server)}}
	var wg sync.WaitGroup
	wg.Go(func() { w.carry(true) })
	wg.Go(func() { w.carry(false) })
	t.Cleanup(func() {
		w.front.Close()
		w.mu.Lock()
		w.back.Close()
		w.mu.Unlock()
		wg.Wait()
	})
	return w
}

func (w *wire) carry(up bool) {
	buf := make([]byte, 65536)
	for {
		from := w.front
		if !up {
			w.mu.Lock()
			from = w.back
			w.mu.Unlock()
		}
		n, addr, err := from.ReadFromUDPAddrPort(buf)
		w.mu.Lock()
		if err != nil {
			stop := up || from == w.back
			w.mu.Unlock()
			if stop {
				return
			}
			continue
		}
		d := bytes.Clone(buf[:n])
		w.seen = append(w.seen, d)
		drop := w.hold != nil && w.hold(up, d)
		if up {
			w.client = addr
		}
		back, client := w.back, w.client
		w.mu.Unlock()
		switch {
		case drop:
		case up:
			_, _ = back.WriteToUDP(d, w.server)
		default:
			_, _ = w.front.WriteToUDPAddrPort(d, client)
		}
	}
}

func (w *wire) addr() string { return w.front.LocalAddr().String() }

func (w *wire) all() [][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([][]byte(nil), w.seen...)
}
