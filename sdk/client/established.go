package client

import (
	"crypto/ed25519"
	"encoding/json"
	"io"
	"slices"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/noise"
)

const (
	// keptEntries is how many entry credentials a profile holds.
	keptEntries = 2
	// resumable is the longest life of a resume token.
	resumable = 24 * time.Hour
	// defaultKeepalive holds when the relay names none, and bounds what it may ask.
	defaultKeepalive = 30 * time.Second
	maxKeepalive     = 5 * time.Minute
)

// established takes over what the relay's Ack says.
func (c *Client) established(s *session, d *dialled, ack ccp.Established) error {
	if ack.Ext == nil {
		return broken("the relay's Ack lacks its extensions", nil)
	}
	now := c.opt.Now()
	if ack.Ext.Time > 0 {
		c.skew.Store(int64(time.UnixMilli(ack.Ext.Time).Sub(now)))
	}
	s.window = int(min(max(ack.Ext.SendWindow, 1), 256))
	s.keepalive = defaultKeepalive
	if k := time.Duration(ack.Keepalive) * time.Second; k > 0 {
		s.keepalive = min(max(k, time.Second), maxKeepalive)
	}

	c.mu.Lock()
	p := *c.profile
	if ack.User != nil {
		p.UserID = ack.User.ID
		if ack.User.Handle != "" {
			p.Handle = ack.User.Handle
		}
	}
	p.Invite, p.Pairing = nil, nil
	p.Relay.Promised |= uint64(d.accepted)
	if e := ack.Ext.Entry; e != nil {
		p.Relay.Entry = slices.Clone(p.Relay.Entry)
		p.Relay.Entry = append(p.Relay.Entry, EntryCredential{ID: e.ID[:], Key: e.Key[:]})
		p.Relay.Entry = p.Relay.Entry[max(0, len(p.Relay.Entry)-keptEntries):]
	}
	c.takeCertificate(&p, ack.DeviceCertificate)
	noiseKey := p.Relay.Noise
	warning := p.Relay.takeCatalogue(ack.Ext.Catalogue, now)
	c.best = d.endpoint
	c.useXK = false
	if d.pattern == noise.XK {
		c.full = now
		c.state.ResumeKey = noiseKey
	}
	c.state.Resume = nil
	if r := ack.Ext.Resume; r != nil && r.Token != nil {
		c.state.Resume, c.state.ResumeUntil = r.Token[:], now.Add(resumable)
	}
	state := c.state
	changed := !equalProfiles(c.profile, &p)
	c.profile = &p
	c.mu.Unlock()

	if changed && p.dir != "" {
		if err := p.Save(p.dir); err != nil {
			return err
		}
	}
	if err := c.opt.Store.SaveSession(state); err != nil {
		return &Error{Kind: Invalid, Text: "the message store failed", Err: err}
	}
	if warning != nil {
		c.opt.Log.Warn("the relay's key catalogue was not taken over", "error", warning)
		c.opt.OnEvent(Event{Name: "catalogue", Err: warning})
	}
	resumed := false
	c.out.begin()
	if r := ack.Ext.Resume; r != nil {
		resumed = r.Resumed
		if err := c.reconcile(r.Logs); err != nil {
			return err
		}
	}
	c.opt.OnEvent(Event{
		Name: "connected", Transport: d.transport, Resumed: resumed,
		Milliseconds: float64(c.opt.Now().Sub(d.began)) / float64(time.Millisecond),
	})
	return nil
}

// reconcile marks what the relay has stored of this device's log as done. A
// relay that knows a higher counter has heard another copy of this profile: the
// ids are spent, so a new log begins.
func (c *Client) reconcile(logs []ccp.LogState) error {
	log, high := c.out.high()
	for _, l := range logs {
		if l.Log != log {
			continue
		}
		for _, r := range l.Done {
			if r[1] > high {
				return c.newLog()
			}
		}
		for _, r := range l.Done {
			c.out.ack(r[0], r[1])
		}
	}
	return nil
}

func (c *Client) newLog() error {
	var log [8]byte
	if _, err := io.ReadFull(c.opt.Rand, log[:]); err != nil {
		return err
	}
	if err := c.out.restart(log); err != nil {
		return &Error{Kind: Invalid, Text: "the message store failed", Err: err}
	}
	return nil
}

// takeCertificate stores a renewed certificate that names this device and key.
func (c *Client) takeCertificate(p *Profile, raw []byte) {
	if len(raw) == 0 {
		return
	}
	cert, err := identity.ParseCertificate(raw)
	if err != nil || cert.DeviceID != p.DeviceID || cert.PublicKey != p.device().Public() {
		c.opt.Log.Warn("the relay sent a certificate that is not this device's", "error", err)
		return
	}
	p.Certificate = json.RawMessage(slices.Clone(raw))
}

// keyUpdate takes a certificate that was renewed during the session.
func (c *Client) keyUpdate(payload []byte) {
	var u struct {
		Type        string          `json:"type"`
		Certificate json.RawMessage `json:"certificate"`
	}
	if json.Unmarshal(payload, &u) != nil || u.Type != "certificate-renewed" {
		return
	}
	c.mu.Lock()
	p := *c.profile
	c.takeCertificate(&p, u.Certificate)
	c.profile = &p
	c.mu.Unlock()
	if p.dir != "" {
		if err := p.Save(p.dir); err != nil {
			c.opt.Log.Warn("the renewed certificate could not be saved", "error", err)
		}
	}
}

// takeCatalogue checks a catalogue against the pinned root and takes over its
// newest Noise key, its floor and the next root. What fails a check changes
// nothing and is returned as a warning.
func (r *Relay) takeCatalogue(raw []byte, now time.Time) error {
	if len(raw) == 0 || r.Root == (Hex32{}) {
		return nil
	}
	roots := []ed25519.PublicKey{r.Root[:]}
	if r.RootNext != (Hex32{}) {
		roots = append(roots, r.RootNext[:])
	}
	signed, err := link.ParseSigned(raw)
	if err != nil {
		return err
	}
	cat, err := link.OpenCatalogue(signed, roots...)
	if err != nil {
		return err
	}
	if err := cat.Check(r.Domain, now, r.Serial); err != nil {
		return err
	}
	newest := cat.Newest()
	higher := cat.Serial > r.Serial
	r.Noise, r.NoiseVersion, r.Serial = newest.Public, newest.Version, cat.Serial
	r.Catalogue = json.RawMessage(slices.Clone(raw))
	if cat.RootNext != nil {
		r.RootNext = *cat.RootNext
	}
	if higher {
		// A signed catalogue with a higher serial says what is promised from now on.
		r.Promised = uint64(cat.Promises())
	}
	return nil
}

// learnEndpoints adds the endpoints of a Move to the relay's.
func (c *Client) learnEndpoints(m ccp.Move) {
	const most = 16
	c.mu.Lock()
	defer c.mu.Unlock()
	p := *c.profile
	p.Relay.Endpoints = slices.Clone(p.Relay.Endpoints)
	for _, e := range m.Endpoints {
		if len(p.Relay.Endpoints) >= most {
			break
		}
		ep := Endpoint{Transport: e.Transport, Host: e.Host, Port: e.Port, Params: e.Values()}
		known := slices.ContainsFunc(p.Relay.Endpoints, func(o Endpoint) bool {
			return o.Transport == ep.Transport && o.Host == ep.Host && o.Port == ep.Port
		})
		if !known {
			p.Relay.Endpoints = append(p.Relay.Endpoints, ep)
		}
	}
	c.profile = &p
}

func equalProfiles(a, b *Profile) bool {
	x, errx := json.Marshal(a)
	y, erry := json.Marshal(b)
	return errx == nil && erry == nil && string(x) == string(y)
}

func (c *Client) event(name string, f ccp.Frame) {
	c.opt.OnEvent(Event{Name: name, Channel: f.Channel, Payload: slices.Clone(f.Payload)})
}
