package bind

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
)

// The wall passes what Look takes for a message, and no more.
func TestWall(t *testing.T) {
	const stray = 333
	for name, p := range variants() {
		t.Run(name, func(t *testing.T) {
			c := socketAt(t, "127.0.0.1:0")
			w := newBatch(c, false).newWall(p, stray)
			if p.Protected() {
				if w != nil {
					t.Error("it cannot judge what is covered")
				}
				return
			}
			if !w.raise() {
				t.Fatal("not raised")
			}
			var all [][]byte
			for k, size := range []int{148, 92, 64, 32, 33, 200} {
				k := min(k, 3)
				for _, word := range []uint32{p.Type[k].Low, p.Type[k].High, p.Type[k].Low - 1, p.Type[k].High + 1, rand.Uint32()} {
					for _, more := range []int{0, -1, 1} {
						d := make([]byte, p.Prefix[k]+size+more)
						obfs.Fill(d)
						binary.LittleEndian.PutUint32(d[p.Prefix[k]:], word)
						all = append(all, d)
					}
				}
			}
			for range 100 {
				d := make([]byte, rand.IntN(1300))
				obfs.Fill(d)
				all = append(all, d)
			}
			early := make([]byte, obfs.TransportSize)
			binary.LittleEndian.PutUint32(early, p.Type[obfs.Transport].Low)
			all = append(all, early, make([]byte, stray))
			from := socketAt(t, "127.0.0.1:0")
			buf, last := make([]byte, 2000), make([]byte, stray)
			passed := 0
			for i, d := range all {
				for _, b := range [][]byte{d, last} { // the second one always arrives
					if _, err := from.WriteTo(b, c.LocalAddr()); err != nil {
						t.Fatal(err)
					}
				}
				_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
				got := 0
				for range 2 {
					n, _, err := c.ReadFrom(buf)
					if err != nil {
						t.Fatal(err)
					}
					if got++; n == stray && got == 1 && len(d) != stray {
						break // d was dropped
					}
				}
				want := p.Look(d, obfs.Initiation).Kind != obfs.None || len(d) == stray
				if want != (got == 2) {
					t.Errorf("datagram %d of %d bytes: passed %v, is a message %v", i, len(d), got == 2, want)
				}
				if got == 2 {
					passed++
				}
			}
			if n := w.dropped(); passed < 10 || int(n) != len(all)-passed {
				t.Errorf("%d passed, %d of %d dropped", passed, n, len(all))
			}
			w.lower()
			if _, err := from.WriteTo(make([]byte, 7), c.LocalAddr()); err != nil {
				t.Fatal(err)
			}
			if n, _, err := c.ReadFrom(buf); err != nil || n != 7 {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
}

// A flood raises the wall, and sessions go on behind it.
func TestSiege(t *testing.T) {
	p := obfs.Draw(obfs.V2)
	sk, ck := draw(t), draw(t)
	server := start(t, nodeOptions{keys: sk, addr: serverAddr, params: p, guard: guards(ck.public), more: func(o *Options) {
		o.StraySize = 333
		frozen := time.Now()
		o.Now = func() time.Time { return frozen } // so that it is a flood, however slow
	}})
	server.peer(t, ck.public, clientAddr, "")
	client := start(t, nodeOptions{keys: ck, addr: clientAddr, params: p, guard: guards(sk.public)})
	at := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(server.port)}
	client.peer(t, sk.public, serverAddr, at.String())
	talk(t, client, server, 100_000)
	from := socketAt(t, "127.0.0.1:0")
	stats := server.bind.Stats()
	scrap := make([]byte, 300)
	for end := time.Now().Add(60 * time.Second); ; {
		for range 100 {
			obfs.Fill(scrap)
			if p.Look(scrap, obfs.Initiation).Kind != obfs.None {
				continue
			}
			if _, err := from.WriteTo(scrap, at); err != nil {
				t.Fatal(err)
			}
		}
		if walled(t, server) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no wall after %d datagrams", stats.Unknown.Load())
		}
	}
	talk(t, client, server, 1<<20)
}

// walled says whether a filter stands before a node's socket.
func walled(t *testing.T, n *node) (yes bool) {
	t.Helper()
	err := n.bind.sockets[0].batch.raw.Control(func(fd uintptr) {
		joins, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO)
		yes = err == nil && joins == 0
	})
	if err != nil {
		t.Fatal(err)
	}
	return yes
}
