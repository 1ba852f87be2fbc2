//go:build !linux

package api

import (
	"net"
	"os"
)

// peer relies on the socket's mode where the kernel is not asked.
func peer(*net.UnixConn) (uid uint32, pid int, err error) { return uint32(os.Geteuid()), 0, nil }
