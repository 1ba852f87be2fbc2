//go:build !linux

package api

import (
	"net"
	"os"
)

// peerUID relies on the socket's mode where the kernel is not asked.
func peerUID(*net.UnixConn) (uint32, error) { return uint32(os.Geteuid()), nil }
