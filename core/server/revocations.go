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
)

const (
	revocationsFile = "revocations.json"
	// maxRevocations bounds what one transport has not been told yet; beyond it the
	// oldest are forgotten.
	maxRevocations = 10_000
)

// revocations are the links and devices that a transport has still to be told of. They
// outlive the relay: a plugin may be away for long, and may come back with what it
// allowed before.
type revocations struct {
	path string

	mu      sync.Mutex
	pending map[string][]string // ids by transport, in the order of revocation
	held    map[string]int      // ids that are not to be told yet
	again   map[pendingID]bool  // revoked anew since of
}

type pendingID struct{ transport, id string }

// openRevocations reads the file, which need not be there.
func openRevocations(path string) (*revocations, error) {
	r := &revocations{path: path, pending: map[string][]string{}, held: map[string]int{}, again: map[pendingID]bool{}}
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

// add notes an id for the transports. forgotten says that the oldest ids gave way.
func (r *revocations) add(transports []string, id string) (forgotten bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	changed := false
	for _, name := range transports {
		ids := r.pending[name]
		if slices.Contains(ids, id) {
			r.again[pendingID{name, id}] = true
			continue
		}
		if ids = append(ids, id); len(ids) > maxRevocations {
			ids, forgotten = slices.Delete(ids, 0, len(ids)-maxRevocations), true
		}
		r.pending[name], changed = ids, true
	}
	if !changed {
		return false, nil
	}
	return forgotten, r.save()
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
	defer r.mu.Unlock()
	return r.remove(transport, slices.DeleteFunc(slices.Clone(told), func(id string) bool { return r.again[pendingID{transport, id}] }))
}

// drop takes out what a transport is not to be told any more.
func (r *revocations) drop(transport, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.again, pendingID{transport, id})
	return r.remove(transport, []string{id})
}

// remove takes ids out; r.mu is held.
func (r *revocations) remove(transport string, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	gone := make(map[string]bool, len(ids))
	for _, id := range ids {
		gone[id] = true
	}
	before := len(r.pending[transport])
	rest := slices.DeleteFunc(r.pending[transport], func(id string) bool { return gone[id] })
	if len(rest) == before {
		return nil
	}
	if r.pending[transport] = rest; len(rest) == 0 {
		delete(r.pending, transport)
	}
	return r.save()
}

// save writes the file; r.mu is held.
func (r *revocations) save() error {
	b, err := json.Marshal(r.pending)
	if err != nil {
		return err
	}
	return writeFile(r.path, b)
}
