package masque

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// marked is a stream that knows whether it was closed.
type marked struct {
	net.Conn
	closed atomic.Bool
}

func (m *marked) Close() error { m.closed.Store(true); return nil }

// TestHandWhileClosing: a stream that comes while the server is closed is not
// forgotten in the queue.
func TestHandWhileClosing(t *testing.T) {
	revoked, err := openRevocations(filepath.Join(t.TempDir(), revokedFile))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		s := &server{accepted: make(chan net.Conn, acceptQueue), done: make(chan struct{}), guests: newGuests(1, 0, time.Now), revoked: revoked}
		var streams [acceptQueue]marked
		var all sync.WaitGroup
		for k := range streams {
			if k == len(streams)/2 {
				all.Go(func() { _ = s.Close() })
			}
			all.Go(func() {
				if s.hand(&streams[k]) != nil {
					_ = streams[k].Close()
				}
			})
		}
		all.Wait()
		for k := range streams {
			if !streams[k].closed.Load() {
				t.Fatalf("round %d: stream %d waits for nobody", i, k)
			}
		}
	}
}

// TestRevokedBetween: a revocation between a guest's proof and its stream counts.
func TestRevokedBetween(t *testing.T) {
	s := proxying(t, time.Now)
	if err := s.Revoke(t.Context(), "late"); err != nil {
		t.Fatal(err)
	}
	r := &http.Request{Method: http.MethodConnect, Host: "relay.example", Body: http.NoBody, ProtoMajor: 2, TLS: &tls.ConnectionState{ServerName: "relay.example"}}
	over, answer := make(chan struct{}), httptest.NewRecorder()
	go func() {
		defer close(over)
		(&site{server: s}).guest(answer, r, grant{guest: "late"})
	}()
	select {
	case <-over:
		if answer.Code != http.StatusOK {
			t.Error(answer.Code) // then it was not about the revocation
		}
	case <-time.After(10 * time.Second):
		t.Error("the stream of a revoked guest goes on")
		if c, err := s.Accept(); err == nil {
			_ = c.Close()
		}
		<-over
	}
}

// TestOrigin: behind a tunnel is the guest's address, and an outside address that looks
// like a tunnel's is what it is.
func TestOrigin(t *testing.T) {
	s := &server{inner: newInner()}
	guest := netip.MustParseAddrPort("198.51.100.7:4433")
	at := s.inner.add(&tunnel{client: guest}).AddrPort()
	other := netip.MustParseAddrPort("[fd00::99:0:0:1]:1")
	for _, c := range []struct {
		inside    bool
		from, got netip.AddrPort
	}{{true, at, guest}, {true, other, other}, {false, at, at}, {false, guest, guest}} {
		f := (&site{server: s, inside: c.inside}).facts(&http.Request{RemoteAddr: c.from.String()})
		if f.Remote != c.got {
			t.Errorf("inside %v, from %v: %v", c.inside, c.from, f.Remote)
		}
	}
}
