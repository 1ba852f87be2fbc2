package split

import (
	"bytes"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/commucat/commucat/sdk/entry"
	"github.com/commucat/commucat/transports/internal/gate"
)

// bare is a long-poll server without a network.
func bare() *Server {
	verify := func(string, string, string) (entry.Stream, bool, error) { return entry.Stream{}, false, nil }
	return NewServer("split", false, gate.Options{Path: "/c", Cookie: "sid", Verify: verify}, DefaultTimes())
}

// ask makes one request of the stream n and gives its status.
func ask(s *Server, from string, op entry.Op, n int, offset uint64, accept func(net.Conn)) int {
	method := http.MethodPost
	if op <= entry.OpDown {
		method = http.MethodGet
	}
	st := entry.Stream{Op: op, Offset: offset, ID: [16]byte{byte(n >> 16), byte(n >> 8), byte(n)}}
	r := httptest.NewRequest(method, "/c", http.NoBody)
	r.RemoteAddr = from
	r.Header.Set("Cookie", "sid="+string(bytes.Repeat([]byte("A"), entry.TokenLength))+"."+st.String())
	w := httptest.NewRecorder()
	s.Serve(w, r, accept)
	return w.Code
}

// TestStreamsEndWithTheirSession: a stream whose session has ended stays while the
// client fetches what it said, and a moment longer for who asks again.
func TestStreamsEndWithTheirSession(t *testing.T) {
	for _, c := range []struct {
		name, last string
		fetched    uint64
		stays      time.Duration
	}{
		{"it said nothing", "", 0, 3 * time.Second},
		{"all was fetched", "bye", 3, 3 * time.Second},
		{"nothing was fetched", "bye", 0, time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := bare()
				const from = "203.0.113.7:1"
				if code := ask(s, from, entry.OpOpen, 1, 0, func(x net.Conn) { _, _ = x.Write([]byte(c.last)) }); code >= 300 {
					t.Fatal(code)
				}
				synctest.Wait() // the session has ended
				if c.fetched > 0 {
					if code := ask(s, from, entry.OpDown, 1, c.fetched, nil); code != http.StatusOK {
						t.Fatal(code)
					}
				}
				time.Sleep(c.stays - time.Millisecond)
				if n := s.Streams(); n != 1 {
					t.Errorf("%d streams before the time is over", n)
				}
				time.Sleep(2 * time.Millisecond)
				synctest.Wait()
				if n := s.Streams(); n != 0 || len(s.places) != 0 {
					t.Errorf("%d streams are left, places %v", n, s.places)
				}
			})
		})
	}
}

// TestOneSourceLeavesPlaces: who fills its places keeps nobody else out, and each
// stream that ends gives one back.
func TestOneSourceLeavesPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, over := bare(), make(chan struct{})
		n := 0
		open := func(from string) bool {
			n++
			return ask(s, from, entry.OpOpen, n, 0, func(net.Conn) { <-over }) < 300
		}
		for i := range maxNear {
			if !open("203.0.113.7:1") {
				t.Fatalf("the stream %d is refused", i)
			}
		}
		if open("203.0.113.7:2") {
			t.Error("one address has more than its places")
		}
		if !open("203.0.113.8:1") || !open("") {
			t.Error("others are kept out")
		}
		if ask(s, "203.0.113.7:1", entry.OpClose, 1, entry.Abandon, nil) != http.StatusNoContent || !open("203.0.113.7:1") {
			t.Error("a stream that has ended gives its place not back")
		}
		close(over)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := s.Streams(); n != 0 || len(s.places) != 0 {
			t.Errorf("%d streams are left, places %v", n, s.places)
		}
	})
}

func TestPlaces(t *testing.T) {
	for _, c := range []struct {
		name string
		from func(i int) sources
		most int
	}{
		{"an address", func(int) sources { return sourcesOf(netip.MustParseAddr("203.0.113.7")) }, maxNear},
		{"an address in IPv6", func(int) sources { return sourcesOf(netip.MustParseAddr("::ffff:203.0.113.7")) }, maxNear},
		{"an IPv6 /64", func(i int) sources {
			return sourcesOf(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 14: byte(i >> 8), 15: byte(i)}))
		}, maxNear},
		{"an IPv4 /24", func(i int) sources { return sourcesOf(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})) }, maxFar},
		{"an IPv6 /48", func(i int) sources {
			return sourcesOf(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 6: byte(i >> 8), 7: byte(i)}))
		}, maxFar},
		{"hidden", func(int) sources { return sourcesOf(netip.Addr{}) }, maxHidden},
		{"this machine", func(i int) sources { return sourcesOf(netip.AddrFrom4([4]byte{127, 0, 0, byte(i)})) }, maxHidden},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, n := make(places), 0
			for n <= maxStreams && p.take(c.from(n)) {
				n++
			}
			if n != c.most {
				t.Errorf("%d places, want %d", n, c.most)
			}
			for i := range n {
				p.leave(c.from(i))
			}
			if len(p) != 0 {
				t.Errorf("left over: %v", p)
			}
		})
	}
}
