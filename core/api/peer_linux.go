package api

import (
	"net"

	"golang.org/x/sys/unix"
)

// peer asks the kernel who connected (SO_PEERCRED). The process is 0 where this one
// cannot see it.
func peer(c *net.UnixConn) (uid uint32, pid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var cred *unix.Ucred
	var got error
	if err := raw.Control(func(fd uintptr) { cred, got = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, 0, err
	}
	if got != nil {
		return 0, 0, got
	}
	return cred.Uid, int(cred.Pid), nil
}
