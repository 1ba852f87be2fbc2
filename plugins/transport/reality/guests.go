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
)

// maxGuests bounds the invitations that stand at one time.
const maxGuests = 16384

// guest is one invitation with a short id of its own.
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
		return shortID{}, &sdk.Error{Kind: sdk.Full, Op: "reality: invite", Text: "too many invitations stand; revoke some"}
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
	}
	return err
}
