package bind

import (
	"net/netip"
	"time"
)

const (
	// Each source may send budgetRate initiations a second under load, and
	// budgetBurst at once.
	budgetRate  = 20
	budgetBurst = 5
	// budgetSlots bounds how many sources are known; two that share a slot share
	// a budget.
	budgetSlots = 1024
)

// budget limits initiations of sources that have shown a cookie, so that their
// addresses are real: a /64 counts as one.
type budget struct {
	slots [budgetSlots]allowance
}

type allowance struct {
	left float64
	at   time.Time
}

func (b *budget) take(source netip.Addr, now time.Time) bool {
	h := uint32(2166136261)
	a := source.As16()
	n := 8
	if source.Is4() || source.Is4In6() {
		n = 16
	}
	for _, v := range a[:n] {
		h = (h ^ uint32(v)) * 16777619
	}
	s := &b.slots[(h^h>>16)%budgetSlots]
	s.left = min(budgetBurst, s.left+now.Sub(s.at).Seconds()*budgetRate)
	s.at = now
	if s.left < 1 {
		return false
	}
	s.left--
	return true
}
