package identity

import (
	"encoding/hex"
	"io"
)

// MaxDeviceID is the longest device id in bytes.
const MaxDeviceID = 64

// NewID makes an id of 256 random bits: 64 lower-case hex digits. nil random is
// crypto/rand, which cannot fail; another source that fails makes it panic,
// since an id that can be guessed is worse than none.
func NewID(random io.Reader) string { return randomHex(random, 32) }

// NewDeviceID makes the device id of a client of ours: 32 lower-case hex
// digits. It treats random as NewID does.
func NewDeviceID(random io.Reader) string { return randomHex(random, 16) }

func randomHex(random io.Reader, n int) string {
	b := make([]byte, n)
	if err := fill(random, b); err != nil {
		panic(err)
	}
	return hex.EncodeToString(b)
}

// ValidDeviceID reports whether s is 1 to 64 of A-Z a-z 0-9 - _ and dot.
func ValidDeviceID(s string) bool {
	if len(s) == 0 || len(s) > MaxDeviceID {
		return false
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}
