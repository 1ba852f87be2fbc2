package chronicle

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
)

// What happened to a message.
type What uint8

// The events of a message.
const (
	// Sent: the sender has handed it to its client.
	Sent What = iota
	// Acked: the relay has acknowledged it.
	Acked
	// Shown: the recipient's client has handed it out.
	Shown
)

// Pair is who sends to whom.
type Pair struct{ From, To int }

// Event is one thing that happened to one message.
type Event struct {
	What What
	Pair
	// N numbers the messages of a pair from 0.
	N uint64
}

// Log is a list of events; it may be written by many goroutines at once.
type Log struct {
	mu     sync.Mutex
	events []Event
}

// Add writes an event down. For one pair, Sent events must come in the order of sending
// and Shown events in the order of showing.
func (l *Log) Add(what What, from, to int, n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, Event{what, Pair{from, to}, n})
}

// Events is a copy of what was written down, in order.
func (l *Log) Events() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}

// Report is what Check found.
type Report struct {
	Sent, Acked, Shown int
	// Lost were acknowledged and not shown. Twice were shown again. Early were shown
	// after a later one of their pair. Invented were shown or acknowledged and not
	// sent. Malformed are events that no test can have meant: the log is wrong.
	Lost, Twice, Early, Invented, Malformed []Event
}

// Good says that nothing went wrong.
func (r *Report) Good() bool {
	return len(r.Lost)+len(r.Twice)+len(r.Early)+len(r.Invented)+len(r.Malformed) == 0
}

// String is one line of counts, and the first few of what went wrong.
func (r *Report) String() string {
	s := fmt.Sprintf("%d sent, %d acknowledged, %d shown: %d lost, %d shown twice, %d out of order, %d invented",
		r.Sent, r.Acked, r.Shown, len(r.Lost), len(r.Twice), len(r.Early), len(r.Invented))
	for _, part := range []struct {
		name string
		list []Event
	}{{"lost", r.Lost}, {"twice", r.Twice}, {"out of order", r.Early}, {"invented", r.Invented}, {"malformed", r.Malformed}} {
		for i, e := range part.list {
			if i == 3 {
				s += fmt.Sprintf("\n%s: and %d more", part.name, len(part.list)-i)
				break
			}
			s += fmt.Sprintf("\n%s: %d to %d, message %d", part.name, e.From, e.To, e.N)
		}
	}
	return s
}

// fate is what is known of one message.
type fate struct{ sent, acked, shown bool }

// Check judges a log that is complete: nothing is under way any more.
func Check(events []Event) *Report {
	r := &Report{}
	pairs := map[Pair][]fate{}
	last := map[Pair]uint64{} // number behind the highest that was shown
	for _, e := range events {
		list := pairs[e.Pair]
		known := e.N < uint64(len(list))
		switch e.What {
		case Sent:
			r.Sent++
			if e.N != uint64(len(list)) {
				r.Malformed = append(r.Malformed, e)
				continue
			}
			pairs[e.Pair] = append(list, fate{sent: true})
		case Acked:
			r.Acked++
			switch {
			case !known:
				r.Invented = append(r.Invented, e)
			case list[e.N].acked:
				r.Malformed = append(r.Malformed, e)
			default:
				list[e.N].acked = true
			}
		case Shown:
			r.Shown++
			switch {
			case !known:
				r.Invented = append(r.Invented, e)
				continue
			case list[e.N].shown:
				r.Twice = append(r.Twice, e)
				continue
			case e.N < last[e.Pair]:
				r.Early = append(r.Early, e)
			}
			list[e.N].shown = true
			last[e.Pair] = max(last[e.Pair], e.N+1)
		default:
			r.Malformed = append(r.Malformed, e)
		}
	}
	for p, list := range pairs {
		for n, f := range list {
			if f.acked && !f.shown {
				r.Lost = append(r.Lost, Event{Acked, p, uint64(n)})
			}
		}
	}
	slices.SortFunc(r.Lost, func(a, b Event) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To), cmp.Compare(a.N, b.N))
	})
	return r
}
