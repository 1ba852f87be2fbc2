package memory

import (
	"context"
	"sync"

	"github.com/commucat/commucat/sdk/storage"
)

// bus joins the subscribers of this process. A subscriber that is behind by more
// than the backlog misses messages.
type bus struct {
	mu      sync.Mutex
	nodes   map[string]map[chan []byte]struct{}
	backlog int
	closed  chan struct{}
	once    sync.Once
}

func newBus(backlog int) *bus {
	return &bus{nodes: make(map[string]map[chan []byte]struct{}), backlog: backlog, closed: make(chan struct{})}
}

func (b *bus) close() { b.once.Do(func() { close(b.closed) }) }

func (b *bus) Publish(_ context.Context, node string, messages [][]byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.nodes[node] {
		for _, m := range messages {
			select {
			case c <- append([]byte{}, m...):
			default:
			}
		}
	}
	return nil
}

func (b *bus) Subscribe(ctx context.Context, self string, f func([]byte)) error {
	c := make(chan []byte, b.backlog)
	b.mu.Lock()
	if b.nodes[self] == nil {
		b.nodes[self] = make(map[chan []byte]struct{})
	}
	b.nodes[self][c] = struct{}{}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if delete(b.nodes[self], c); len(b.nodes[self]) == 0 {
			delete(b.nodes, self)
		}
	}()
	for {
		select {
		case m := <-c:
			f(m)
		case <-ctx.Done():
			return ctx.Err()
		case <-b.closed:
			return storage.ErrClosed
		}
	}
}
