package relay

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/storage"
)

// gatedAccounts lets Resolve wait for the gate, and then fail with err.
type gatedAccounts struct {
	Accounts
	mu   sync.Mutex
	gate chan struct{}
	err  error
}

func (a *gatedAccounts) Resolve(ctx context.Context, name string) ([]Device, string, error) {
	a.mu.Lock()
	gate, err := a.gate, a.err
	a.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
		}
		if err != nil {
			return nil, "", err
		}
	}
	return a.Accounts.Resolve(ctx, name)
}

// TestNothingOvertakesAFailure: while the route of a message is being asked for, an
// earlier message to the same device is given up. The later one must not be stored
// before that, whether its route is found or not, and the repetition of both must be
// taken.
func TestNothingOvertakesAFailure(t *testing.T) {
	for name, answer := range map[string]error{"the route is found": nil, "the route is not found": errStore} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				acc := &gatedAccounts{}
				b := newBed(t, func(o *Options) { acc.Accounts = o.Accounts; o.Accounts = acc })
				defer b.stop()
				s, a := b.connect("s.1", allCaps, 0), b.connect("a.1", allCaps, 0)
				b.acc.add("c.1", allCaps)
				s.send("a.1", "1")
				settle()
				down := true
				b.store.set(func() {
					b.store.fail = func(storage.Batch) error {
						if down {
							return errStore
						}
						return nil
					}
				})
				s.send("a.1", "2")
				gate := make(chan struct{})
				acc.mu.Lock()
				acc.gate, acc.err = gate, answer
				acc.mu.Unlock()
				// Another list of names is another route.
				both := []string{"a.1", "c.1"}
				if err := s.sendAs(3, 0, both, "3", 0); err != nil {
					t.Fatal(err)
				}
				after(6 * time.Second)
				b.store.set(func() { down = false })
				acc.mu.Lock()
				acc.gate = nil
				acc.mu.Unlock()
				close(gate)
				settle()
				check(t, "before the repetition", a.bodies(), "1")
				if err := s.sendAs(2, 0, []string{"a.1"}, "2", 0); err != nil {
					t.Fatal(err)
				}
				if err := s.sendAs(3, 0, both, "3", 0); err != nil {
					t.Fatal(err)
				}
				settle()
				after(2 * time.Second) // the lane may be waiting to repeat a batch of marks
				check(t, "after it", a.bodies(), "2 3")
				check(t, "acknowledged", merged(s.acked()), "1-3")
			})
		})
	}
}
