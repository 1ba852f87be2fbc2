package amnesiawg

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/conf"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
	"github.com/commucat/commucat/sdk"
)

// When a handshake is begun anew, and when the relay is asked what is wrong, counted
// from the beginning. WireGuard itself would repeat every five seconds.
var (
	handshakesAt = []time.Duration{0, 2 * time.Second, 5 * time.Second, 9 * time.Second}
	questionsAt  = []time.Duration{3 * time.Second, 6 * time.Second, 10 * time.Second}
)

// refusedAfter is how long a refusal by the network, which anybody can forge, may be
// wrong.
const refusedAfter = 4 * time.Second

// connect makes a session. One does it for all who wait.
func (t *tunnel) connect(ctx context.Context, deadline time.Time) error {
	limit := time.NewTimer(time.Until(deadline))
	defer limit.Stop()
	select {
	case t.connecting <- struct{}{}:
		defer func() { <-t.connecting }()
	case <-ctx.Done():
		return ctx.Err()
	case <-limit.C:
		return context.DeadlineExceeded
	}
	t.mu.Lock()
	up := t.up
	t.mu.Unlock()
	if up {
		return nil
	}
	if err := t.locate(ctx); err != nil {
		return err
	}
	t.note(func() { t.signs = signs{asked: map[[8]byte]bool{}} })
	began := time.Now()
	starts, questions := handshakesAt, questionsAt
	for {
		now := time.Now()
		t.mu.Lock()
		up, changed := t.up, t.changed
		t.mu.Unlock()
		if up { // to begin anew now would end it
			return nil
		}
		if len(starts) > 0 && now.Sub(began) >= starts[0] {
			starts = starts[1:]
			if err := t.begin(); err != nil {
				return err
			}
		}
		if len(questions) > 0 && now.Sub(began) >= questions[0] {
			questions = questions[1:]
			t.ask()
		}
		t.mu.Lock()
		s := t.signs
		t.mu.Unlock()
		over := !now.Before(deadline)
		if err := s.verdict(now.Sub(began), over); err != nil {
			return err
		}
		next := deadline
		for _, at := range [][]time.Duration{starts, questions, {refusedAfter}} {
			if len(at) > 0 && began.Add(at[0]).Before(next) && began.Add(at[0]).After(now) {
				next = began.Add(at[0])
			}
		}
		timer := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
			timer.Stop()
			// Who gave up early still learns what is known.
			if err := s.verdict(now.Sub(began), true); errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return err
			}
			return ctx.Err()
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// locate finds the relay's addresses.
func (t *tunnel) locate(ctx context.Context) error {
	at, err := candidates(ctx, t.e.Host)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at, t.tried = at, 0
	return nil
}

// begin starts a handshake of its own with the next of the relay's addresses, by any
// of its ports.
func (t *tunnel) begin() error {
	t.mu.Lock()
	host := t.at[t.tried%len(t.at)]
	t.tried++
	t.mu.Unlock()
	remote := netip.AddrPortFrom(host, t.e.Ports[rand.IntN(len(t.e.Ports))])
	server := device.NoisePublicKey(t.e.Server)
	t.dev.RemovePeer(server) // with it goes the session, and the wait between handshakes
	t.bind.SetRemote(remote)
	t.bind.Watch()
	if err := addPeer(t.dev, t.e.Server, conf.ServerAddr(t.e.Server), remote.String()); err != nil {
		return err
	}
	p := t.dev.LookupPeer(server)
	if p == nil {
		return &sdk.Error{Kind: sdk.Closed, Op: "tunnel", Text: "it has been closed"}
	}
	// What was heard of the handshake before, and of its session, counts no more.
	t.note(func() { t.up, t.signs.response = false, false })
	// A send that fails now is noted as a refusal, and repeated.
	_ = p.SendHandshakeInitiation(false)
	return nil
}

// ask asks the relay what is wrong, at each of its addresses.
func (t *tunnel) ask() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, host := range t.at {
		d := t.asker.Ask(obfs.Question{Time: time.Now(), Parameters: t.e.Wire.Digest(), Address: t.address.As16()})
		t.signs.asked[[8]byte(d)] = true
		// Best effort, as everything here.
		_ = t.bind.WriteTo(d, netip.AddrPortFrom(host, t.e.Ports[rand.IntN(len(t.e.Ports))]))
	}
}

// verdict says what is wrong: nil as long as there is hope.
func (s signs) verdict(after time.Duration, over bool) error {
	switch {
	case s.answer != nil && !s.answer.KnownKey:
		return &sdk.Error{Kind: sdk.Denied, Op: "key", Text: "the relay answers, and does not know this key: it was revoked, its time is over, or the relay lost its state; ask for a new link"}
	case s.answer != nil && !s.answer.SameParameters:
		return &sdk.Error{Kind: sdk.Invalid, Op: "parameters", Text: "the relay answers, and has other obfuscation parameters than this endpoint; ask for a new link"}
	case s.refused && !s.response && !s.cookie && s.answer == nil && (after >= refusedAfter || over):
		return &sdk.Error{Kind: sdk.Unavailable, Op: "udp", Text: "the network refuses UDP to the relay's port: nothing listens there, or a firewall is in the way"}
	case !over:
		return nil
	case s.response:
		return &sdk.Error{Kind: sdk.Denied, Op: "key", Text: "the relay answers, and its handshake does not fit the key in this endpoint; ask for a new link"}
	case s.cookie, s.answer != nil:
		return &sdk.Error{Kind: sdk.Unavailable, Op: "udp", Text: "the relay answers, but no session came about in time: the way loses packets, or the relay is overloaded; try again"}
	}
	return &sdk.Error{Kind: sdk.Unavailable, Op: "udp", Text: "no answer at all: UDP to the relay seems to be blocked, or the relay is down (or this machine's clock is more than a minute wrong)"}
}
