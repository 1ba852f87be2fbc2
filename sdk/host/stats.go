package host

// Stats are counts of a process.
type Stats struct {
	// Pumped and Sockets are open streams: those that the plugin process pumps, and
	// bare sockets, which it is out of.
	Pumped, Sockets int
	// Foreign are descriptors that were refused: no connected stream socket, or
	// where none belongs.
	Foreign uint64
	// Truncated are hand-off messages that were cut off, also because this process
	// had no descriptor left; Malformed could not be read.
	Truncated, Malformed uint64
	// LogDropped are lines of the log that were over the limit.
	LogDropped uint64
}
