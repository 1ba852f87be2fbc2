package sqlite

// prints is a multiset of non-zero 32-bit fingerprints: open addressing with
// linear probing, 5 to 11 bytes an element. The zero value is empty.
type prints struct {
	slots []uint32 // 0: free; a power of two of them
	count int
}

func (p *prints) home(f uint32) int { return int(f) & (len(p.slots) - 1) }

func (p *prints) next(i int) int { return (i + 1) & (len(p.slots) - 1) }

func (p *prints) has(f uint32) bool {
	if p.count == 0 {
		return false
	}
	for i := p.home(f); p.slots[i] != 0; i = p.next(i) {
		if p.slots[i] == f {
			return true
		}
	}
	return false
}

func (p *prints) add(f uint32) {
	if 4*(p.count+1) > 3*len(p.slots) {
		old := p.slots
		p.slots, p.count = make([]uint32, max(16, 2*len(old))), 0
		for _, g := range old {
			if g != 0 {
				p.add(g)
			}
		}
	}
	i := p.home(f)
	for p.slots[i] != 0 {
		i = p.next(i)
	}
	p.slots[i] = f
	p.count++
}

// remove takes one f out; later elements of its run move up.
func (p *prints) remove(f uint32) {
	if p.count == 0 {
		return
	}
	i := p.home(f)
	for ; p.slots[i] != f; i = p.next(i) {
		if p.slots[i] == 0 {
			return
		}
	}
	p.count--
	for j := p.next(i); p.slots[j] != 0; j = p.next(j) {
		// The element at j may fill the hole unless its home lies behind it.
		home, mask := p.home(p.slots[j]), len(p.slots)-1
		if (j-home)&mask >= (j-i)&mask {
			p.slots[i] = p.slots[j]
			i = j
		}
	}
	p.slots[i] = 0
}
