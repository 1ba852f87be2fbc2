package relay

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
)

// recipient is one device of a route. It is immutable and shared by every
// message that takes the route.
type recipient struct {
	device  string
	lane    *lane
	own     bool // of the sender's account
	copy    bool // only for the sender's information; may fail
	records bool
	ack     bool
}

// row is one message on its way to one queue.
type row struct {
	f *flight
	r *recipient
}

// flight is one message between Handle and the sender's Ack. Its envelope is
// shared by all rows; body is never reused.
type flight struct {
	link    *Link // nil for frames of the server
	log     *outLog
	epoch   uint32
	seq     uint32 // of the frame, for an old peer's Ack
	env     envelope
	id      [16]byte
	expires time.Time
	arrived time.Time
	extras  []ccp.Member // further keys of an old peer's Ack
	cost    int

	moved *moving     // a row moved behind the others
	then  func(error) // of a frame of the server

	left   atomic.Int32 // rows that the Ack waits for
	refs   atomic.Int32 // all rows, and the builder
	failed atomic.Bool

	mu      sync.Mutex
	refused []refused
	stored  int
}

type refused struct{ device, code string }

var flights = sync.Pool{New: func() any { return new(flight) }}

func newFlight() *flight { return flights.Get().(*flight) }

// release drops one reference.
func (f *flight) release() {
	if f.refs.Add(-1) > 0 {
		return
	}
	refs := f.refused
	for i := range refs {
		refs[i] = refused{}
	}
	f.link, f.log, f.extras, f.moved, f.then = nil, nil, nil, nil, nil
	f.env = envelope{}
	f.refused = refs[:0]
	f.stored, f.epoch, f.seq, f.cost = 0, 0, 0, 0
	f.expires, f.arrived = time.Time{}, time.Time{}
	f.failed.Store(false)
	f.left.Store(0)
	flights.Put(f)
}

func (f *flight) refuse(device, code string) {
	f.mu.Lock()
	f.refused = append(f.refused, refused{device, code})
	f.mu.Unlock()
}

// stale says that an earlier message of the same log failed for a passing
// reason, so this one must not be stored before the sender repeats it.
func (f *flight) stale() bool {
	return f.failed.Load() || f.log != nil && f.log.epoch.Load() != f.epoch
}

// delivery is what the recipient's session gets.
func (f *flight) delivery(r *recipient, position uint64) Delivery {
	d := Delivery{
		Position: position, Kind: f.env.kind, Flags: f.env.flags, ID: f.env.id, Channel: f.env.channel,
		Time: f.env.time, Device: f.env.device, User: f.env.user, Body: f.env.body,
	}
	if r.own {
		d.Flags |= FlagOwnCopy
	}
	return d
}

// directChannel is where an old peer sees a direct message.
func directChannel(a, b string) uint32 { return ccp.DirectChannel(a, b) }

// result is the outcome of a frame of the server.
func (f *flight) result() error {
	if f.failed.Load() || f.stored == 0 {
		return errNotStored
	}
	return nil
}
