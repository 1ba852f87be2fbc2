package host

import (
	"io"
	"time"
)

// Limits of how fast output of a process is taken, over each of its ways here.
const (
	paceBytes = 64 << 10 // at once: what a pipe holds
	paceRate  = 1 << 20  // and as many more each second
	paceEach  = 64       // what a message counts beside its bytes
)

// pace bounds how fast something is taken. What comes faster stays where it is: the
// process then waits in its own writing, and the relay does no work for it.
type pace struct {
	room float64
	last time.Time
	now  func() time.Time
	wait func(time.Duration)
}

func newPace(now func() time.Time, wait func(time.Duration)) *pace {
	return &pace{room: paceBytes, last: now(), now: now, wait: wait}
}

// took waits for as long as n bytes more are too much.
func (p *pace) took(n int) {
	now := p.now()
	p.room = min(paceBytes, p.room+paceRate*now.Sub(p.last).Seconds()) - float64(n)
	p.last = now
	if p.room < 0 {
		p.wait(time.Duration(-p.room / paceRate * float64(time.Second)))
	}
}

// pacedReader is a reader that is read at a pace.
type pacedReader struct {
	io.Reader
	pace *pace
}

func (r pacedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.pace.took(n)
	return n, err
}
