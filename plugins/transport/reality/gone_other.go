//go:build !linux

package reality

import (
	"net"
	"time"
)

// awaitGone cannot tell here.
func awaitGone(net.Conn, time.Time) (gone, able bool) { return false, false }
