package admission

import "golang.org/x/sys/unix"

// Unsent returns the bytes that the kernel has taken and the peer has not yet
// acknowledged (SIOCOUTQ); false where the socket is unknown or gone. On a
// connection that carries many streams it covers them all.
func (t *Ticket) Unsent() (int, bool) {
	if t == nil {
		return 0, false
	}
	t.gate.mu.Lock()
	c := t.socket
	t.gate.mu.Unlock()
	if c == nil {
		return 0, false
	}
	var n int
	var err error
	if c.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }) != nil || err != nil {
		return 0, false
	}
	return n, true
}
