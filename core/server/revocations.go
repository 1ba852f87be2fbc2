package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/commucat/commucat/sdk/ccp"
)

const (
	revocationsFile = "revocations.json"
	// maxRevocations bounds what one transport has not been told yet; beyond it the
	// oldest are forgotten.
	maxRevocations = 10_000
	// maxOwnRevocations bounds those of a device's keys in one slot: who changes a key again
	// and again pushes out nobody else's, and no key of another slot, which the transport
	// may know.
	maxOwnRevocations = 32
)

// revocations are the links and devices that a transport has still to be told of. They
// outlive the relay: a plugin may be away for long, and may come back with what it
// allowed before.
type revocations struct {
	path string

	// writing is held while the disk is waited for, and locked before mu, which every
	// handshake with a key asks for.
	writing sync.Mutex
	saved   uint64 // the state of the file; with writing

	mu      sync.Mutex
	state   uint64               // counts changes of pending
	pending map[string][]string  // ids by transport, in the order of revocation
	held    map[string]int       // ids that are not to be told yet
	again   map[pendingID]bool   // revoked anew since of
	owners  map[pendingID]string // slots that these are keys of, as far as this run knows
}

type pendingID struct{ transport, id string }

// openRevocations reads the file, which need not be there.
func openRevocations(path string) (*revocations, error) {
	r := &revocations{path: path, pending: map[string][]string{}, held: map[string]int{}, again: map[pendingID]bool{}, owners: map[pendingID]string{}}
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return r, nil
	case err == nil:
		err = json.Unmarshal(b, &r.pending)
	}
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w; what it holds are revocations that a transport has not been told of", path, reason(err))
	}
	if r.pending == nil {
		r.pending = map[string][]string{}
	}
	return r, nil
}

// add notes an id for the transports, on the disk when it returns. slot is the one that it
// is a key of, "" for a link. forgotten says that the oldest ids gave way.
func (r *revocations) add(transports []string, id, slot string) (forgotten bool, err error) {
	forgotten, state := r.note(transports, id, slot)
	return forgotten, r.save(state)
}

// slotOf names a slot of a device.
func slotOf(device string, k ccp.TransportKey) string { return device + " " + k.Transport }

func (r *revocations) note(transports []string, id, slot string) (forgotten bool, state uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range transports {
		ids := r.pending[name]
		if slices.Contains(ids, id) {
			r.again[pendingID{name, id}] = true
			continue
		}
		ids = append(r.crowd(name, slot), id)
		if slot != "" {
			r.owners[pendingID{name, id}] = slot
		}
		if over := len(ids) - maxRevocations; over > 0 {
			for _, old := range ids[:over] {
				delete(r.owners, pendingID{name, old})
			}
			ids, forgotten = slices.Delete(ids, 0, over), true
		}
		r.pending[name] = ids
		r.state++
	}
	return forgotten, r.state
}

// crowd makes room among a slot's own ids and answers all ids of the transport. The oldest
// but the first gives way. A transport that was away all the time knows the first. One that
// is just being told may know the newest, which are not in what it is being told: so those
// stay. r.mu is held.
func (r *revocations) crowd(transport, slot string) []string {
	ids := r.pending[transport]
	if slot == "" {
		return ids
	}
	var own []int
	for i, id := range ids {
		if r.owners[pendingID{transport, id}] == slot {
			own = append(own, i)
		}
	}
	if len(own) < maxOwnRevocations {
		return ids
	}
	delete(r.owners, pendingID{transport, ids[own[1]]})
	return slices.Delete(ids, own[1], own[1]+1)
}

// hold keeps an id from being told until it is released. It is no less on the disk, so
// that a later start tells it where this one does not come to it.
func (r *revocations) hold(id string) (release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held[id]++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.held[id]--; r.held[id] <= 0 {
			delete(r.held, id)
		}
	}
}

// of lists what a transport has to be told.
func (r *revocations) of(transport string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.again, func(p pendingID, _ bool) bool { return p.transport == transport })
	return slices.DeleteFunc(slices.Clone(r.pending[transport]), func(id string) bool { return r.held[id] > 0 })
}

// done takes out what a transport has been told since of; what was revoked anew meanwhile
// stays, since the transport may have let it in after it was told.
func (r *revocations) done(transport string, told []string) error {
	r.mu.Lock()
	told = slices.DeleteFunc(slices.Clone(told), func(id string) bool { return r.again[pendingID{transport, id}] })
	changed, state := r.remove(transport, told)
	r.mu.Unlock()
	if !changed {
		return nil
	}
	return r.save(state)
}

// drop takes out what a transport is not to be told any more.
func (r *revocations) drop(transport, id string) error {
	r.mu.Lock()
	delete(r.again, pendingID{transport, id})
	changed, state := r.remove(transport, []string{id})
	r.mu.Unlock()
	if !changed {
		return nil
	}
	return r.save(state)
}

// remove takes ids out; r.mu is held.
func (r *revocations) remove(transport string, ids []string) (changed bool, state uint64) {
	if len(ids) == 0 {
		return false, r.state
	}
	gone := make(map[string]bool, len(ids))
	for _, id := range ids {
		gone[id] = true
		delete(r.owners, pendingID{transport, id})
	}
	before := len(r.pending[transport])
	rest := slices.DeleteFunc(r.pending[transport], func(id string) bool { return gone[id] })
	if len(rest) == before {
		return false, r.state
	}
	if r.pending[transport] = rest; len(rest) == 0 {
		delete(r.pending, transport)
	}
	r.state++
	return true, r.state
}

// save writes the file, unless a state that is not older is there already: those who wait
// for the disk at the same time are served by one write.
func (r *revocations) save(state uint64) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	if r.saved >= state {
		return nil
	}
	r.mu.Lock()
	now := r.state
	b, err := json.Marshal(r.pending)
	r.mu.Unlock()
	if err == nil {
		err = writeFile(r.path, b)
	}
	if err == nil {
		r.saved = now
	}
	return err
}
