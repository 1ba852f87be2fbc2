package reality

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// keptAlive is after how many idle seconds a socket sends segments of its own; 0 is never.
func keptAlive(t *testing.T, c net.Conn) (seconds int) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		var on int
		if on, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE); failed == nil && on != 0 {
			seconds, failed = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
		}
	}); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	return seconds
}

// TestKeepAlive: everybody on the way sees keep-alive segments. A session's are those of a
// browser on the one side and the cover's on the other.
func TestKeepAlive(t *testing.T) {
	for _, p := range profiles() {
		if probes := p.keepAlive().Enable; probes != (p.name == "chrome" || p.name == "edge") {
			t.Errorf("%s sends keep-alives: %v", p.name, probes)
		}
	}
	for name, cover := range covers(t) {
		r := startServer(t, baseConfig(t, cover))
		_, w := dialWire(t, r)
		s, err := r.ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		want := 0
		if cover == coverSelf {
			want = 180
		}
		if client, server := keptAlive(t, w.TCPConn), keptAlive(t, s.(*stream).raw); client != 45 || server != want {
			t.Errorf("%s: after %d s at the client, want 45; after %d s at the server, want %d", name, client, server, want)
		}
	}
}
