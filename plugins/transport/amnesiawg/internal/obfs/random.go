package obfs

import (
	"encoding/binary"
	"math/rand/v2"
)

// Fill fills b with random bytes. They come from the runtime's ChaCha8 generator,
// seeded by the system: good enough for what must look random, not for keys.
func Fill(b []byte) {
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, rand.Uint64())
		b = b[8:]
	}
	if len(b) > 0 {
		v := rand.Uint64()
		for i := range b {
			b[i] = byte(v >> (8 * i))
		}
	}
}

// fillUnlike is Fill for what begins a datagram: it never begins like a message
// of plain WireGuard.
func fillUnlike(b []byte) {
	Fill(b)
	Unlike(b)
}

// Unlike changes random bytes that begin a datagram so that it never begins like
// a message of plain WireGuard.
func Unlike(b []byte) {
	if len(b) >= 4 && b[1]|b[2]|b[3] == 0 {
		b[3] = byte(1 + rand.IntN(255))
	}
}

// plainSize says whether a datagram of n bytes has the length of one of plain
// WireGuard's handshake messages.
func plainSize(n int) bool { return n == InitiationSize || n == ResponseSize || n == CookieSize }

// Render makes the junk datagrams. None of them has the length of a handshake
// message of plain WireGuard, unless there is no other length.
func (j Junk) Render() [][]byte {
	out := make([][]byte, 0, j.Count)
	for range j.Count {
		n := j.Min
		for range 8 {
			if n = j.Min + rand.IntN(j.Max-j.Min+1); !plainSize(n) {
				break
			}
		}
		b := make([]byte, n)
		fillUnlike(b)
		out = append(out, b)
	}
	return out
}
