package masque

import (
	"bytes"
	"encoding/binary"
	"log"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"

	"github.com/commucat/commucat/sdk/transport"
)

// TestPacketsStayApart: packets that are joined on the way, by us or by the kernel,
// come out as they went in, in order.
func TestPacketsStayApart(t *testing.T) {
	open := func() *socket {
		udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		pc, _ := forQUIC(udp)
		t.Cleanup(func() { _ = pc.Close() })
		return pc.(*socket)
	}
	from, to := open(), open()
	r := rand.New(rand.NewPCG(1, 2))
	ms := make([]ipv4.Message, 8)
	for i := range ms {
		ms[i].Buffers, ms[i].OOB = [][]byte{make([]byte, 1500)}, make([]byte, controls)
	}
	var sent, got uint32
	for round := range 60 {
		size := 20 + r.IntN(1400)
		var sizes []int
		for range 1 + r.IntN(100) {
			if r.IntN(10) == 0 {
				size = 20 + r.IntN(1400)
			}
			sizes = append(sizes, size)
		}
		first := sent
		for _, n := range sizes {
			p := bytes.Repeat([]byte{byte(sent)}, n)
			binary.BigEndian.PutUint32(p, sent)
			sent++
			if n, _, err := from.WriteMsgUDP(p, nil, to.LocalAddr().(*net.UDPAddr)); n != len(p) || err != nil {
				t.Fatal(n, err)
			}
		}
		if round == 30 { // quic-go's own batches pass
			p := bytes.Repeat([]byte{byte(sent)}, 2000)
			binary.BigEndian.PutUint32(p, sent)
			p[1000+3], p[1000] = byte(sent+1), byte((sent+1)>>24)
			binary.BigEndian.PutUint32(p[1000:], sent+1)
			for i := 1004; i < 2000; i++ {
				p[i] = byte(sent + 1)
			}
			from.out.drain()
			if _, _, err := from.WriteMsgUDP(p, appendSegment(nil, 1000), to.LocalAddr().(*net.UDPAddr)); err != nil {
				t.Fatal(err)
			}
			sent += 2
			sizes = append(sizes, 1000, 1000)
		}
		for got < sent {
			_ = to.SetReadDeadline(time.Now().Add(5 * time.Second))
			n, err := to.ReadBatch(ms, 0)
			if err != nil {
				t.Fatalf("round %d: %d of %d: %v", round, got, sent, err)
			}
			for _, m := range ms[:n] {
				p := m.Buffers[0][:m.N]
				if m.N != sizes[got-first] || binary.BigEndian.Uint32(p) != got || !bytes.Equal(p[4:], bytes.Repeat([]byte{byte(got)}, m.N-4)) {
					t.Fatalf("round %d: packet %d of %d bytes, want %d of %d", round, binary.BigEndian.Uint32(p), m.N, got, sizes[got-first])
				}
				got++
			}
		}
	}
}

func TestControlMessages(t *testing.T) {
	other := []byte{20, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 104, 0, 0, 0, 0x14, 5, 0, 0, 0, 0, 0, 0}
	oob := appendSegment(bytes.Clone(other), 1234)
	oob = append(oob, other...)
	size, rest := withoutSegment(nil, oob)
	if size != 1234 || !bytes.Equal(rest, append(bytes.Clone(other), other...)) || segment(oob) != 1234 || control(oob, 104) != 1300 {
		t.Error(size, rest, segment(oob), control(oob, 104))
	}
	for _, broken := range [][]byte{nil, {1}, oob[:10], bytes.Repeat([]byte{0xff}, 40)} {
		if size, _ := withoutSegment(nil, broken); size != 0 || segment(broken) != 0 {
			t.Errorf("%x: %d", broken, size)
		}
	}
}

// TestQuietSocket: quic-go uses all that the socket offers, and says nothing to the
// process's logger.
func TestQuietSocket(t *testing.T) {
	var said bytes.Buffer
	log.SetOutput(&said)
	defer log.SetOutput(os.Stderr)
	r := start(t, nil, func(c net.Conn) { echo(c) })
	c := stranger(t, r.server.Addr().String(), quic.Version1)
	if !c.ConnectionState().GSO {
		t.Error("no segmentation offload")
	}
	conn, err := dialled(t, opened(t, map[string]any{"mode": modeDatagram}), r.endpoint(t, "x"), transport.Dial{})
	if err != nil {
		t.Fatal(err)
	}
	if err := works(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	if said.Len() > 0 {
		t.Error(said.String())
	}
}

// TestEnlarge: a socket has the buffers that it wants, or the system's limit, and says
// which.
func TestEnlarge(t *testing.T) {
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	limit := bufferSize
	for _, name := range []string{"rmem_max", "wmem_max"} {
		text, err := os.ReadFile("/proc/sys/net/core/" + name)
		if err != nil {
			t.Skip("this network namespace does not show the limit")
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		limit = min(limit, n)
	}
	if got := enlarge(udp); got != limit && got != bufferSize { // the latter with CAP_NET_ADMIN
		t.Errorf("%d bytes, the limit is %d", got, limit)
	}
}
