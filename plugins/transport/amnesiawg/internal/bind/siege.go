package bind

import "time"

const (
	// siegeFrom is how many datagrams a second that are no message make a siege;
	// it is over when the system dropped less than half as many.
	siegeFrom = 2000
	// siegeWindow is how long is counted before, siegeLook how often it is looked
	// whether a siege is over.
	siegeWindow = 250 * time.Millisecond
	siegeLook   = 2 * time.Second
	// siegeMost is when the wall falls in any case: the system also counts what found
	// the buffer full. If the flood goes on, it is up again after a siegeWindow.
	siegeMost = 30 * time.Second
)

// A wall has the system drop datagrams that no peer would send: they take no room in
// the socket's buffer then, and wake nobody. While it stands, datagrams come one by one
// where they were joined before.
type wall interface {
	// raise and lower may be called in any state; raise says whether it stands.
	raise() bool
	lower()
	// dropped is how many datagrams the socket has lost so far, for any reason; it
	// wraps.
	dropped() uint32
}

// siege raises the wall of a socket while strangers flood it. It belongs to the
// goroutine that reads.
type siege struct {
	b     *Bind
	wall  wall // nil where there is none
	up    bool
	began time.Time // when it was raised
	since time.Time
	count int    // rejected since
	drops uint32 // at since
}

func newSiege(b *Bind, w wall) siege {
	if w != nil {
		w.lower() // it may stand from the time before Close
	}
	return siege{b: b, wall: w}
}

// rejected notes one more datagram that the wall would not pass.
func (s *siege) rejected() { s.count++ }

// look is called before each wait for datagrams.
func (s *siege) look() {
	if s.wall == nil || !s.up && s.count == 0 {
		return
	}
	now := s.b.o.Now()
	past := now.Sub(s.since)
	switch {
	// A reader that gets little time looks seldom: then it is the rate that tells.
	case !s.up && s.count >= int(siegeFrom*siegeWindow/time.Second) && float64(s.count) >= siegeFrom*past.Seconds():
		s.up = s.wall.raise()
		if !s.up {
			s.wall = nil // never again
		}
		s.began, s.since, s.drops = now, now, s.dropped()
	case !s.up && past > siegeWindow:
		s.since, s.count = now, 0
	case s.up && past > siegeLook:
		n := s.dropped()
		s.b.stats.Walled.Add(uint64(n - s.drops))
		if now.Sub(s.began) > siegeMost || float64(n-s.drops) < siegeFrom/2*past.Seconds() {
			s.wall.lower()
			s.up, s.count = false, 0
		}
		s.since, s.drops = now, n
	}
}

// end lowers the wall when nobody reads any more. Close does so as well, but may have
// come before a raise.
func (s *siege) end() {
	if s.up {
		s.wall.lower()
		s.up = false
	}
}

func (s *siege) dropped() uint32 {
	if s.wall == nil {
		return 0
	}
	return s.wall.dropped()
}
