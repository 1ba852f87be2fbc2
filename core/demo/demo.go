package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/transport"
)

// Options of a demonstration.
type Options struct {
	// Ways are the transports to show, in order.
	Ways []Way
	// Messages each way; 0 means 1,000.
	Messages int
	// Timeout of one transport's row; 0 means one minute.
	Timeout time.Duration
	// Row is told each finished row.
	Row func(Row)
}

// Way is one transport to show.
type Way struct {
	Dialer transport.Dialer
	// Link is an invitation over it, with room for two accounts.
	Link string
	// Err is why there is no Link; it goes into the row.
	Err error
}

// Row is what one transport showed.
type Row struct {
	Transport string `json:"transport"`
	OK        bool   `json:"ok"`
	// HandshakeMS is from the dial to the relay's Ack.
	HandshakeMS float64 `json:"handshake_ms"`
	// RTTP50MS is the median from Send to the relay's acknowledgement, which
	// comes after fsync.
	RTTP50MS         float64 `json:"rtt_p50_ms"`
	Messages         int     `json:"messages"`
	Lost             int     `json:"lost"`
	OfflineDelivered bool    `json:"offline_delivered"`
	Resumed          bool    `json:"resumed"`
	Error            string  `json:"error,omitempty"`
}

// Run shows every transport and returns the rows; the error is only about the
// demonstration itself.
func Run(ctx context.Context, o Options) ([]Row, error) {
	if o.Messages == 0 {
		o.Messages = 1000
	}
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	if o.Row == nil {
		o.Row = func(Row) {}
	}
	var rows []Row
	for _, w := range o.Ways {
		r := show(ctx, o, w)
		rows = append(rows, r)
		o.Row(r)
		if ctx.Err() != nil {
			return rows, context.Cause(ctx)
		}
	}
	return rows, nil
}

func show(ctx context.Context, o Options, w Way) Row {
	ctx, cancel := context.WithTimeoutCause(ctx, o.Timeout, fmt.Errorf("not finished within %v", o.Timeout))
	defer cancel()
	s := &scene{o: o, row: Row{Transport: w.Dialer.Name()}}
	err := w.Err
	if err == nil {
		err = s.play(ctx, w)
	}
	if err != nil {
		s.row.Error = err.Error()
	}
	s.row.OK = err == nil && s.row.Lost == 0 && s.row.OfflineDelivered && s.row.Resumed
	return s.row
}

// scene is one transport's row in the making.
type scene struct {
	o          Options
	row        Row
	alice, bob *actor
}

func (s *scene) play(ctx context.Context, w Way) (err error) {
	l, err := link.Parse(w.Link)
	if err != nil {
		return err
	}
	defer func() {
		for _, a := range []*actor{s.alice, s.bob} {
			if a != nil {
				a.leave()
			}
		}
	}()
	for _, who := range []struct {
		name string
		to   **actor
	}{{"alice", &s.alice}, {"bob", &s.bob}} {
		if *who.to, err = newActor(who.name+"-"+w.Dialer.Name()+"-"+rand.Text()[:6], l, w.Dialer); err != nil {
			return err
		}
		if err := (*who.to).join(ctx); err != nil {
			return err
		}
	}
	s.row.HandshakeMS = s.alice.handshake()
	if err := s.talk(ctx); err != nil {
		return err
	}
	if err := s.offline(ctx); err != nil {
		return err
	}
	return s.cut(ctx)
}

// talk: messages both ways at once.
func (s *scene) talk(ctx context.Context) error {
	n := s.o.Messages
	var (
		wg     sync.WaitGroup
		errs   [2]error
		delays [2][]time.Duration
	)
	for i, pair := range [2][2]*actor{{s.alice, s.bob}, {s.bob, s.alice}} {
		wg.Go(func() { delays[i], errs[i] = pair[0].say(ctx, pair[1], n) })
	}
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	all := append(delays[0], delays[1]...)
	slices.Sort(all)
	if len(all) > 0 {
		s.row.RTTP50MS = float64(all[len(all)/2]) / float64(time.Millisecond)
	}
	s.row.Messages = 2 * n
	err := errors.Join(s.alice.heard(ctx, n), s.bob.heard(ctx, n))
	s.row.Lost = 2*n - s.alice.count() - s.bob.count()
	return err
}

// offline: bob leaves, alice writes, bob comes back.
func (s *scene) offline(ctx context.Context) error {
	const n = 20
	before := s.bob.count()
	s.bob.leave()
	if _, err := s.alice.say(ctx, s.bob, n); err != nil {
		return err
	}
	if s.bob.count() != before {
		return errors.New("a message reached a device that was away")
	}
	if err := s.bob.join(ctx); err != nil {
		return err
	}
	if err := s.bob.heard(ctx, before+n); err != nil {
		return err
	}
	s.row.OfflineDelivered = true
	return nil
}

// cut: both connections break while messages flow.
func (s *scene) cut(ctx context.Context) error {
	const n = 200
	before := s.bob.count()
	said := make(chan error, 1)
	go func() {
		_, err := s.alice.say(ctx, s.bob, n)
		said <- err
	}()
	if err := s.bob.heard(ctx, before+n/10); err != nil {
		return err
	}
	resumes := s.alice.resumes() + s.bob.resumes()
	s.alice.client.Disconnect()
	s.bob.client.Disconnect()
	if err := <-said; err != nil {
		return err
	}
	if err := s.bob.heard(ctx, before+n); err != nil {
		s.row.Lost += before + n - s.bob.count()
		return err
	}
	if err := s.resumed(ctx, resumes+2); err != nil {
		return err
	}
	s.row.Resumed = true
	return errors.Join(s.alice.fault(), s.bob.fault())
}

func (s *scene) resumed(ctx context.Context, want int) error {
	for {
		a, changedA := s.alice.watch()
		b, changedB := s.bob.watch()
		if a+b >= want {
			return nil
		}
		select {
		case <-changedA:
		case <-changedB:
		case <-ctx.Done():
			return fmt.Errorf("the session was not resumed: %w", context.Cause(ctx))
		}
	}
}
