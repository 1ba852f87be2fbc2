package onion

import (
	"time"

	"github.com/commucat/commucat/plugins/transport/internal/agent"
)

// A descriptor has a revision, which counts seconds: of two that are sent in the same
// second directories refuse the later one, and tor leaves it at that for an hour or two.
// So what changes a descriptor is kept apart from the one before, and a refused one is
// followed by another.
//
// The operator's tor needs a new service for each change: until its descriptor is with the
// directories nobody comes in. So many changes in a row are few there, and a refusal waits
// until other directories had the time to take the descriptor.
var (
	paceOwn            = agent.Pauses{Least: 1500 * time.Millisecond, Most: 6 * time.Second, Well: 20 * time.Second}
	paceForeign        = agent.Pauses{Least: 2 * time.Second, Most: 30 * time.Second, Well: time.Minute}
	paceRefused        = agent.Pauses{Least: 2 * time.Second, Most: 10 * time.Minute, Well: 30 * time.Minute}
	paceRefusedForeign = agent.Pauses{Least: 10 * time.Second, Most: 10 * time.Minute, Well: 30 * time.Minute}
)

// schedule says when tor is told of guests, and when a refused descriptor is followed by
// another. The pauses behind refusals grow long; guests do not wait for them.
type schedule struct {
	between agent.Pauses // of changes
	behind  agent.Pauses // refusals

	last  time.Time     // when the last descriptor was made
	pause time.Duration // behind it
	news  bool          // guests have changed since

	refused time.Time     // when the last refusal was noticed
	again   time.Duration // behind it
	open    bool          // it is yet to be followed by another descriptor
}

// next is how long tor is left alone yet. news says that guests have changed, rejected that
// a descriptor was refused, and sent is when tor began to send the last one. It is false
// where there is nothing to tell.
func (p *schedule) next(now, sent time.Time, news, rejected bool) (time.Duration, bool) {
	if sent.After(p.last) {
		p.last = sent
	}
	if rejected && !p.open {
		p.again, p.refused = p.behind.Next(p.again, now.Sub(p.refused)), now
	}
	p.open = rejected
	if news && !p.news {
		p.pause = p.between.Next(p.pause, now.Sub(p.last))
	}
	p.news = news
	switch {
	case news:
		return p.last.Add(p.pause).Sub(now), true
	case rejected:
		return max(p.refused.Add(p.again).Sub(now), p.last.Add(p.between.Least).Sub(now)), true
	}
	return 0, false
}

// told notes that tor has been told of everything. A refusal that is there yet is one more.
func (p *schedule) told(now time.Time) { p.last, p.news, p.open = now, false, false }
