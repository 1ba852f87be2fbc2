package ccp

import (
	"encoding/binary"
	"math/bits"
)

const (
	// WindowSize is how many counters below the highest a Window tells apart, and
	// how far ahead of it a counter may be.
	WindowSize = 4096
	// WindowBytes is the length of a marshalled Window.
	WindowBytes = 8 + WindowSize/8
	// MaxWindowRanges is the largest number of ranges that a Window can have.
	MaxWindowRanges = WindowSize/2 + 1
)

// Window remembers which counters of one log are done: the highest, and a bit
// for each of the WindowSize counters up to it. Everything below counts as done.
// The relay keeps one per device and log, a client one per sender device and
// log. The zero value knows of no counter. It is not safe for concurrent use.
type Window struct {
	high uint64
	// bits is a ring: counter c has bit c mod WindowSize. Bits of no counter in
	// reach are clear.
	bits [WindowSize / 64]uint64
}

// High is the highest counter marked, 0 if there is none.
func (w *Window) High() uint64 { return w.high }

// Check returns an *Error of kind BadID if the counter is 0 or more than
// WindowSize ahead of the highest.
func (w *Window) Check(counter uint64) error {
	if counter == 0 || counter > w.high && counter-w.high > WindowSize {
		return &Error{Kind: BadID, Field: "counter"}
	}
	return nil
}

// Mark makes a counter done and says whether it was not before. Its error is
// that of Check; nothing is marked then.
func (w *Window) Mark(counter uint64) (fresh bool, err error) {
	if err := w.Check(counter); err != nil {
		return false, err
	}
	if counter <= w.high {
		if w.Done(counter) {
			return false, nil
		}
		w.set(counter)
		return true, nil
	}
	if counter-w.high == WindowSize {
		w.bits = [WindowSize / 64]uint64{}
	} else {
		for c := w.high + 1; c < counter; c++ {
			w.bits[c%WindowSize/64] &^= 1 << (c % 64)
		}
	}
	w.high = counter
	w.set(counter)
	return true, nil
}

func (w *Window) set(counter uint64) { w.bits[counter%WindowSize/64] |= 1 << (counter % 64) }

// Done says whether a counter is marked or lies below the window.
func (w *Window) Done(counter uint64) bool {
	switch {
	case counter == 0 || counter > w.high:
		return false
	case w.high-counter >= WindowSize:
		return true
	}
	return w.bits[counter%WindowSize/64]&(1<<(counter%64)) != 0
}

// Ranges lists what is done, ascending, not adjoining, from and to included; the
// counters below the window belong to the first range. At most MaxWindowRanges,
// nil if nothing is done.
func (w *Window) Ranges() [][2]uint64 { return w.AppendRanges(nil) }

// AppendRanges is Ranges appending to dst.
func (w *Window) AppendRanges(dst [][2]uint64) [][2]uint64 {
	var first, from uint64 = 1, 0
	if w.high > WindowSize {
		first, from = w.high-WindowSize+1, 1
	}
	// The counter in hand is compared with the end before it grows, so that a
	// window at the very top of the range ends too.
	for c := first; w.high != 0; c++ {
		switch done := w.Done(c); {
		case done && from == 0:
			from = c
		case !done && from != 0:
			dst, from = append(dst, [2]uint64{from, c - 1}), 0
		}
		if c == w.high {
			return append(dst, [2]uint64{from, c})
		}
	}
	return dst
}

// Count is the number of counters in reach that are marked.
func (w *Window) Count() int {
	n := 0
	for _, word := range w.bits {
		n += bits.OnesCount64(word)
	}
	return n
}

// AppendBinary appends WindowBytes bytes: the highest counter, big endian, and
// the ring of bits, the bit of counter c being bit c mod 8 of byte c mod 4096 / 8.
// Its error is always nil.
func (w *Window) AppendBinary(dst []byte) ([]byte, error) {
	dst = binary.BigEndian.AppendUint64(dst, w.high)
	for _, word := range w.bits {
		dst = binary.LittleEndian.AppendUint64(dst, word)
	}
	return dst, nil
}

// MarshalBinary is AppendBinary to a fresh slice.
func (w *Window) MarshalBinary() ([]byte, error) {
	return w.AppendBinary(make([]byte, 0, WindowBytes))
}

// UnmarshalBinary reads the form of MarshalBinary and nothing else: the bit of
// the highest counter must be set, and bits of counters below 1 clear. On error,
// an *Error of kind Field, the window is unchanged.
func (w *Window) UnmarshalBinary(b []byte) error {
	if len(b) != WindowBytes {
		return badField("window", "not 520 bytes")
	}
	v := Window{high: binary.BigEndian.Uint64(b)}
	for i := range v.bits {
		v.bits[i] = binary.LittleEndian.Uint64(b[8+8*i:])
	}
	switch {
	case v.high == 0 && v.Count() != 0:
		return badField("window", "bits without a counter")
	case v.high != 0 && !v.Done(v.high):
		return badField("window", "highest counter is not marked")
	}
	if v.high < WindowSize {
		for c := v.high + 1; c <= WindowSize; c++ {
			if v.bits[c%WindowSize/64]&(1<<(c%64)) != 0 {
				return badField("window", "bits above the highest counter")
			}
		}
	}
	*w = v
	return nil
}
