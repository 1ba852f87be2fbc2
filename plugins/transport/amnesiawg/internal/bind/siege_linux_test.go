package bind

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
)

const strayTest = 333

// besieged is a bind that nobody reads, and its socket's receiver, with a clock to turn.
func besieged(t *testing.T, c net.PacketConn, p *obfs.Params) (*receiver, *time.Time) {
	t.Helper()
	now := time.Now()
	k := draw(t)
	b, err := New(Options{
		Private: k.private, Sockets: []Socket{{Conn: c, Params: p}}, Guard: guards(), StraySize: strayTest,
		Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Open(0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		b.Wait()
	})
	return newReceiver(b, b.sockets[0], b.closed), &now
}

// duplicate is what a process that lends its sockets gives away.
func duplicate(t *testing.T, c *net.UDPConn) *net.UDPConn {
	t.Helper()
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := net.FilePacketConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d.(*net.UDPConn)
}

// throw sends a datagram that is no message.
func throw(t *testing.T, from net.PacketConn, to net.Addr) {
	t.Helper()
	if _, err := from.WriteTo(make([]byte, 7), to); err != nil {
		t.Fatal(err)
	}
}

// arrives says whether a datagram that is no message reaches a socket.
func arrives(t *testing.T, c *net.UDPConn) bool {
	t.Helper()
	throw(t, socketAt(t, "127.0.0.1:0"), c.LocalAddr())
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, _, err := c.ReadFrom(make([]byte, 100))
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return n == 7
}

// A wall does not outlive its bind, whoever has the socket next.
func TestWallEnds(t *testing.T) {
	p := obfs.Draw(obfs.V2)
	t.Run("with Close", func(t *testing.T) {
		c := socketAt(t, "127.0.0.1:0")
		d := duplicate(t, c)
		r, _ := besieged(t, c, p)
		if !r.siege.wall.raise() {
			t.Fatal("not raised")
		}
		if err := r.b.Close(); err != nil {
			t.Fatal(err)
		}
		if !arrives(t, d) {
			t.Error("it stands")
		}
	})
	t.Run("with a reader that Close overtook", func(t *testing.T) {
		c := socketAt(t, "127.0.0.1:0")
		d := duplicate(t, c)
		r, now := besieged(t, c, p)
		if err := r.b.Close(); err != nil {
			t.Fatal(err)
		}
		r.siege.up, r.siege.began, r.siege.since = r.siege.wall.raise(), *now, *now
		if _, err := r.receive([][]byte{make([]byte, 2000)}, make([]int, 1), nil); !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
		if !arrives(t, d) {
			t.Error("it stands")
		}
	})
	t.Run("of a process that died, for parameters without a wall", func(t *testing.T) {
		c := socketAt(t, "127.0.0.1:0")
		d := duplicate(t, c)
		if !newBatch(c, false).newWall(p, strayTest).raise() {
			t.Fatal("not raised")
		}
		c.Close()
		server, client, sk, _ := pair(t, obfs.Draw(obfs.V3), d, nil)
		at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), server.port)
		client.peer(t, sk.public, serverAddr, at.String())
		talk(t, client, server, 10_000)
	})
}

// What the wall passes is no reason for one.
func TestSiegeCounts(t *testing.T) {
	p := obfs.Draw(obfs.V2)
	r, _ := besieged(t, socketAt(t, "127.0.0.1:0"), p)
	homeless := make([]byte, 200)
	binary.LittleEndian.PutUint32(homeless[p.Prefix[obfs.Transport]:], p.Type[obfs.Transport].Low)
	for _, tt := range []struct {
		name string
		d    []byte
		want int
	}{
		{"data of no session", homeless, 0},
		{"as long as a question", make([]byte, strayTest), 0},
		{"anything else", make([]byte, 7), 1},
	} {
		r.siege.count = 0
		if n := r.take(make([]byte, 2000), tt.d, &Endpoint{}); n != 0 || r.siege.count != tt.want {
			t.Errorf("%s: a message of %d bytes, counted %d times", tt.name, n, r.siege.count)
		}
	}
}

// A siege begins by the rate, however seldom is looked, and does not last for ever.
func TestSiegeTimes(t *testing.T) {
	c, from := socketAt(t, "127.0.0.1:0"), socketAt(t, "127.0.0.1:0")
	r, now := besieged(t, c, obfs.Draw(obfs.V2))
	s := &r.siege
	for _, tt := range []struct {
		past  time.Duration
		count int
		up    bool
	}{
		{time.Hour, 5000, false},
		{time.Second, 1900, false},
		{100 * time.Millisecond, 100, false},
		{200 * time.Millisecond, 450, false}, // 550 in 300 ms
		{time.Second, 2100, true},
	} {
		*now = now.Add(tt.past)
		s.count += tt.count
		if s.look(); s.up != tt.up {
			t.Fatalf("%d in %v: up is %v", tt.count, tt.past, s.up)
		}
	}
	const step = siegeLook + time.Millisecond
	for past := step; s.up; past += step {
		for s.dropped()-s.drops < siegeFrom/2*uint32(siegeLook/time.Second)*11/10 {
			throw(t, from, c.LocalAddr())
		}
		*now = now.Add(step)
		s.look()
		if s.up != (past <= siegeMost) {
			t.Fatalf("up is %v after %v of flood", s.up, past)
		}
	}
	*now = now.Add(100 * time.Millisecond)
	s.count = siegeFrom / 4
	if s.look(); !s.up {
		t.Error("not up again")
	}
}

// What was joined before the wall stood is read as what it is.
func TestPart(t *testing.T) {
	c, from := socketAt(t, "127.0.0.1:0"), socketAt(t, "127.0.0.1:0")
	b := newBatch(c, false)
	w, in := b.newWall(obfs.Draw(obfs.V2), strayTest), b.newInbox()
	joins := func() bool {
		n := 0
		err := b.raw.Control(func(fd uintptr) { n, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO) })
		if err != nil {
			t.Fatal(err)
		}
		return n != 0
	}
	if !joins() {
		t.Skip("this kernel joins nothing")
	}
	out := newBatch(from, false)
	to := &Endpoint{addr: c.LocalAddr().(*net.UDPAddr).AddrPort()}
	some := make([][]byte, 5)
	for i := range some {
		some[i] = make([]byte, strayTest)
	}
	const times = inboxSlots + 1 // more than one read
	for range times {
		if err := out.send(to, 0, some, nil); err != nil {
			t.Fatal(err)
		}
	}
	if !w.raise() {
		t.Fatal("not raised")
	}
	for got := 0; got < times*len(some); {
		if err := in.fill(); err != nil {
			t.Fatal(err)
		}
		for d, _, _, ok := in.next(); ok; d, _, _, ok = in.next() {
			if got++; len(d) != strayTest {
				t.Fatalf("datagram %d has %d bytes", got, len(d))
			}
		}
	}
	waited := make(chan error, 1)
	go func() { waited <- in.fill() }()
	for end := time.Now().Add(10 * time.Second); joins(); {
		if time.Now().After(end) {
			t.Error("the buffer is empty, and they are joined still")
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err := out.send(to, 0, some[:1], nil); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
	w.lower()
	if !joins() {
		t.Error("not joined again")
	}
}
