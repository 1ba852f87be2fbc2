package masque

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

const batches = true

// segment finds the size of UDP_SEGMENT among control messages, 0 if there is none.
func segment(oob []byte) int {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return 0
		}
		if h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_SEGMENT && len(data) >= 2 {
			return int(binary.NativeEndian.Uint16(data))
		}
		oob = rest
	}
	return 0
}
