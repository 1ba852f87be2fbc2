package audit

import (
	"maps"
	"sync"
	"time"
)

// lost counts events that could not be recorded, until a record says so: a chain that
// leaves something out names what.
type lost struct {
	mu          sync.Mutex
	n           uint64
	from, until time.Time
	actions     map[string]uint64
}

// most bounds what a record of lost events lists.
const most = 64

func (l *lost) add(p pending) {
	if p.flushed != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n == 0 {
		l.from, l.actions = p.at, map[string]uint64{}
	}
	l.n, l.until = l.n+1, p.at
	if _, known := l.actions[p.event.Action]; known || len(l.actions) < most {
		l.actions[p.event.Action]++
	}
}

// take gives the event that tells of the lost ones, if there are any.
func (l *lost) take() (Event, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n == 0 {
		return Event{}, false
	}
	e := Lost(l.n, l.from, l.until, l.actions)
	l.n = 0
	return e, true
}

// Lost: n events between two times could not be recorded, so many of each action.
func Lost(n uint64, from, until time.Time, actions map[string]uint64) Event {
	return Event{Action: "audit.lost", kind: "relay", id: "audit", fields: map[string]any{
		"events": n, "from": stamp(from), "until": stamp(until), "actions": maps.Clone(actions),
	}}
}

// RolledBack: a ledger has fewer records than it took, or the chain fewer than a ledger
// was given.
func RolledBack(ledger string, has, took uint64) Event {
	return Event{Action: "ledger.rolled_back", kind: "relay", id: "ledger", fields: map[string]any{"ledger": ledger, "has": has, "took": took}}
}
