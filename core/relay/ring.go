package relay

import "sync"

// ring holds what was pushed to a session and is not acknowledged, in the order
// of positions.
type ring struct {
	items   []sent
	buf     *[ringSize]sent
	head    int
	waiting int // items that are not done
	bytes   int // of those
}

// Rings borrow their memory, so that an idle session holds none.
var ringBuffers = sync.Pool{New: func() any { return new([ringSize]sent) }}

const ringSize = 256

type sent struct {
	pos  uint64
	size int
	done bool
}

// compact closes the gaps that done items leave behind an older one that is not.
func (r *ring) compact() {
	live := r.items[:0]
	for _, it := range r.items[r.head:] {
		if !it.done {
			live = append(live, it)
		}
	}
	r.items, r.head = live, 0
}

func (r *ring) push(pos uint64, size int) {
	if r.items == nil {
		r.buf = ringBuffers.Get().(*[ringSize]sent)
		r.items = r.buf[:0]
	}
	if len(r.items) == cap(r.items) && 2*r.waiting < len(r.items) {
		r.compact()
	}
	r.items = append(r.items, sent{pos: pos, size: size})
	r.waiting++
	r.bytes += size
}

// done marks the positions from..to as acknowledged and reports the first and
// last that were waiting, and how many.
func (r *ring) done(from, to uint64) (first, last uint64, n int) {
	for i := r.search(from); i < len(r.items); i++ {
		it := &r.items[i]
		if it.pos > to {
			break
		}
		if it.done {
			continue
		}
		it.done = true
		r.waiting--
		r.bytes -= it.size
		if n == 0 {
			first = it.pos
		}
		last = it.pos
		n++
	}
	for r.head < len(r.items) && r.items[r.head].done {
		r.head++
	}
	if r.items != nil && r.head == len(r.items) {
		r.free()
	}
	return first, last, n
}

// first is the first position that waits, or 0.
func (r *ring) first() uint64 {
	if r.waiting == 0 {
		return 0
	}
	return r.items[r.head].pos // done passes over those that are done
}

// search is the index of the first item at or behind pos.
func (r *ring) search(pos uint64) int {
	lo, hi := r.head, len(r.items)
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if r.items[m].pos < pos {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo
}

// free gives the memory back.
func (r *ring) free() {
	if r.buf != nil {
		ringBuffers.Put(r.buf)
	}
	*r = ring{}
}
