package handoff

import "sync/atomic"

// Counters count what a receiver refused. They may be shared by many Sockets.
type Counters struct {
	// Foreign are descriptors that are no connected stream socket, or that came
	// where none belongs.
	Foreign atomic.Uint64
	// Truncated are messages that were cut off, also because this process had no
	// descriptor left.
	Truncated atomic.Uint64
	// Malformed are messages that could not be read.
	Malformed atomic.Uint64
}
