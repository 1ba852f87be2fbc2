package call

import (
	"slices"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
)

// Error is a refused frame; Code is the wire code.
type Error struct{ Code, Detail string }

// Error is the code with its detail.
func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Code
	}
	return e.Code + ": " + e.Detail
}

// The codes of Error.
const (
	CodeBadRequest = "bad_request"
	CodeBadSender  = "bad_sender"
	CodeNoCall     = "no_call"
	CodeCallExists = "call_exists"
	CodeLimit      = "limit"
	CodeBadMedia   = "bad_media"
)

// Metrics receives counts; see the relay's interface of the same name.
type Metrics interface {
	Call(event string)
	CallsActive(n int)
	Transport(kind string)
}

// Options configure a Table. Zero limits take their defaults.
type Options struct {
	Clock func() time.Time
	// Audit receives offer, answer and end with the data of ccp1.md 8.1; may be
	// nil. It must not block.
	Audit   func(event, callID string, data map[string]any)
	Metrics Metrics
	// Calls bounds all calls: 4,096. PerDevice bounds those a device takes part
	// in: 8.
	Calls, PerDevice int
	// Ringing is how long an offer waits for the first acceptance: 2 min. Longest
	// bounds a call: 24 h.
	Ringing, Longest time.Duration
}

// Table holds the running calls. All methods may be called concurrently.
type Table struct {
	opt Options

	mu      sync.Mutex
	calls   map[string]*running
	devices map[string][]*running
}

type running struct {
	id           string
	channel      uint32
	initiator    string
	participants []string
	accepted     map[string]bool
	profile      ccp.CallProfile
	started      time.Time
	deadline     time.Time
	stats        map[string]ccp.CallStats
	consent      time.Duration
}

// Ended is a call that the relay must end for its participants.
type Ended struct {
	CallID       string
	Channel      uint32
	Device       string // in whose name
	Participants []string
	// Body is the payload of the CallEnd frame.
	Body []byte
}

// New makes an empty table.
func New(opt Options) *Table {
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if opt.Calls == 0 {
		opt.Calls = 4096
	}
	if opt.PerDevice == 0 {
		opt.PerDevice = 8
	}
	if opt.Ringing == 0 {
		opt.Ringing = 2 * time.Minute
	}
	if opt.Longest == 0 {
		opt.Longest = 24 * time.Hour
	}
	return &Table{opt: opt, calls: map[string]*running{}, devices: map[string][]*running{}}
}

// Active is the number of running calls.
func (t *Table) Active() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.calls)
}

// Offer starts a call of the sender with the members that its frame reaches.
func (t *Table) Offer(device, user string, channel uint32, members []string, body []byte) error {
	o, err := ccp.ParseCallOffer(body)
	if err != nil {
		return &Error{CodeBadRequest, err.Error()}
	}
	if o.CallID == "" || len(o.CallID) > 255 {
		return &Error{CodeBadRequest, "call_id"}
	}
	if o.From != device && o.From != user {
		return &Error{CodeBadSender, "from"}
	}
	if err := checkProfile(o.Media); err != nil {
		return err
	}
	now := t.opt.Clock()
	deadline := now.Add(t.opt.Ringing)
	if o.ExpiresAt != nil {
		if at, ok := unixTime(*o.ExpiresAt); ok && at.Before(deadline) {
			if !at.After(now) {
				return &Error{CodeBadRequest, "expires_at has passed"}
			}
			deadline = at
		}
	}
	c := &running{
		id: o.CallID, channel: channel, initiator: device, participants: append([]string{device}, members...),
		accepted: map[string]bool{device: true}, profile: o.Media, started: now, deadline: deadline,
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.calls[o.CallID]; old != nil {
		if old.initiator == device && old.channel == channel {
			return nil // the same offer, repeated after a passing failure
		}
		return &Error{CodeCallExists, ""}
	}
	if len(t.calls) >= t.opt.Calls || len(t.devices[device]) >= t.opt.PerDevice {
		return &Error{CodeLimit, "too many calls"}
	}
	t.calls[c.id] = c
	for _, d := range c.participants {
		t.devices[d] = append(t.devices[d], c)
	}
	t.count("offer")
	t.audit("offer", c.id, map[string]any{
		"channel_id": channel, "initiator": device, "participants": c.participants,
		"mode": o.Media.Mode.String(), "video": o.Media.Video != nil,
	})
	return nil
}

// unixTime reads expires_at, which the reference leaves undefined: seconds, or
// milliseconds where seconds would be absurd.
func unixTime(v uint64) (time.Time, bool) {
	switch {
	case v < 1e11:
		return time.Unix(int64(v), 0), true
	case v < 1e14:
		return time.UnixMilli(int64(v)), true
	}
	return time.Time{}, false
}

// find is the call if the device takes part in it on this channel. mu is held.
func (t *Table) find(id, device string, channel uint32) (*running, error) {
	c := t.calls[id]
	if c == nil || c.channel != channel || !slices.Contains(c.participants, device) {
		return nil, &Error{CodeNoCall, ""}
	}
	return c, nil
}

// Answer takes or rejects a call; a rejection ends it for everybody.
func (t *Table) Answer(device string, channel uint32, body []byte) error {
	a, err := ccp.ParseCallAnswer(body)
	if err != nil {
		return &Error{CodeBadRequest, err.Error()}
	}
	if a.Media != nil {
		if err := checkProfile(*a.Media); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := t.find(a.CallID, device, channel)
	if err != nil {
		return err
	}
	t.count("answer")
	if !a.Accept {
		data := map[string]any{"device": device, "accept": false}
		if a.Reason != nil {
			data["reason"] = a.Reason.String()
		}
		t.audit("answer", c.id, data)
		t.end(c, device, "decline")
		return nil
	}
	c.accepted[device] = true
	c.deadline = c.started.Add(t.opt.Longest)
	if a.Media != nil {
		c.profile = *a.Media
	}
	t.audit("answer", c.id, map[string]any{
		"device": device, "accept": true, "mode": c.profile.Mode.String(), "video": c.profile.Video != nil, "accepted": len(c.accepted),
	})
	return nil
}

// End hangs up. An unknown call is tolerated: both sides may end at once.
func (t *Table) End(device string, channel uint32, body []byte) error {
	e, err := ccp.ParseCallEnd(body)
	if err != nil {
		return &Error{CodeBadRequest, err.Error()}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.calls[e.CallID] == nil {
		return nil
	}
	c, err := t.find(e.CallID, device, channel)
	if err != nil {
		return err
	}
	t.end(c, device, e.Reason.String())
	return nil
}

// Stats keeps a participant's last report.
func (t *Table) Stats(device string, channel uint32, body []byte) error {
	s, err := ccp.ParseCallStats(body)
	if err != nil {
		return &Error{CodeBadRequest, err.Error()}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := t.find(s.CallID, device, channel)
	if err != nil {
		return err
	}
	if c.stats == nil {
		c.stats = map[string]ccp.CallStats{}
	}
	c.stats[device] = s
	return nil
}

// Transport takes a transport update of a participant.
func (t *Table) Transport(device string, channel uint32, body []byte) error {
	u, err := ccp.ParseTransportUpdate(body)
	if err != nil {
		return &Error{CodeBadRequest, err.Error()}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := t.find(u.CallID, device, channel)
	if err != nil {
		return err
	}
	kind := "candidate"
	switch {
	case u.Selected != nil:
		kind = "selected_candidate_pair"
	case u.Consent != nil:
		kind = "consent_keepalive"
		if u.Consent.IntervalSecs != nil {
			c.consent = time.Duration(*u.Consent.IntervalSecs) * time.Second
		}
	}
	if t.opt.Metrics != nil {
		t.opt.Metrics.Transport(kind)
	}
	return nil
}

// Media checks a voice or video packet of a device on a channel. Without a call
// of the device there the payload is nobody's business and passes; the relay
// has checked membership before.
func (t *Table) Media(device string, channel uint32, kind ccp.Type, payload []byte) error {
	t.mu.Lock()
	c := t.onChannel(device, channel)
	t.mu.Unlock()
	if c == nil {
		return nil
	}
	h, _, err := ccp.ParseMedia(kind, payload)
	switch {
	case err != nil:
		return &Error{CodeBadMedia, err.Error()}
	case h.Source == ccp.SourceRaw:
		return &Error{CodeBadMedia, "raw media is not transcoded here"}
	}
	return nil
}

// onChannel is the device's call on the channel, or nil. mu is held.
func (t *Table) onChannel(device string, channel uint32) *running {
	for _, c := range t.devices[device] {
		if c.channel == channel {
			return c
		}
	}
	return nil
}

// Disconnect ends every call of a device that is gone (ccp1.md 7.5).
func (t *Table) Disconnect(device string) []Ended {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Ended
	for _, c := range slices.Clone(t.devices[device]) {
		out = append(out, c.ended(device, ccp.EndFailure, "disconnect"))
		t.end(c, device, "disconnect")
	}
	return out
}

// Expire ends the calls whose time is up.
func (t *Table) Expire() []Ended {
	now := t.opt.Clock()
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Ended
	for _, c := range t.calls {
		if now.Before(c.deadline) {
			continue
		}
		out = append(out, c.ended(c.initiator, ccp.EndTimeout, "timeout"))
		t.count("expire")
		t.end(c, c.initiator, "timeout")
	}
	return out
}

func (c *running) ended(device string, reason ccp.EndReason, cause string) Ended {
	meta := ccp.AppendObject(nil, ccp.Bool("system", true), ccp.Text("cause", cause), ccp.Text("device", device))
	return Ended{
		CallID: c.id, Channel: c.channel, Device: device, Participants: c.participants,
		Body: ccp.CallEnd{CallID: c.id, Reason: reason, Metadata: meta}.Marshal(),
	}
}

// end removes a call. mu is held.
func (t *Table) end(c *running, device, reason string) {
	delete(t.calls, c.id)
	for _, d := range c.participants {
		list := slices.DeleteFunc(t.devices[d], func(o *running) bool { return o == c })
		if len(list) == 0 {
			delete(t.devices, d)
		} else {
			t.devices[d] = list
		}
	}
	t.count("end")
	t.audit("end", c.id, map[string]any{
		"device": device, "initiator": c.initiator, "reason": reason,
		"duration_secs": int64(t.opt.Clock().Sub(c.started) / time.Second),
	})
}

func (t *Table) count(event string) {
	if t.opt.Metrics != nil {
		t.opt.Metrics.Call(event)
		t.opt.Metrics.CallsActive(len(t.calls))
	}
}

func (t *Table) audit(event, id string, data map[string]any) {
	if t.opt.Audit != nil {
		t.opt.Audit(event, id, data)
	}
}

// checkProfile asks for media that a peer can use, as the reference does for
// what it would transcode.
func checkProfile(p ccp.CallProfile) error {
	if a := p.Audio; a.Codec == ccp.Opus {
		if !slices.Contains([]uint32{8000, 12000, 16000, 24000, 48000}, a.SampleRate) {
			return &Error{CodeBadRequest, "audio.sample_rate"}
		}
		if a.Channels < 1 || a.Channels > 2 {
			return &Error{CodeBadRequest, "audio.channels"}
		}
		if a.Bitrate < 1 || a.Bitrate > 1<<31-1 {
			return &Error{CodeBadRequest, "audio.bitrate"}
		}
	}
	if v := p.Video; v != nil && (v.MaxResolution.Width == 0 || v.MaxResolution.Height == 0) {
		return &Error{CodeBadRequest, "video.max_resolution"}
	}
	return nil
}
