package sqlite

import "time"

// onReopen sets reopened.
func (p *pebbleRows) onReopen(f func()) {
	p.mu.Lock()
	p.reopened = f
	p.mu.Unlock()
}

// tell calls reopened. It waits for calls under way, all of which fail by now; one that
// the failed instance does not return from must not keep the new one from its work.
func (p *pebbleRows) tell() {
	p.mu.RLock()
	f := p.reopened
	p.mu.RUnlock()
	if f == nil {
		return
	}
	done := make(chan struct{})
	p.lost.Go(func() { f(); close(done) })
	select {
	case <-done:
	case <-time.After(patience):
	}
}
