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
	return b.slots[(h^h>>16)%budgetSlots].take(budgetRate, budgetBurst, now)
}

func (a *allowance) take(rate, burst float64, now time.Time) bool {
	a.left = min(burst, a.left+now.Sub(a.at).Seconds()*rate)
	a.at = now
	if a.left < 1 {
		return false
	}
	a.left--
	return true
}

const (
	// Cookie replies: replyRate a second and replyBurst at once for one address and
	// port, and replyTotal a second to all. Who floods alone gets no more than a
	// client; who floods from everywhere leaves a client, which asks several times,
	// a small chance, and sessions their processor.
	replyRate  = 5
	replyBurst = 3
	replyTotal = 2000
	replySlots = 4096
)

// replies limits cookie replies, whose receivers may not be where they say.
type replies struct {
	slots [replySlots]allowance
	all   allowance
}

func (r *replies) take(to netip.AddrPort, now time.Time) bool {
	h := uint32(2166136261) ^ uint32(to.Port())*2654435761
	a := to.Addr().As16()
	for _, v := range a {
		h = (h ^ uint32(v)) * 16777619
	}
	return r.slots[(h^h>>16)%replySlots].take(replyRate, replyBurst, now) && r.all.take(replyTotal, replyTotal/10, now)
}
