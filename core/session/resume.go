package session

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/sdk/ccp"
)

// resumption is what the volatile store keeps under the hash of a resume token.
// The bearer token is masked with the resume token, which the store does not know.
type resumption struct {
	Device  string `json:"device"`
	Session string `json:"session"`
	Node    string `json:"node,omitempty"`
	Fence   uint64 `json:"fence"`
	Until   int64  `json:"until"` // unix s; 24 h after it was made
	Masked  []byte `json:"bearer"`
	// Transport carried the session.
	Transport string `json:"transport,omitempty"`

	bearer string
	key    string
}

func resumeKey(token [32]byte) string { return cacheKey(sha256.Sum256(token[:])) }

func cacheKey(hash [32]byte) string { return "resume/" + hex.EncodeToString(hash[:]) }

// mask hides or shows a bearer token (64 hex digits, 32 bytes).
func mask(token [32]byte, b []byte) []byte {
	m := sha256.Sum256(append([]byte("commucat/resume-bearer/1\x00"), token[:]...))
	out := make([]byte, len(m))
	if len(b) != len(m) {
		return nil
	}
	subtle.XORBytes(out, b, m[:])
	return out
}

// resume looks a resume token up. nil without error: a fresh session. Over IK an
// unspent token of this very device is required.
func (o *opening) resume(ctx context.Context, conf *ccp.Confirm, device string) (*resumption, error) {
	former := o.former(ctx, conf, device)
	if former == nil && o.hello.Pattern == ccp.PatternIK {
		return nil, refused(ccp.CodeUseXK, "no live resume token", nil)
	}
	return former, nil
}

func (o *opening) former(ctx context.Context, conf *ccp.Confirm, device string) *resumption {
	opt := &o.srv.opt
	if conf.Resume == nil || !o.accepted.Has(ccp.Resume) || opt.Cache == nil {
		return nil
	}
	now := opt.Clock()
	key := resumeKey(*conf.Resume)
	b, err := opt.Cache.Get(ctx, now, key)
	if err != nil {
		opt.Log.Warn("resume token", "error", err)
		return nil
	}
	if b == nil {
		return nil
	}
	r := &resumption{key: key}
	if err := json.Unmarshal(b, r); err != nil || now.Unix() >= r.Until {
		return nil
	}
	if r.Device != device {
		opt.Metrics.Count(metrics.Handshakes, "foreign_token")
		opt.Log.Warn("resume token of another device", "device", device)
		return nil
	}
	raw := mask(*conf.Resume, r.Masked)
	if raw == nil {
		return nil
	}
	r.bearer = hex.EncodeToString(raw)
	return r
}

// ticket is the resume token of a live session, as the session keeps it: enough
// to shorten its life at the end, not the token itself.
type ticket struct {
	hash, masked [32]byte
	until        int64 // unix s; 0: there is none
}

// stored is what the volatile store holds for a ticket.
func (s *Session) stored(t *ticket) (key string, value []byte, err error) {
	value, err = json.Marshal(resumption{
		Device: s.device, Session: s.id, Node: s.srv.opt.Node, Fence: s.Fence(), Until: t.until, Masked: t.masked[:],
		Transport: s.transport,
	})
	return cacheKey(t.hash), value, err
}

// issueResume makes the next token. It fails soft: without a token the client
// makes a fresh session next time.
func (o *opening) issueResume(ctx context.Context, ses *Session, bearer string) *[32]byte {
	opt := &o.srv.opt
	if !o.accepted.Has(ccp.Resume) || opt.Cache == nil {
		return nil
	}
	now := opt.Clock()
	token, t, err := makeTicket(opt.Rand, bearer, now.Add(opt.Limits.ResumeLife))
	var key string
	var value []byte
	if err == nil {
		key, value, err = ses.stored(&t)
	}
	if err == nil {
		err = opt.Cache.Put(ctx, now, key, value, opt.Limits.ResumeLife)
	}
	if err != nil {
		opt.Log.Warn("resume token not stored", "error", err)
		return nil
	}
	ses.resume = t
	return &token
}

func makeTicket(random io.Reader, bearer string, until time.Time) (token [32]byte, t ticket, err error) {
	if _, err := io.ReadFull(random, token[:]); err != nil {
		return token, t, fmt.Errorf("random: %w", err)
	}
	raw, err := hex.DecodeString(bearer)
	if err != nil || len(raw) != 32 {
		return token, t, fmt.Errorf("bearer token of %d characters", len(bearer))
	}
	t = ticket{hash: sha256.Sum256(token[:]), masked: [32]byte(mask(token, raw)), until: until.Unix()}
	return token, t, nil
}

// release leaves the token good for the window after the connection's end.
func (s *Session) release() {
	t := &s.resume
	if t.until == 0 || s.replaced.Load() {
		// Replaced: the newer connection ends the token with its first record, and
		// until then a lost Ack must find it.
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.srv.ctx), ioTime)
	defer cancel()
	now := s.srv.opt.Clock()
	if s.dropResume.Load() {
		_ = s.srv.opt.Cache.Delete(ctx, cacheKey(t.hash))
		return
	}
	ttl := min(s.srv.opt.Limits.ResumeWindow, time.Unix(t.until, 0).Sub(now))
	if ttl <= 0 {
		return
	}
	key, value, err := s.stored(t)
	if err == nil {
		err = s.srv.opt.Cache.Put(ctx, now, key, value, ttl)
	}
	if err != nil {
		s.srv.opt.Log.Warn("resume token not renewed", "error", err)
	}
}

// spend ends the token that this session was resumed with: the client has shown
// that it has the new one.
func (s *Session) spend(key string) {
	ctx, cancel := context.WithTimeout(s.srv.ctx, ioTime)
	defer cancel()
	if err := s.srv.opt.Cache.Delete(ctx, key); err != nil {
		s.srv.opt.Log.Warn("resume token not ended", "error", err)
	}
}
