package client

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/transport"
)

const (
	// maxKeys bounds the keys in a profile: one in use and one that follows it for
	// each transport.
	maxKeys = 2 * ccp.MaxTransportKeys
	// askEvery is how often a transport without keys is asked again: another version of
	// it may have some.
	askEvery = 30 * 24 * time.Hour
	// settle is about how long a session goes on before keys are drawn for what its Ack
	// has named: not all devices are to come back to a relay at the same time.
	settle = 4 * time.Minute
	// maxPrivate bounds a private key, in bytes.
	maxPrivate = 256
	// redrawEvery is how often a key is drawn for one that the relay does not take: one that
	// takes none must not keep its devices drawing.
	redrawEvery = 24 * time.Hour
)

// TransportKey is a key pair that a device has for one transport.
type TransportKey struct {
	Transport string `json:"transport"`
	Private   []byte `json:"private"`
	Public    []byte `json:"public"`
	// Confirmed is when the relay first said that it knows the key; zero: not yet.
	Confirmed time.Time `json:"confirmed,omitzero"`
	// Refused: the relay said that it does not take this key, and another is to be drawn.
	Refused bool `json:"refused,omitempty"`
	// Redrawn is when this key was drawn for one that was refused; zero: for none.
	Redrawn time.Time `json:"redrawn,omitzero"`
}

// String names the key's transport, never the key.
func (k TransportKey) String() string { return "key for " + k.Transport }

// GoString implements fmt.GoStringer.
func (k TransportKey) GoString() string { return "client.TransportKey(" + k.Transport + ")" }

// RenewKeys draws new keys for the transports that this device has keys for. The
// relay learns them at the next connection, and forgets the old ones then. The present
// connection ends. On a client that was closed meanwhile it changes nothing and returns
// ErrClosed.
func (c *Client) RenewKeys() error {
	var again []string
	for _, k := range c.Profile().Keys {
		if !slices.Contains(again, k.Transport) {
			again = append(again, k.Transport)
		}
	}
	if err := c.takeKeys(again); err != nil {
		return err
	}
	c.Disconnect()
	return nil
}

// drawKeys draws what is missing. A transport that fails to give a key is asked again by
// the next program, one that has none much later.
func (c *Client) drawKeys() error { return c.takeKeys(c.missingKeys()) }

// missingKeys are the transports that a key is to be drawn for: those that can be dialled,
// or would be if the device had a key (the relay has named them), and whose devices have
// one; and those whose key the relay does not take.
func (c *Client) missingKeys() (missing []string) {
	var names []string
	for _, r := range c.endpoints() {
		names = append(names, r.Transport)
	}
	now := c.opt.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range c.profile.Wanted {
		if c.dials(name) {
			names = append(names, name)
		}
	}
	for _, k := range c.profile.Keys {
		if k.Refused && c.dials(k.Transport) {
			names = append(names, k.Transport)
		}
	}
	for _, name := range names {
		age := now.Sub(c.profile.Keyless[name])
		if (age < 0 || age >= askEvery) && !c.keyless[name] && !slices.Contains(missing, name) && !c.profile.serves(name) && len(missing) < ccp.MaxTransportKeys {
			missing = append(missing, name)
		}
	}
	return missing
}

// follow draws the keys that an Ack has made missing, a while into its session, and dials
// again with them: whoever is cut off one day has the new ways by then. It happens once for
// each transport.
func (c *Client) follow() (stop func()) {
	p := c.Profile()
	missing := slices.DeleteFunc(c.missingKeys(), p.knows) // one for a refused key waits for the next dial
	if len(missing) == 0 {
		return func() {}
	}
	t := time.AfterFunc(c.settle/2+rand.N(c.settle), func() {
		switch err := c.drawKeys(); {
		case errors.Is(err, ErrClosed):
			return
		case err != nil:
			c.opt.Log.Warn("keys for new transports could not be drawn", "error", err)
			return
		}
		p := c.Profile()
		if slices.ContainsFunc(missing, p.knows) {
			c.Disconnect()
		}
	})
	return func() { t.Stop() }
}

// takeKeys draws keys, all at the same time since some are drawn in a process that is
// started for it, and saves them before anybody is told.
func (c *Client) takeKeys(names []string) error {
	if len(names) == 0 {
		return nil
	}
	drawn, none := make([]*TransportKey, len(names)), make([]bool, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() { drawn[i], none[i] = c.drawKey(name) })
	}
	all.Wait()
	change := func(p *Profile) (changed bool) {
		keys := slices.Clone(p.Keys)
		for i, name := range names {
			if none[i] && len(p.Keyless) < maxEndpoints {
				if p.Keyless = maps.Clone(p.Keyless); p.Keyless == nil {
					p.Keyless = make(map[string]time.Time)
				}
				p.Keyless[name], changed = c.opt.Now(), true
			}
			if drawn[i] == nil {
				continue
			}
			key := *drawn[i]
			if !p.serves(name) && p.knows(name) {
				key.Redrawn = c.opt.Now()
			}
			// A key that never came into use gives way, and so does one that is refused.
			keys = slices.DeleteFunc(keys, func(k TransportKey) bool { return k.Transport == name && (k.Confirmed.IsZero() || k.Refused) })
			keys, changed = append(keys, key), true
		}
		p.Keys = keys
		return changed
	}
	// A key that is not on the disk must not be announced, now or later: the relay would
	// end the one that is.
	c.saving.Lock()
	defer c.saving.Unlock()
	if c.isClosed() {
		return ErrClosed // the profile may be another program's by now
	}
	if next := *c.Profile(); change(&next) && next.dir != "" {
		if err := next.Save(next.dir); err != nil {
			return err
		}
		c.mu.Lock()
		c.onDisk = &next
		c.mu.Unlock()
	}
	c.revise(func(p *Profile) {
		change(p)
		for i, name := range names {
			if drawn[i] == nil {
				c.keyless[name] = true
			}
		}
	})
	return nil
}

// drawKey asks a transport for a key pair. It is nil where there is none; none says that
// the transport's devices have no keys.
func (c *Client) drawKey(name string) (key *TransportKey, none bool) {
	for _, d := range c.opt.Dialers {
		m, ok := d.(transport.KeyMaker)
		if !ok || d.Name() != name {
			continue
		}
		private, public, err := m.NewKey()
		k := ccp.TransportKey{Transport: name, Public: public}
		switch {
		case err != nil:
			c.opt.Log.Debug("no key for a transport", "transport", name, "error", err)
		case k.Check() != nil || len(private) == 0 || len(private) > maxPrivate:
			c.opt.Log.Warn("a transport makes keys that do not fit", "transport", name)
		default:
			return &TransportKey{Transport: name, Private: private, Public: public}, false
		}
		return nil, errors.Is(err, sdk.Unsupported)
	}
	return nil, false
}

// knows says that there is a key for a transport, in use or not yet.
func (p *Profile) knows(name string) bool {
	return slices.ContainsFunc(p.Keys, func(k TransportKey) bool { return k.Transport == name })
}

// serves says that there is a key for a transport and none is to be drawn for it.
func (p *Profile) serves(name string) bool {
	return p.knows(name) && !slices.ContainsFunc(p.Keys, func(k TransportKey) bool { return k.Transport == name && k.Refused })
}

// hasKey says that the relay knows a key for a transport.
func (p *Profile) hasKey(name string) bool {
	return slices.ContainsFunc(p.Keys, func(k TransportKey) bool { return k.Transport == name && !k.Confirmed.IsZero() })
}

// announced are the keys that a Confirm names: each time all of them, so that whatever has
// changed of their endpoints is learnt by any connection, in whichever process. A key that
// another one follows is not among them.
func (p *Profile) announced() []ccp.TransportKey {
	var out []ccp.TransportKey
	for _, k := range p.Keys {
		next := slices.ContainsFunc(p.Keys, func(o TransportKey) bool { return o.Transport == k.Transport && o.Confirmed.IsZero() })
		if (k.Confirmed.IsZero() || !next) && len(out) < ccp.MaxTransportKeys {
			out = append(out, ccp.TransportKey{Transport: k.Transport, Public: k.Public})
		}
	}
	return out
}

// confirmed takes over where the announced keys are good. The key that a new one
// follows goes, and so does the way with the link's secret to the same host.
func (p *Profile) confirmed(endpoints []ccp.Endpoint, named []ccp.TransportKey, now time.Time) {
	for _, e := range endpoints {
		at := slices.IndexFunc(named, func(k ccp.TransportKey) bool { return k.Transport == e.Transport })
		if at < 0 {
			continue
		}
		keys := make([]TransportKey, 0, len(p.Keys))
		for _, k := range p.Keys {
			switch {
			case k.Transport != e.Transport:
				keys = append(keys, k)
			case string(k.Public) == string(named[at].Public):
				if k.Confirmed.IsZero() {
					k.Confirmed = now
				}
				keys = append(keys, k)
			}
		}
		p.Keys = keys
		own := Endpoint{Transport: e.Transport, Host: e.Host, Port: e.Port, Params: e.Values(), Own: true}
		ways := make([]Endpoint, 0, len(p.Relay.Endpoints)+1)
		placed := false
		for _, w := range p.Relay.Endpoints {
			if w.Transport != own.Transport || !strings.EqualFold(w.Host, own.Host) {
				ways = append(ways, w)
			} else if !placed {
				ways, placed = append(ways, own), true
			}
		}
		if !placed {
			ways, _ = p.admit(ways, own, 0)
		}
		p.Relay.Endpoints = ways
	}
}

// refused marks the announced keys that the relay does not take, so that others are drawn
// before the next dial; not so one that has been drawn for such a key a while ago.
func (p *Profile) refused(names []string, named []ccp.TransportKey, now time.Time) {
	keys := slices.Clone(p.Keys)
	for i, k := range keys {
		announced := func(n ccp.TransportKey) bool {
			return n.Transport == k.Transport && string(n.Public) == string(k.Public)
		}
		age := now.Sub(k.Redrawn)
		if slices.Contains(names, k.Transport) && slices.ContainsFunc(named, announced) && (age < 0 || age >= redrawEvery) {
			keys[i].Refused = true
		}
	}
	p.Keys = keys
}

// routes are the ways to one endpoint: as it stands, or with each of the device's keys
// for it, the one that the relay is known to know first.
func (p *Profile) routes(e Endpoint, d transport.Dialer) []route {
	if !e.Own {
		return []route{{Endpoint: e, dialer: d}}
	}
	var known, next []route
	for _, k := range p.Keys {
		switch {
		case k.Transport != e.Transport:
		case k.Confirmed.IsZero():
			next = append(next, route{e, d, k.Private})
		default:
			known = append(known, route{e, d, k.Private})
		}
	}
	return append(known, next...)
}
