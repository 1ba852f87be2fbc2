package relay

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
)

func (a *fakeAccounts) revoke(device string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.devices[device]
	d.Active = false
	a.devices[device] = d
}

// betweenAccounts runs on once, after the devices of a name were read and before the
// relay learns of them.
type betweenAccounts struct {
	Accounts
	on func()
}

func (a *betweenAccounts) between() {
	if f := a.on; f != nil {
		a.on = nil
		f()
	}
}

func (a *betweenAccounts) Resolve(ctx context.Context, name string) ([]Device, string, error) {
	d, user, err := a.Accounts.Resolve(ctx, name)
	a.between()
	return d, user, err
}

func (a *betweenAccounts) Device(ctx context.Context, id string) (Device, error) {
	d, err := a.Accounts.Device(ctx, id)
	a.between()
	return d, err
}

// TestRouteIsNotOlderThanItsDevices: devices that change while a route is being found
// are those of the next message, not of one after Limits.RouteLife.
func TestRouteIsNotOlderThanItsDevices(t *testing.T) {
	for _, channel := range []uint32{0, 7} {
		t.Run(fmt.Sprint("channel ", channel), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				acc := &betweenAccounts{}
				b := newBed(t, func(o *Options) { acc.Accounts, o.Accounts = o.Accounts, acc })
				defer b.stop()
				s := b.connect("s.1", allCaps, 0)
				b.acc.add("a.1", allCaps)
				b.acc.add("a.2", allCaps)
				s.must(ccp.TypeJoin, 7, `{"members":["a.1","a.2"],"relay":true}`)
				settle()
				s.takeControls()
				b.hub.Changed("u-a")
				var to []string
				if channel == 0 {
					to = []string{"u-a"}
				}
				acc.on = func() { // a.1 is revoked, a.3 is added
					b.acc.revoke("a.1")
					b.acc.add("a.3", allCaps)
					if err := b.hub.Drop(t.Context(), "u-a", "a.1"); err != nil {
						t.Error(err)
					}
				}
				for i := range 3 {
					if err := s.sendAs(uint64(i+1), channel, to, "x", 0); err != nil {
						t.Fatal(err)
					}
					after(time.Second)
				}
				check(t, "acknowledged", s.acked(), map[uint32]string{0: "1-1 2-2 3-3", 7: "1-1 2-2 2:a.1:gone 3-3 3:a.1:gone"}[channel])
				if n := b.store.depth("a.1"); n > 1 {
					t.Errorf("%d rows for a device that is revoked, of more than the message that was under way", n)
				}
				if n := b.store.depth("a.2"); n != 3 {
					t.Errorf("%d rows", n)
				}
				if n := b.store.depth("a.3"); channel == 0 && n != 2 {
					t.Errorf("%d rows for a device that was added before the second message", n)
				}
			})
		})
	}
}

// TestRouteToADeviceThatComes: a name that stood for nothing is asked for again once the
// device has come.
func TestRouteToADeviceThatComes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		s := b.connect("s.1", allCaps, 0)
		b.connect("c.1", allCaps, 0)
		both := []string{"c.1", "new.1"}
		send := func(counter uint64) {
			t.Helper()
			if err := s.sendAs(counter, 0, both, "x", 0); err != nil {
				t.Fatal(err)
			}
			settle()
		}
		send(1)
		check(t, "nobody has the name", s.acked(), "1-1 1:new.1:unreachable")
		n := b.connect("new.1", allCaps, 0)
		send(2)
		check(t, "acknowledged", s.acked(), "2-2")
		check(t, "delivered", n.bodies(), "x")
	})
}
