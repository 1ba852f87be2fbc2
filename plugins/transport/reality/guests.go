package reality

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// maxGuests bounds the invitations and devices that stand at one time.
const maxGuests = 65536

// guest is one invitation, or one device, with a short id of its own.
type guest struct {
	ID      string    `json:"id"`
	ShortID string    `json:"short_id"`
	Expires time.Time `json:"expires,omitzero"`
}

// guests are the short ids beyond the configured ones, kept in a file. It is safe for
// concurrent use.
type guests struct {
	path string // "" keeps them in memory
	now  func() time.Time

	mu      sync.Mutex
	byShort map[shortID]guest
	byID    map[string]shortID
}

func openGuests(folder string, now func() time.Time) (*guests, error) {
	g := &guests{now: now, byShort: map[shortID]guest{}, byID: map[string]shortID{}}
	if folder == "" {
		return g, nil
	}
	g.path = filepath.Join(folder, "guests.json")
	b, err := os.ReadFile(g.path)
	if errors.Is(err, os.ErrNotExist) {
		return g, nil
	}
	if err != nil {
		return nil, err
	}
	var list []guest
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, &sdk.Error{Kind: sdk.Corrupt, Op: "reality: " + g.path, Text: "not a list of guests; remove it and make the links anew", Err: err}
	}
	for _, one := range list {
		id, err := parseShortID(one.ShortID)
		if err != nil || one.ID == "" {
			return nil, &sdk.Error{Kind: sdk.Corrupt, Op: "reality: " + g.path, Text: "a guest without id", Err: err}
		}
		g.byShort[id], g.byID[one.ID] = one, id
	}
	return g, nil
}

// register lets guests in that have drawn their short ids themselves. What is known
// already costs nothing. Those that cannot be let in, also because everybody has their id,
// do not keep the others out.
func (g *guests) register(list []transport.Guest, everybodys func(shortID) bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sweep()
	changed := false
	var refused error
	for _, one := range list {
		fresh, err := g.take(one, everybodys)
		changed = changed || fresh
		if err != nil && refused == nil {
			refused = err
		}
	}
	if changed {
		if err := g.save(); err != nil {
			return err
		}
	}
	return refused
}

// take puts a guest with an id of its own into the tables, in place of what it had.
func (g *guests) take(one transport.Guest, everybodys func(shortID) bool) (changed bool, err error) {
	wrong := func(kind sdk.ErrorKind, text string) error {
		return &sdk.Error{Kind: kind, Op: "reality: invite", Text: text}
	}
	if len(one.Public) != shortIDSize || one.ID == "" {
		return false, wrong(sdk.Invalid, "a device's key is not a short id of 8 bytes")
	}
	short := shortID(one.Public)
	next := guest{ID: one.ID, ShortID: short.String(), Expires: one.Expires}
	before, known := g.byID[one.ID]
	if has, taken := g.byShort[short]; everybodys(short) || taken && has.ID != one.ID {
		return false, wrong(sdk.Conflict, "another has this short id: draw a new one")
	} else if taken && has.Expires.Equal(one.Expires) {
		return false, nil
	}
	if !known && len(g.byID) >= maxGuests {
		return false, wrong(sdk.Full, "too many invitations and devices stand; revoke some")
	}
	if known {
		delete(g.byShort, before)
	}
	g.byShort[short], g.byID[one.ID] = next, short
	return true, nil
}

// invite gives the short id of a guest, drawing one for a new guest.
func (g *guests) invite(id string, expires time.Time) (shortID, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if short, ok := g.byID[id]; ok {
		one := g.byShort[short]
		if one.Expires.Equal(expires) {
			return short, nil
		}
		one.Expires = expires
		g.byShort[short] = one
		return short, g.save()
	}
	g.sweep()
	if len(g.byID) >= maxGuests {
		return shortID{}, &sdk.Error{Kind: sdk.Full, Op: "reality: invite", Text: "too many invitations and devices stand; revoke some"}
	}
	short, err := drawShortID(rand.Reader)
	if err != nil {
		return shortID{}, err
	}
	g.byShort[short], g.byID[id] = guest{ID: id, ShortID: short.String(), Expires: expires}, short
	if err := g.save(); err != nil {
		delete(g.byShort, short)
		delete(g.byID, id)
		return shortID{}, err
	}
	return short, nil
}

// admits gives the guest of a short id while its invitation stands.
func (g *guests) admits(short shortID) (guest, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	one, ok := g.byShort[short]
	return one, ok && !g.over(one)
}

func (g *guests) over(one guest) bool { return !one.Expires.IsZero() && !g.now().Before(one.Expires) }

func (g *guests) revoke(id string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	short, ok := g.byID[id]
	if !ok {
		return nil
	}
	delete(g.byShort, short)
	delete(g.byID, id)
	return g.save()
}

// sweep forgets what has expired.
func (g *guests) sweep() {
	for short, one := range g.byShort {
		if g.over(one) {
			delete(g.byShort, short)
			delete(g.byID, one.ID)
		}
	}
}

// save replaces the file as a whole.
func (g *guests) save() error {
	if g.path == "" {
		return nil
	}
	list := make([]guest, 0, len(g.byShort))
	for _, one := range g.byShort {
		list = append(list, one)
	}
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(g.path), "guests-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), g.path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	syncFolder(filepath.Dir(g.path)) // or a revocation is undone when the machine goes down
	return nil
}
