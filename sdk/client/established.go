package client

import (
	"encoding/json"
	"io"
	"reflect"
	"slices"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/noise"
)

const (
	// keptEntries is how many entry credentials a profile holds.
	keptEntries = 2
	// resumable is the longest life of a resume token, and how old an XK may be
	// for IK under the same key.
	resumable = 24 * time.Hour
	// defaultWindow is how long a token outlives its connection if the relay does
	// not say.
	defaultWindow = 2 * time.Minute
	// defaultKeepalive holds when the relay names none, and bounds what it may ask.
	defaultKeepalive = 30 * time.Second
	maxKeepalive     = 5 * time.Minute
	// keptEndpoints bounds the endpoints of a profile; see Profile.admit for which
	// ones go.
	keptEndpoints = 16
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
	s.window = int(min(max(ack.Ext.SendWindow, 1), ccp.SendWindow))
	s.keepalive = defaultKeepalive
	if k := time.Duration(ack.Keepalive) * time.Second; k > 0 {
		s.keepalive = min(max(k, time.Second), maxKeepalive)
	}

	c.mu.Lock()
	p := *c.profile
	warning := p.accept(d, &ack, now)
	c.bearer = ack.Session
	certified := c.takeCertificate(&p, ack.DeviceCertificate)
	c.paths.best, c.useXK = d.endpoint, false
	delete(c.paths.weak, d.endpoint)
	if d.pattern == noise.XK {
		c.state.Confirmed, c.state.ResumeKey = now, d.key
	}
	c.state.Resume, s.resumable = nil, defaultWindow
	if r := ack.Ext.Resume; r != nil && r.Token != nil {
		c.state.Resume, c.state.ResumeUntil = r.Token[:], now.Add(resumable)
		if r.Window > 0 {
			s.resumable = min(time.Duration(r.Window)*time.Second, resumable)
		}
	}
	urgent := p.dir != "" && !equalProfiles(c.onDisk, &p, !c.onDisk.Relay.lasts(c.serverTime()))
	c.profile = &p
	c.mu.Unlock()

	if urgent {
		if err := c.save(); err != nil {
			return err
		}
	}
	if warning != nil {
		c.opt.Log.Warn("the relay's key catalogue was not taken over", "error", warning)
		c.events.tell(Event{Name: "catalogue", Err: warning})
	}
	if certified {
		c.events.tell(Event{Name: "certificate", Payload: p.Certificate})
	}
	if err := p.Relay.satisfied(d.accepted); err != nil {
		return err
	}
	s.resumed = ack.Ext.Resume != nil && ack.Ext.Resume.Resumed
	return c.reconcile(ack.Ext.Resume)
}

// accept takes over account, promises, entry credential and catalogue. What
// fails a check of the catalogue changes nothing and is returned as a warning.
func (p *Profile) accept(d *dialled, ack *ccp.Established, now time.Time) (warning error) {
	if ack.User != nil {
		// A profile with other names could not be read again, and they are shown.
		if id := ack.User.ID; isName(id) && printable(id) == id {
			p.UserID = id
		}
		if h := ack.User.Handle; h != "" && isName(h) && printable(h) == h {
			p.Handle = h
		}
	}
	p.Invite, p.Pairing = nil, nil
	p.Relay.stood(d.endpoint)
	// What was accepted once is promised from now on. sealed and pq shape the
	// Hello: an offer is remembered for the next dial.
	want := d.accepted | d.offered&(ccp.Sealed|ccp.PQ)
	if want.Check() != nil {
		want = d.accepted
	}
	p.Relay.Promised |= uint64(want)
	if e := ack.Ext.Entry; e != nil {
		entries := append(slices.Clone(p.Relay.Entry), EntryCredential{ID: e.ID[:], Key: e.Key[:]})
		p.Relay.Entry = entries[max(0, len(entries)-keptEntries):]
	}
	p.confirmed(ack.Ext.Endpoints, d.named, now)
	p.refused(ack.Ext.Refused, d.named, now)
	p.told(ack.Ext.Endpoints, d.named, ack.Ext.Keyed)
	return p.Relay.takeCatalogue(ack.Ext.Catalogue, now)
}

// reconcile begins the sending: it marks what the relay has stored of this
// device's log as done. A relay that knows a counter which was never sent from
// here has heard another copy of this profile: the ids are spent, so a new log
// begins, as it does when the relay called an id bad.
func (c *Client) reconcile(r *ccp.ResumeGrant) error {
	c.out.begin()
	if r != nil {
		for _, l := range r.Logs {
			if !c.out.settle(l.Log, l.Done, c.opt.Now()) {
				return c.newLog()
			}
		}
	}
	if c.out.spent() {
		return c.newLog()
	}
	return nil
}

func (c *Client) newLog() error {
	var log [8]byte
	if _, err := io.ReadFull(c.opt.Rand, log[:]); err != nil {
		return err
	}
	c.opt.Log.Info("message ids begin anew")
	if err := c.out.restart(log); err != nil {
		return storeFailed(err)
	}
	return nil
}

// takeCertificate takes over a certificate that names this device and key, and
// says whether it is another one.
func (c *Client) takeCertificate(p *Profile, raw []byte) bool {
	if len(raw) == 0 || string(raw) == string(p.Certificate) {
		return false
	}
	cert, err := identity.ParseCertificate(raw)
	if err != nil || cert.DeviceID != p.DeviceID || cert.PublicKey != c.keys.public {
		c.opt.Log.Warn("the relay sent a certificate that is not this device's", "error", err)
		return false
	}
	p.Certificate = json.RawMessage(slices.Clone(raw))
	return true
}

// keyUpdate takes a certificate that was renewed during the session; flush saves it.
func (c *Client) keyUpdate(payload []byte) {
	v, err := ccp.ParseRaw(payload)
	if err != nil {
		return
	}
	if kind, _ := v.Get("type").Text(); kind != "certificate-renewed" {
		return
	}
	certified := false
	p := c.revise(func(p *Profile) { certified = c.takeCertificate(p, v.Get("certificate")) })
	if !certified {
		return
	}
	c.events.tell(Event{Name: "certificate", Payload: p.Certificate})
}

// save writes the profile as it is now, and nothing once the client is closed: Run does it
// at its end then.
func (c *Client) save() error {
	c.saving.Lock()
	defer c.saving.Unlock()
	if c.isClosed() {
		return ErrClosed
	}
	return c.write()
}

// lastSave is for the end of Run, for which Close waits.
func (c *Client) lastSave() error {
	c.saving.Lock()
	defer c.saving.Unlock()
	if !c.unsaved() {
		return nil
	}
	return c.write()
}

// write writes the profile as it is now: what others have changed meanwhile is not
// written over with something older. saving is held.
func (c *Client) write() error {
	p := *c.Profile()
	if err := p.Save(p.dir); err != nil {
		return err
	}
	c.mu.Lock()
	c.onDisk = &p
	c.mu.Unlock()
	return nil
}

// flush saves what was not urgent. A renewed certificate that is lost with the process is
// renewed again by the next Ack.
func (c *Client) flush() error {
	if !c.unsaved() {
		return nil
	}
	return c.save()
}

func (c *Client) unsaved() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.profile.dir != "" && !equalProfiles(c.onDisk, c.profile, true)
}

// revise replaces the profile by a changed copy.
func (c *Client) revise(change func(*Profile)) *Profile {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := *c.profile
	change(&p)
	c.profile = &p
	return &p
}

// learn adds the endpoints of a Move to the relay's and prefers the first that
// this program can dial. A blocked path comes last for a while.
func (c *Client) learn(from string, m ccp.Move) {
	c.revise(func(p *Profile) {
		known := slices.Clone(p.Relay.Endpoints)
		for i := len(m.Endpoints) - 1; i >= 0; i-- {
			e := m.Endpoints[i]
			ep := Endpoint{Transport: e.Transport, Host: e.Host, Port: e.Port, Params: e.Values(), Own: p.hasKey(e.Transport)}
			if c.dials(ep.Transport) {
				c.paths.best = ep.key()
			}
			at := slices.IndexFunc(known, func(o Endpoint) bool { return o.key() == ep.key() })
			if at < 0 {
				known, _ = p.admit(known, ep, 0)
			}
		}
		p.Relay.Endpoints = known
		if m.Reason == ccp.MoveBlocked {
			c.paths.doubt(from, c.opt.Now())
		}
	})
}

func (c *Client) dials(transport string) bool {
	for _, d := range c.opt.Dialers {
		if d.Name() == transport && (c.opt.Transport == "" || c.opt.Transport == transport) {
			return true
		}
	}
	return false
}

// equalProfiles compares what is saved, entry credentials only if they count.
func equalProfiles(a, b *Profile, entries bool) bool {
	x, y := *a, *b
	x.Relay.verified, y.Relay.verified = time.Time{}, time.Time{}
	if !entries {
		x.Relay.Entry, y.Relay.Entry = nil, nil
	}
	return reflect.DeepEqual(x, y)
}
