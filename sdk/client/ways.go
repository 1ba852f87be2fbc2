package client

import (
	"maps"
	"slices"
	"strings"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/link"
)

// AddLink takes over the ways to the relay that a link of the same relay names: those
// that the profile does not know yet, and other parameters for those that it does. It
// answers both. It takes over a newer Noise key and the entry credential as well. The
// account, the device's keys and what the relay promised stay, and the link's secret is
// neither kept nor spent. At a transport whose devices have keys such a way is good as long
// as the link is; the device's own follows it with the next connection.
//
// A link of another relay is an error of kind Invalid. Whether it has expired is the
// caller's to ask, and Save makes the change last.
func (p *Profile) AddLink(l link.Link) (added, changed []Endpoint, err error) {
	r := &p.Relay
	switch root := Hex32(l.Root); {
	case r.Root == Hex32{}:
		return nil, nil, invalid("this profile was made without a link and knows no root key of %s: nothing proves that the link is this relay's; register anew with it", r.Domain)
	case root == Hex32{} || root != r.Root && root != r.RootNext:
		return nil, nil, invalid("this is the link of another relay, %s with another root key: this device is registered at %s", printable(l.Domain), r.Domain)
	case l.Domain != r.Domain:
		return nil, nil, invalid("this link is for the domain %s: this device is registered at %s", printable(l.Domain), r.Domain)
	}
	ways, fresh := slices.Clone(r.Endpoints), 0
	for _, e := range l.Endpoints {
		way := Endpoint{Transport: e.Transport, Host: e.Host, Port: e.Port, Params: e.Values()}
		same := func(w Endpoint) bool { return w.key() == way.key() }
		known := slices.ContainsFunc(ways, same)
		at := slices.IndexFunc(ways, func(w Endpoint) bool { return !w.Own && same(w) })
		switch {
		case at >= 0 && maps.Equal(ways[at].Params, way.Params):
			continue
		case at >= 0:
			ways[at] = way
		default:
			all, ok := p.admit(ways, way, fresh)
			if !ok && len(ways) < maxEndpoints { // nothing may go: a link is somebody's word
				all, ok = append(ways, way), true
			}
			if !ok {
				continue
			}
			ways = all
			fresh++
		}
		if known {
			changed = append(changed, way)
		} else {
			added = append(added, way)
		}
	}
	r.Endpoints = ways
	// A device that was away for long has neither a key of the relay in force nor a
	// credential that opens its front.
	if l.NoiseVersion > r.NoiseVersion {
		r.Noise, r.NoiseVersion = l.NoisePublic, l.NoiseVersion
	}
	if e := l.Entry; e != nil {
		r.Entry = append([]EntryCredential{{ID: e.ID[:], Key: e.Key[:]}}, r.Entry[max(0, len(r.Entry)-keptEntries+1):]...)
	}
	return added, changed, nil
}

// told takes over what an Ack says of the relay's transports: ways that need no key, and
// the names of those (keyed) whose devices have one, for the next Confirm. A way replaces
// those that were told before of the same transport and host, and changes the parameters
// of one that a link gave; endpoints of transports in named are the device's own.
func (p *Profile) told(list []ccp.Endpoint, named []ccp.TransportKey, keyed []string) {
	p.Wanted = keyed
	var news []Endpoint
	for _, e := range list {
		isNamed := slices.ContainsFunc(named, func(k ccp.TransportKey) bool { return k.Transport == e.Transport })
		if !isNamed && !slices.Contains(keyed, e.Transport) {
			news = append(news, Endpoint{Transport: e.Transport, Host: e.Host, Port: e.Port, Params: e.Values(), Told: true})
		}
	}
	if len(news) == 0 {
		return
	}
	ways := slices.DeleteFunc(slices.Clone(p.Relay.Endpoints), func(w Endpoint) bool {
		replaced := func(e Endpoint) bool { return e.Transport == w.Transport && strings.EqualFold(e.Host, w.Host) }
		stays := func(e Endpoint) bool { return e.key() == w.key() }
		return w.Told && slices.ContainsFunc(news, replaced) && !slices.ContainsFunc(news, stays)
	})
	for _, e := range news {
		switch at := slices.IndexFunc(ways, func(w Endpoint) bool { return w.key() == e.key() }); {
		case at >= 0 && !ways[at].Own:
			e.Told = ways[at].Told
			ways[at] = e
		case at < 0:
			ways, _ = p.admit(ways, e, 0)
		}
	}
	p.Relay.Endpoints = ways
}

// admit appends a way. Where there are keptEndpoints already, one makes room: of those by
// which no session ever stood the oldest that was learnt, then the oldest of the first
// ones, which came with the link; then of those that worked the one whose last session is
// the longest ago. The way that worked last stays, the last fresh ones, and every way that
// the device holds a private key for. The answer is false when none may go; only an own
// way still finds room then, beside them, up to twice as many.
func (p *Profile) admit(ways []Endpoint, e Endpoint, fresh int) ([]Endpoint, bool) {
	if len(ways) < keptEndpoints {
		return append(ways, e), true
	}
	victim, least := -1, 0
	for i, w := range ways[:len(ways)-fresh] {
		at := slices.Index(p.Relay.Worked, w.key())
		worth := 0
		switch {
		case w.Own && p.knows(w.Transport) || at == 0:
			continue
		case at > 0:
			worth = 2 + len(p.Relay.Worked) - at
		case i < ccp.MaxEndpoints:
			worth = 1
		}
		if victim < 0 || worth < least {
			victim, least = i, worth
		}
	}
	switch {
	case victim >= 0:
		return append(slices.Delete(ways, victim, victim+1), e), true
	case e.Own && p.knows(e.Transport) && len(ways) < 2*keptEndpoints:
		return append(ways, e), true
	}
	return ways, false
}

// stood notes that a session stands by a way; ways that are no longer known are forgotten.
func (r *Relay) stood(key string) {
	if len(r.Worked) > 0 && r.Worked[0] == key {
		return
	}
	worked := []string{key}
	for _, e := range r.Endpoints {
		known := e.key()
		if slices.Contains(r.Worked, known) && !slices.Contains(worked, known) {
			worked = append(worked, known)
		}
	}
	slices.SortStableFunc(worked[1:], func(a, b string) int {
		return slices.Index(r.Worked, a) - slices.Index(r.Worked, b)
	})
	r.Worked = worked[:min(len(worked), keptEndpoints)]
}

// noWay says why there is nothing to dial, and what helps.
func (c *Client) noWay() error {
	var asked, known []string
	for _, d := range c.opt.Dialers {
		if c.dials(d.Name()) {
			asked = append(asked, d.Name())
		}
	}
	if len(asked) == 0 {
		return invalid("this program has no transport %q", printable(c.opt.Transport))
	}
	for _, e := range c.profile.Relay.Endpoints {
		if !slices.Contains(asked, e.Transport) && !slices.Contains(known, e.Transport) {
			known = append(known, printable(e.Transport))
		}
	}
	text := "this profile knows no way over " + strings.Join(asked, " or ")
	if len(known) > 0 {
		text += ", only over " + join(known)
	}
	dir := c.profile.dir
	if dir == "" {
		dir = "DIR"
	}
	return invalid("%s: take a link that names one: commucat client link add --profile %s LINK", text, dir)
}
