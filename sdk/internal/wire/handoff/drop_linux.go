package handoff

import "golang.org/x/sys/unix"

// Drop closes a descriptor that nobody wants; -1 is none.
func Drop(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}
