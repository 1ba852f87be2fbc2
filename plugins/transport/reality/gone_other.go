//go:build !linux

package reality

import (
	"net"
	"time"
)

// awaitGone cannot tell here.
func awaitGone(net.Conn, time.Time) (gone, able bool) { return false, false }

// isClosed cannot tell here.
func isClosed(net.Conn) bool { return false }
