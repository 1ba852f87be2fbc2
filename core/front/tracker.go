package front

import "sync"

// tracker counts sessions, which may begin while a drain already waits.
type tracker struct {
	mu      sync.Mutex
	n       int
	waiting []chan struct{}
}

func (t *tracker) add(d int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n += d; t.n == 0 {
		for _, c := range t.waiting {
			close(c)
		}
		t.waiting = nil
	}
}

// idle returns a channel that closes when no session runs.
func (t *tracker) idle() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := make(chan struct{})
	if t.n == 0 {
		close(c)
	} else {
		t.waiting = append(t.waiting, c)
	}
	return c
}
