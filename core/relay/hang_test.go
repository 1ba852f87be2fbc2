package relay

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/storage"
)

// hanging is a store that, once on, lets a call wait until its caller gives up.
type hanging struct {
	on    atomic.Bool
	calls atomic.Int32
}

var errNoAnswer = errors.New("no answer in time")

func (h *hanging) wait(ctx context.Context) error {
	if !h.on.Load() {
		return nil
	}
	h.calls.Add(1)
	<-ctx.Done()
	return errNoAnswer
}

type hangingRoutes struct {
	storage.Routes
	*hanging
}

func (r hangingRoutes) Renew(ctx context.Context, now time.Time, list []storage.Renewal) ([]bool, error) {
	if err := r.wait(ctx); err != nil {
		return nil, err
	}
	return r.Routes.Renew(ctx, now, list)
}

type hangingAccounts struct {
	Accounts
	*hanging
}

func (a hangingAccounts) Device(ctx context.Context, id string) (Device, error) {
	if err := a.wait(ctx); err != nil {
		return Device{}, err
	}
	return a.Accounts.Device(ctx, id)
}

// TestHangingStore: a store that does not answer is waited for once in a renewal, not
// once for each shard or device, so that the rest goes on.
func TestHangingStore(t *testing.T) {
	tests := map[string]func(o *Options, h *hanging){
		"routes":   func(o *Options, h *hanging) { o.Store.Routes = hangingRoutes{o.Store.Routes, h} },
		"accounts": func(o *Options, h *hanging) { o.Accounts = hangingAccounts{o.Accounts, h} },
	}
	for name, set := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h := &hanging{}
				b := newBed(t, func(o *Options) {
					o.Store.Bus, o.Traits.Shared, o.Node = &wire{}, true, "a"
					set(o, h)
				})
				defer b.stop()
				for i := range 300 { // some in every shard
					b.connect(fmt.Sprintf("d%d.1", i), allCaps, 0)
				}
				after(time.Second)
				h.on.Store(true)
				after(time.Minute) // of renewals every 9 to 10 s, and 5 s of waiting in each
				if n := h.calls.Load(); n < 3 || n > 6 {
					t.Errorf("%d calls in a minute", n)
				}
			})
		})
	}
}
