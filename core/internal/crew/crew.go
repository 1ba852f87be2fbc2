package crew

import "runtime"

// Crew is a set of goroutines. It is safe for concurrent use.
type Crew struct {
	jobs  chan func()
	spare chan struct{} // a token for each goroutine that waits for work
	over  <-chan struct{}
}

// New makes a crew of which as many goroutines as twice the processors in use may wait
// for work. They end when over is closed.
func New(over <-chan struct{}) *Crew {
	return &Crew{make(chan func()), make(chan struct{}, 2*runtime.GOMAXPROCS(0)), over}
}

// Go runs f at once: on a goroutine that waits, or on a new one. f must not panic.
func (c *Crew) Go(f func()) {
	select {
	case c.jobs <- f:
	default:
		go c.member(f)
	}
}

func (c *Crew) member(f func()) {
	for {
		f()
		select {
		case c.spare <- struct{}{}:
		default:
			return
		}
		select {
		case f = <-c.jobs:
			<-c.spare
		case <-c.over:
			<-c.spare
			return
		}
	}
}
