package bind

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
)

func variants() map[string]*obfs.Params {
	special, err := obfs.ParseTemplate("<b 0xc0ffee><r 40><t>")
	if err != nil {
		panic(err)
	}
	second, third := obfs.Draw(obfs.V2), obfs.Draw(obfs.V3)
	second.Special[0], second.Special[3] = special, special
	third.Trailers = true
	return map[string]*obfs.Params{
		"plain": obfs.Plain(), "1.0": obfs.Draw(obfs.V1), "1.5": obfs.Draw(obfs.V1_5), "2.0": second,
		"3.0": obfs.Draw(obfs.V3), "3.1": third,
	}
}

// pair joins a client to a server over w, or directly where at is given.
func pair(t *testing.T, p *obfs.Params, s, c net.PacketConn) (server, client *node, sk, ck keys) {
	t.Helper()
	sk, ck = draw(t), draw(t)
	server = start(t, nodeOptions{keys: sk, addr: serverAddr, params: p, conn: s, guard: guards(ck.public)})
	server.peer(t, ck.public, clientAddr, "")
	client = start(t, nodeOptions{keys: ck, addr: clientAddr, params: p, conn: c, guard: guards(sk.public)})
	return server, client, sk, ck
}

func TestGenerations(t *testing.T) {
	for name, p := range variants() {
		t.Run(name, func(t *testing.T) {
			server, client, sk, _ := pair(t, p, nil, nil)
			client.peer(t, sk.public, serverAddr, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), server.port).String())
			talk(t, client, server, 3<<20)
		})
	}
}

// noBatch hides what the platform could do with a socket.
type noBatch struct{ net.PacketConn }

func TestSockets(t *testing.T) {
	tests := map[string]struct {
		server, client, to string
		plain              bool
	}{
		"IPv4":                      {"127.0.0.1:0", "127.0.0.1:0", "127.0.0.1", false},
		"IPv6":                      {"[::1]:0", "[::1]:0", "::1", false},
		"both, by IPv4":             {":0", ":0", "127.0.0.1", false},
		"both, by IPv6":             {":0", ":0", "::1", false},
		"another of our addresses":  {":0", ":0", "127.0.0.77", false},
		"one datagram at a time":    {"127.0.0.1:0", "127.0.0.1:0", "127.0.0.1", true},
		"one at a time, other kind": {":0", ":0", "127.0.0.1", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var s, c net.PacketConn = socketAt(t, tt.server), socketAt(t, tt.client)
			if tt.plain {
				s, c = noBatch{s}, noBatch{c}
			}
			server, client, sk, _ := pair(t, obfs.Draw(obfs.V2), s, c)
			client.peer(t, sk.public, serverAddr, netip.AddrPortFrom(netip.MustParseAddr(tt.to), server.port).String())
			talk(t, client, server, 1<<20)
		})
	}
}

// All-default parameters are plain WireGuard, in both roles.
func TestStockWireGuard(t *testing.T) {
	for _, ours := range []string{"client", "server"} {
		t.Run("ours is the "+ours, func(t *testing.T) {
			sk, ck := draw(t), draw(t)
			so := nodeOptions{keys: sk, addr: serverAddr, guard: guards(ck.public)}
			co := nodeOptions{keys: ck, addr: clientAddr, guard: guards(sk.public)}
			if ours == "client" {
				co.params = obfs.Plain()
			} else {
				so.params = obfs.Plain()
			}
			server, client := start(t, so), start(t, co)
			server.peer(t, ck.public, clientAddr, "")
			client.peer(t, sk.public, serverAddr, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), server.port).String())
			talk(t, client, server, 1<<20)
		})
	}
}

// What goes over the wire has no length and no beginning of plain WireGuard's.
func TestCapture(t *testing.T) {
	for name, p := range variants() {
		if p.IsPlain() {
			continue
		}
		t.Run(name, func(t *testing.T) {
			server, client, sk, _ := pair(t, p, nil, nil)
			w := tap(t, server.port)
			client.peer(t, sk.public, serverAddr, w.addr())
			talk(t, client, server, 1<<20)
			all := w.all()
			if len(all) < 1000 {
				t.Fatalf("only %d datagrams", len(all))
			}
			for i, d := range all {
				word := binary.LittleEndian.Uint32(d)
				if len(d) == 148 || len(d) == 92 || len(d) == 64 || word >= 1 && word <= 4 {
					t.Errorf("datagram %d: %d bytes, word %d", i, len(d), word)
				}
			}
			// Special packets, junk, then the initiation.
			at := 0
			if name == "2.0" {
				for ; at < 2; at++ {
					if d := all[at]; len(d) != 47 || d[0] != 0xc0 || d[2] != 0xee {
						t.Errorf("special packet %d: % x", at, d)
					}
				}
			}
			for range p.Junk.Count {
				if n := len(all[at]); n < p.Junk.Min || n > p.Junk.Max {
					t.Errorf("junk of %d bytes", n)
				}
				at++
			}
			if s := p.Look(all[at], obfs.Initiation); s.Kind != obfs.Initiation {
				t.Errorf("after %d datagrams: %+v", at, s)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	p := obfs.Draw(obfs.V2)
	server, client, sk, ck := pair(t, p, nil, nil)
	w := tap(t, server.port)
	client.peer(t, sk.public, serverAddr, w.addr())
	talk(t, client, server, 1000)
	var opening []byte
	for _, d := range w.all() {
		if p.Look(d, obfs.Initiation).Kind == obfs.Initiation && len(d) == p.Prefix[0]+148 {
			opening = d
			break
		}
	}
	if opening == nil {
		t.Fatal("no initiation seen")
	}
	wait := func(counter func() uint64) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); counter() == 0; {
			if time.Now().After(end) {
				t.Fatal("the server did not notice")
			}
			time.Sleep(time.Millisecond)
		}
	}
	silent := func(t *testing.T, send []byte, counter func() uint64) {
		t.Helper()
		c := socketAt(t, "127.0.0.1:0")
		if _, err := c.WriteTo(send, w.server); err != nil {
			t.Fatal(err)
		}
		wait(counter)
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, _, err := c.ReadFrom(make([]byte, 2000)); err == nil {
			t.Errorf("an answer of %d bytes", n)
		}
	}
	stats := server.bind.Stats()
	t.Run("replay", func(t *testing.T) { silent(t, opening, stats.Refused.Load) })
	t.Run("forged", func(t *testing.T) {
		forged := append([]byte(nil), opening...)
		forged[p.Prefix[0]+20] ^= 1
		silent(t, forged, stats.Forged.Load)
	})
	t.Run("junk", func(t *testing.T) { silent(t, make([]byte, 200), stats.Unknown.Load) })
	t.Run("data of no session", func(t *testing.T) {
		d := make([]byte, 200)
		binary.LittleEndian.PutUint32(d[p.Prefix[3]:], p.Type[3].Low)
		silent(t, d, stats.Homeless.Load)
	})
	t.Run("stranger", func(t *testing.T) {
		xk := draw(t)
		stranger := start(t, nodeOptions{keys: xk, addr: clientAddr, params: p, guard: guards(sk.public)})
		heard := make(chan Event, 16)
		stranger.bind.o.Event = func(e Event) { heard <- e }
		stranger.peer(t, sk.public, serverAddr, w.server.String())
		stranger.dev.LookupPeer(sk.public).SendHandshakeInitiation(false)
		wait(stats.Strangers.Load)
		select {
		case e := <-heard:
			t.Errorf("event %d", e)
		case <-time.After(50 * time.Millisecond):
		}
	})
	// Nothing of that disturbed the client.
	talk(t, client, server, 100_000)
	_ = ck
}

// A client whose address changes keeps its session.
func TestRoaming(t *testing.T) {
	p := obfs.Draw(obfs.V2)
	server, client, sk, ck := pair(t, p, nil, nil)
	w := tap(t, server.port)
	client.peer(t, sk.public, serverAddr, w.addr())
	ln, err := server.net.Listen(443, 16)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := client.net.Dial(t.Context(), netip.AddrPortFrom(serverAddr, 443))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	echo := func() {
		t.Helper()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_ = s.SetDeadline(time.Now().Add(20 * time.Second))
		b := make([]byte, 5)
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Read(b); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(b); err != nil {
			t.Fatal(err)
		}
	}
	echo()
	handshakes := server.bind.Stats().Admitted.Load()
	w.mu.Lock()
	old := w.back
	w.back = socketAt(t, "127.0.0.2:0")
	w.mu.Unlock()
	old.Close()
	echo()
	if n := server.bind.Stats().Admitted.Load(); n != handshakes {
		t.Errorf("%d new handshakes", n-handshakes)
	}
	_ = ck
}

// Initiations of one peer that come together, because something held the first one up,
// end in a session: the newest is answered.
func TestNewestInitiation(t *testing.T) {
	sk, ck := draw(t), draw(t)
	g := guards(ck.public)
	server := start(t, nodeOptions{keys: sk, addr: serverAddr, params: obfs.Draw(obfs.V2), guard: g})
	server.peer(t, ck.public, clientAddr, "")
	up := make(chan struct{}, 1)
	client := start(t, nodeOptions{
		keys: ck, addr: clientAddr, params: server.bind.sockets[0].params, guard: guards(sk.public),
		more: func(o *Options) {
			o.Event = func(e Event) {
				if e == SentData {
					select {
					case up <- struct{}{}:
					default:
					}
				}
			}
		},
	})
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), server.port).String()
	stats := server.bind.Stats()
	// WireGuard gets the first of three and the newest. If that is ignored, it is repeated
	// after five seconds; on a busy machine it may be also when it is not.
	const rounds = 6
	for range rounds {
		before := stats.Admitted.Load()
		func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			for range 3 {
				time.Sleep(40 * time.Millisecond) // the times that initiations carry are coarse
				client.dev.RemovePeer(sk.public)
				client.peer(t, sk.public, serverAddr, at)
				if err := client.dev.LookupPeer(sk.public).SendHandshakeInitiation(false); err != nil {
					t.Fatal(err)
				}
			}
			// The last one is on its way; a session of the round before may have come late.
			time.Sleep(40 * time.Millisecond)
			select {
			case <-up:
			default:
			}
			client.bind.Watch()
		}()
		select {
		case <-up:
		case <-time.After(30 * time.Second):
			t.Fatal("no session")
		}
		if stats.Admitted.Load()-before == 2 {
			return
		}
	}
	t.Errorf("in none of %d rounds a session after two initiations", rounds)
}

func TestOpenAgain(t *testing.T) {
	p := obfs.Draw(obfs.V2)
	server, client, sk, _ := pair(t, p, nil, nil)
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), server.port).String()
	client.peer(t, sk.public, serverAddr, at)
	for range 3 {
		talk(t, client, server, 10_000)
		for _, n := range []*node{server, client} {
			if err := n.dev.Down(); err != nil {
				t.Fatal(err)
			}
			if err := n.dev.Up(); err != nil {
				t.Fatal(err)
			}
		}
	}
	b := client.bind
	if _, _, err := b.Open(0); !errors.Is(err, conn.ErrBindAlreadyOpen) {
		t.Errorf("%v", err)
	}
	for range 2 {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := b.Send([][]byte{{4, 0, 0, 0}}, nil); !errors.Is(err, conn.ErrWrongEndpointType) {
		t.Errorf("%v", err)
	}
}

// A refused port is told at once.
func TestRefused(t *testing.T) {
	dead := socketAt(t, "127.0.0.1:0")
	at := dead.LocalAddr().String()
	dead.Close()
	sk := draw(t)
	heard := make(chan Event, 100)
	client := start(t, nodeOptions{
		keys: draw(t), addr: clientAddr, params: obfs.Draw(obfs.V2), guard: guards(sk.public),
		more: func(o *Options) {
			o.Sockets[0].Errors = true
			o.Event = func(e Event) {
				select {
				case heard <- e:
				default:
				}
			}
		},
	})
	client.peer(t, sk.public, serverAddr, at)
	client.dev.LookupPeer(sk.public).SendHandshakeInitiation(false)
	select {
	case e := <-heard:
		if e != Refused {
			t.Errorf("event %d", e)
		}
	case <-time.After(10 * time.Second):
		t.Error("not told")
	}
}
