package server

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/admission"
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/core/relay"
	"github.com/commucat/commucat/core/session"
	"github.com/commucat/commucat/sdk/ccp"
)

// directory shows the accounts to the relay.
type directory struct{ s *account.Store }

func (d directory) Device(ctx context.Context, id string) (relay.Device, error) {
	dev, err := d.s.Device(ctx, id)
	return device(dev), unknown(err)
}

func (d directory) Devices(ctx context.Context, user string) ([]relay.Device, error) {
	all, err := d.s.Devices(ctx, user)
	return active(all), unknown(err)
}

func (d directory) Resolve(ctx context.Context, name string) ([]relay.Device, string, error) {
	all, user, err := d.s.Resolve(ctx, name)
	return active(all), user, unknown(err)
}

func device(d account.Device) relay.Device {
	return relay.Device{ID: d.ID, User: d.User, Active: d.Status == account.Active, Capabilities: d.Capabilities}
}

func active(all []account.Device) []relay.Device {
	out := make([]relay.Device, 0, len(all))
	for _, d := range all {
		if d.Status == account.Active {
			out = append(out, device(d))
		}
	}
	return out
}

func unknown(err error) error {
	if errors.Is(err, account.ErrNotFound) {
		return relay.ErrUnknown
	}
	return err
}

func (s *Server) noiseKeys() []session.ServerKey {
	keys := s.ring.NoiseKeys()
	out := make([]session.ServerKey, len(keys))
	for i, k := range keys {
		out[i] = session.ServerKey{Version: k.Version, Pair: k.Pair, ValidAfter: k.ValidAfter, RotatesAt: k.RotatesAt, ExpiresAt: k.ExpiresAt}
	}
	return out
}

// entryLife is the life of the credential that each Ack brings.
const entryLife = 30 * 24 * time.Hour

func (s *Server) newEntry() (ccp.Entry, bool) {
	c := s.ring.NewEntry(s.opt.Clock().Add(entryLife))
	return ccp.Entry{ID: c.ID, Key: c.Key}, c.Expires().After(s.opt.Clock())
}

// source writes a client's address into the log as log.addresses says: not at all,
// its network (IPv4 /24, IPv6 /48), or all of it.
func source(how string) func(netip.Addr) string {
	switch how {
	case "none":
		return nil
	case "full":
		return netip.Addr.String
	}
	return func(a netip.Addr) string {
		bits := 48
		if a.Is4() {
			bits = 24
		}
		p, err := a.Prefix(bits)
		if err != nil {
			return ""
		}
		return p.String()
	}
}

// newGate turns the configured limits into admission's budgets.
func (s *Server) newGate() *admission.Gate {
	l := s.cfg.Limits
	rate, burst := float64(l.HandshakeRate)/60, float64(l.HandshakeBurst)
	wide := float64(l.NetworkFactor)
	narrow := admission.Budget{
		Rate: rate, Burst: burst, Open: int(l.PendingPerSource), Work: 100 * time.Millisecond, WorkBurst: time.Second,
	}
	return admission.New(admission.Options{
		Narrow: narrow,
		Wide: admission.Budget{
			Rate: rate * wide, Burst: burst * wide, Open: narrow.Open * int(l.NetworkFactor),
			Work: 4 * narrow.Work, WorkBurst: 4 * narrow.WorkBurst,
		},
		Open: int(l.Pending), Deadline: l.HandshakeTimeout, Trusted: s.cfg.Server.TrustedProxies,
		Clock: s.opt.Clock, Metrics: s.metrics,
	})
}

// counts carries the relay's figures to the metrics.
type counts struct{ m *metrics.Set }

func (c counts) Committed(rows, _ int, seconds float64) {
	c.m.Observe(metrics.CommitBatch, float64(rows))
	c.m.Observe(metrics.CommitSeconds, seconds)
}
func (c counts) CommitFailed()       { c.m.Inc(metrics.CommitRetries) }
func (c counts) Enqueued(n int)      { c.m.Add(metrics.RelayEnqueued, n) }
func (c counts) Waiting(rows int)    { c.m.Set(metrics.CommitPending, float64(rows)) }
func (c counts) FannedOut(n int)     { c.m.Observe(metrics.FanOut, float64(n)) }
func (c counts) Handed(s float64)    { c.m.Observe(metrics.DeliverySeconds, s) }
func (c counts) Duplicate()          { c.m.Inc(metrics.MessagesDuplicate) }
func (c counts) Refused(code string) { c.m.Count(metrics.MessagesRefused, code) }
func (c counts) Poisoned()           { c.m.Inc(metrics.MessagesMoved) }
func (c counts) Purged(n int)        { c.m.Add(metrics.MessagesExpired, n) }
func (c counts) Dropped(n int)       { c.m.Add(metrics.MessagesDropped, n) }
func (c counts) CallsActive(n int)   { c.m.Set(metrics.CallsActive, float64(n)) }

func (c counts) Accepted(s float64) {
	c.m.Inc(metrics.MessagesAccepted)
	c.m.Observe(metrics.AckSeconds, s)
}

func (c counts) Delivered(again bool) {
	c.m.Inc(metrics.MessagesDelivered)
	if again {
		c.m.Inc(metrics.MessagesRedelivered)
	}
}

func (c counts) Call(event string) {
	if event == "offer" {
		c.m.Inc(metrics.CallsTotal)
	}
}

func (c counts) Media(video bool) {
	if video {
		c.m.Inc(metrics.CallVideoFrames)
		return
	}
	c.m.Inc(metrics.CallVoiceFrames)
}

func (c counts) Transport(kind string) {
	switch kind {
	case "candidate":
		c.m.Inc(metrics.TransportCandidates)
	case "selected_candidate_pair":
		c.m.Inc(metrics.TransportPairs)
	case "consent_keepalive":
		c.m.Inc(metrics.TransportKeepalive)
	}
}
