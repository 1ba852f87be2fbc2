package relay

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/storage"
)

const (
	upkeepBatch = 1024
	upkeepCall  = 5 * time.Second
	// hangs is how long a failed call of a store took if the next one is not
	// worth waiting for.
	hangs   = time.Second
	offline = "offline"
)

// upkeep writes what is volatile: presence and routes of connected devices, at
// once when they change and again every third of their life. Devices that went
// away keep presence and calls for the resume window.
type upkeep struct {
	h    *Hub
	wake chan struct{}

	mu     sync.Mutex
	states map[string]state    // announced states other than online
	beats  map[string]struct{} // to be announced now
	away   []departure         // in order of time
	left   map[string]uint64   // fence of each device's departure that counts
	haste  int                 // rounds of inspect that must not wait their turn
}

// state is what a session announced.
type state struct{ session, state string }

type departure struct {
	device, session string
	fence           uint64
	at              time.Time
}

func newUpkeep(h *Hub) *upkeep {
	return &upkeep{
		h: h, wake: make(chan struct{}, 1), states: map[string]state{}, beats: map[string]struct{}{}, left: map[string]uint64{},
	}
}

func (u *upkeep) signal() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// attached takes a session up again: its device has not left, and is announced as it was.
func (u *upkeep) attached(l *Link) {
	u.mu.Lock()
	delete(u.left, l.device)
	if s, ok := u.states[l.device]; ok && s.session != l.box.Session() {
		delete(u.states, l.device)
	}
	u.beats[l.device] = struct{}{}
	u.mu.Unlock()
	u.signal()
}

// state takes a client's own words about its presence.
func (u *upkeep) state(l *Link, word string) {
	u.mu.Lock()
	if word == ccp.StateOnline {
		delete(u.states, l.device)
	} else {
		u.states[l.device] = state{l.box.Session(), word}
	}
	u.beats[l.device] = struct{}{}
	u.mu.Unlock()
	u.signal()
}

// detached notes an end; ours is false if a newer link of the device is there.
func (u *upkeep) detached(l *Link, ours bool) {
	if !ours {
		return
	}
	u.mu.Lock()
	u.left[l.device] = l.fence
	u.away = append(u.away, departure{l.device, l.box.Session(), l.fence, u.h.now().Add(u.h.opt.Limits.ResumeWindow)})
	u.mu.Unlock()
	u.signal()
}

func (u *upkeep) run(ctx context.Context) {
	third := u.h.opt.Limits.PresenceTTL / 3
	renew := time.NewTimer(third)
	defer renew.Stop()
	gone := time.NewTimer(time.Hour)
	defer gone.Stop()
	for round := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-u.wake:
			u.announceChanged(ctx)
		case <-renew.C:
			u.renew(ctx)
			if u.h.bus.on() {
				u.h.sweep(ctx)
				for n := u.rounds(); n > 0 && u.inspect(ctx, round); n-- {
					round++
				}
			}
			u.h.endCalls(ctx, u.h.calls.Expire())
			renew.Reset(third - third/10 + rand.N(third/10+1))
		case <-gone.C:
		}
		gone.Reset(u.departed(ctx))
	}
}

// departed handles devices whose resume window is over and says when to look
// again.
func (u *upkeep) departed(ctx context.Context) time.Duration {
	now := u.h.now()
	var beats []storage.Beat
	var over []departure
	next := time.Hour
	u.mu.Lock()
	for len(u.away) > 0 {
		d := u.away[0]
		if d.at.After(now) {
			next = d.at.Sub(now)
			break
		}
		u.away = u.away[1:]
		if u.left[d.device] != d.fence {
			continue // it has come back since
		}
		delete(u.left, d.device)
		over = append(over, d)
	}
	u.mu.Unlock()
	var releases []storage.Renewal
	for _, d := range over {
		if u.h.Connected(d.device) {
			continue
		}
		u.mu.Lock()
		delete(u.states, d.device)
		u.mu.Unlock()
		beats = append(beats, storage.Beat{Device: d.device, State: offline, TTL: u.h.opt.Limits.PresenceTTL})
		releases = append(releases, storage.Renewal{Device: d.device, Session: d.session, Fence: d.fence})
		u.h.endCalls(ctx, u.h.calls.Disconnect(d.device))
	}
	if len(over) == 0 {
		return next
	}
	// Only where the route is still this session's: the device may have come back
	// at another node.
	if held, _ := u.renewRoutes(ctx, releases); held != nil {
		mine := beats[:0]
		for i, b := range beats {
			if held[i] {
				mine = append(mine, b)
			}
		}
		beats = mine
	}
	u.announce(ctx, beats)
	return next
}

func (u *upkeep) announceChanged(ctx context.Context) {
	u.mu.Lock()
	changed := u.beats
	u.beats = map[string]struct{}{}
	u.mu.Unlock()
	beats := make([]storage.Beat, 0, len(changed))
	for d := range changed {
		if l := u.h.link(d); l != nil {
			beats = append(beats, u.beat(l))
		}
	}
	u.announce(ctx, beats)
}

func (u *upkeep) beat(l *Link) storage.Beat {
	b := storage.Beat{Device: l.device, State: ccp.StateOnline, TTL: u.h.opt.Limits.PresenceTTL}
	u.mu.Lock()
	if s, ok := u.states[l.device]; ok {
		b.State = s.state
	}
	u.mu.Unlock()
	if p, ok := l.box.(Profiled); ok {
		if b.User = p.Profile(); len(b.User) > 4<<10 {
			b.User = nil
		}
	}
	return b
}

func (u *upkeep) announce(ctx context.Context, beats []storage.Beat) {
	p := u.h.opt.Store.Presence
	if p == nil || len(beats) == 0 {
		return
	}
	call, cancel := context.WithTimeout(ctx, upkeepCall)
	defer cancel()
	if err := p.Announce(call, u.h.now(), beats); err != nil {
		u.h.log.Warn("announce presence", "devices", len(beats), "error", err)
	}
}

// renewRoutes answers which routes are still held; nil: not known. hung says that the
// store did not answer in time, and not that it refused.
func (u *upkeep) renewRoutes(ctx context.Context, r []storage.Renewal) (held []bool, hung bool) {
	routes := u.h.opt.Store.Routes
	if routes == nil || len(r) == 0 {
		return nil, false
	}
	call, cancel := context.WithTimeout(ctx, upkeepCall)
	defer cancel()
	began := u.h.now()
	held, err := routes.Renew(call, began, r)
	if err != nil || len(held) != len(r) {
		u.h.log.Warn("renew routes", "devices", len(r), "error", err)
		return nil, u.h.now().Sub(began) >= hangs
	}
	return held, false
}

// renew keeps presence and routes of all links alive, and ends links whose
// device is connected with a higher fence elsewhere. A store that hangs is asked again
// with the next renewal: waiting for it once for each part would hold up all the rest
// for minutes.
func (u *upkeep) renew(ctx context.Context) {
	for i := range u.h.shards {
		links := u.h.shards[i].all()
		for len(links) > 0 {
			part := links[:min(len(links), upkeepBatch)]
			links = links[len(part):]
			if !u.renewPart(ctx, part) {
				return
			}
		}
	}
}

// renewPart answers false if the store hangs.
func (u *upkeep) renewPart(ctx context.Context, links []*Link) bool {
	ttl := u.h.opt.Limits.PresenceTTL
	renewals := make([]storage.Renewal, len(links))
	for i, l := range links {
		renewals[i] = storage.Renewal{Device: l.device, Session: l.box.Session(), Node: u.h.opt.Node, Fence: l.fence, TTL: ttl}
	}
	held, hung := u.renewRoutes(ctx, renewals)
	if hung {
		return false
	}
	beats := make([]storage.Beat, 0, len(links))
	for i, l := range links {
		if held != nil && !held[i] {
			l.replaced()
			continue
		}
		beats = append(beats, u.beat(l))
	}
	u.announce(ctx, beats)
	return true
}

const (
	// inspectEvery is how many renewals lie between two looks at a device's account.
	inspectEvery = 30
	// inspectHaste is how many looks a renewal takes when other nodes may have revoked
	// devices without being heard.
	inspectHaste = 10
)

// hasten has all devices looked at within the next renewals.
func (u *upkeep) hasten() {
	u.mu.Lock()
	u.haste = inspectEvery
	u.mu.Unlock()
}

// rounds is how many looks this renewal takes.
func (u *upkeep) rounds() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := min(max(1, u.haste), inspectHaste)
	u.haste = max(0, u.haste-n)
	return n
}

// inspect ends sessions of devices that were revoked at a node which could not tell. It
// gives up for this time when storage hangs: routes and presence are renewed
// by the same goroutine.
func (u *upkeep) inspect(ctx context.Context, round int) (whole bool) {
	for i := range u.h.shards {
		if i%inspectEvery != round%inspectEvery {
			continue
		}
		for _, l := range u.h.shards[i].all() {
			began := u.h.now()
			call, cancel := context.WithTimeout(ctx, upkeepCall)
			d, err := u.h.accounts.Device(call, l.device)
			cancel()
			switch {
			case errors.Is(err, ErrUnknown) || err == nil && !d.Active:
				u.h.Disconnect(l.device, ccp.CodeRevoked)
			case err != nil && (ctx.Err() != nil || u.h.now().Sub(began) >= hangs):
				u.h.log.Warn("look for revoked devices", "error", err)
				return false
			}
		}
	}
	return true
}

// handlePresence takes the client's state; it is neither relayed nor
// acknowledged (ccp1.md 6.5).
func (l *Link) handlePresence(f ccp.Frame) error {
	state, err := ccp.ParsePresence(f.Payload)
	if err != nil {
		return refuse(CodeBadRequest, err.Error())
	}
	l.h.upkeep.state(l, state)
	return nil
}
