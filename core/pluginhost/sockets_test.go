package pluginhost

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A process that was killed may leave a filter on the socket that it was lent; whoever is
// lent it next gets everything all the same.
func TestLentSocketIsUnmarked(t *testing.T) {
	s := newSockets()
	t.Cleanup(s.close)
	take := func() (*net.UDPConn, *lender) {
		l := s.lend(claims{udp: true, free: map[string]bool{"": true}})
		c, err := l.packet(t.Context(), "udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c.(*net.UDPConn), l
	}
	control := func(c *net.UDPConn, f func(fd int) error) {
		t.Helper()
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if cerr := raw.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil || err != nil {
			t.Fatal(cerr, err)
		}
	}
	nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	former, process := take()
	control(former, func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1); err != nil {
			return err
		}
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing[0]})
	})
	process.back()
	lent, _ := take()
	if lent.LocalAddr().String() != former.LocalAddr().String() {
		t.Fatal("another socket")
	}
	out, err := net.Dial("udp", lent.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := out.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	_ = lent.SetReadDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, 16)
	if n, err := lent.Read(buf); err != nil || string(buf[:n]) != "hello" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	control(lent, func(fd int) error {
		joins, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO)
		if joins != 0 {
			t.Error("datagrams are joined")
		}
		return err
	})
}
