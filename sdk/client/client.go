package client

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/noise"
)

// Client keeps one device connected. Its methods may be called concurrently.
type Client struct {
	opt    Options
	keys   keys
	out    *outbox
	in     *inbox
	events teller
	skew   atomic.Int64 // server time minus ours, nanoseconds

	saving sync.Mutex // held while the profile is written

	mu      sync.Mutex
	bearer  string // REST token of the newest session
	profile *Profile
	onDisk  *Profile // as it was saved last
	state   State
	cur     *session
	paths   paths
	useXK   bool
	keyless map[string]bool // transports that gave no key in this process
	settle  time.Duration   // see the constant
	changed chan struct{}   // closed and replaced at each change of cur and ended
	stop    context.CancelCauseFunc
	running chan struct{} // closed when Run has returned; nil: it does not run
	ended   error         // why the last Run gave up
	closed  bool
}

// keys are the profile's keys made ready, worked out once.
type keys struct {
	static noise.KeyPair
	device identity.Signer
	public [32]byte // of the device key
}

// New makes a client; Run connects it.
func New(opt Options) (*Client, error) {
	if opt.Profile == nil || opt.Store == nil || len(opt.Dialers) == 0 {
		return nil, invalid("a client needs a profile, a store and at least one transport")
	}
	if err := opt.Profile.Check(); err != nil {
		return nil, err
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Rand == nil {
		opt.Rand = rand.Reader
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.AnswerTimeout <= 0 {
		opt.AnswerTimeout = 10 * time.Second
	}
	c := &Client{opt: opt, profile: opt.Profile, paths: newPaths(), changed: make(chan struct{}), keyless: make(map[string]bool), settle: settle}
	c.events.call, c.onDisk = opt.OnEvent, opt.Profile
	c.keys = keys{static: noise.KeyPairFrom(opt.Profile.Static), device: opt.Profile.device().Signer()}
	c.keys.public = c.keys.device.Public()
	if len(c.endpoints()) == 0 {
		return nil, c.noWay()
	}
	var err error
	if c.state, err = opt.Store.State(); err == nil {
		c.out, err = openOutbox(opt.Store, c.wake, c.opt.Log)
	}
	if err == nil {
		c.in, err = openInbox(opt.Store, c.state.Cursor, opt.Handle)
	}
	if err != nil {
		return nil, &Error{Kind: Invalid, Text: "the message store cannot be read", Err: err}
	}
	c.in.onFail, c.in.onRoom = c.abort, c.Disconnect
	return c, nil
}

func (c *Client) current() *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cur
}

func (c *Client) wake() {
	if s := c.current(); s != nil {
		s.poke()
	}
}

// abort ends Run with err.
func (c *Client) abort(err error) {
	c.mu.Lock()
	stop := c.stop
	c.mu.Unlock()
	if stop != nil {
		stop(err)
	}
}

// Run keeps the device connected until ctx ends (returning nil), until the
// client is closed, or until trying again cannot help: the relay refused the
// device for good (an *Error of kind Refused), or the store or profile failed
// (kind Invalid). It may be called again after it has returned.
func (c *Client) Run(ctx context.Context) error {
	work, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	c.mu.Lock()
	switch {
	case c.closed:
		c.mu.Unlock()
		return ErrClosed
	case c.running != nil:
		c.mu.Unlock()
		return invalid("Run was called while it runs")
	}
	over := make(chan struct{})
	c.running, c.stop, c.ended = over, stop, nil
	c.mu.Unlock()
	defer close(over)

	err := c.in.err()
	if err == nil {
		c.in.start()
		err = c.keep(work)
	}
	if cause := context.Cause(work); err == nil && ctx.Err() == nil && cause != nil {
		err = cause // aborted, or closed
	}
	// Before anybody learns of the end: what follows Close, and it alone, may write then.
	if saved := errors.Join(c.saveSession(), c.lastSave()); saved != nil && err == nil {
		err = saved
	}
	c.mu.Lock()
	c.running, c.stop, c.ended = nil, nil, err
	c.tell()
	c.mu.Unlock()
	return err
}

// saveSession stores the resume token.
func (c *Client) saveSession() error {
	c.mu.Lock()
	state := c.state
	c.mu.Unlock()
	if err := c.opt.Store.SaveSession(state); err != nil {
		return storeFailed(err)
	}
	return nil
}

// keep connects again and again.
func (c *Client) keep(ctx context.Context) error {
	var (
		pause   backoff
		silence = raceDelay
	)
	for ctx.Err() == nil {
		s, err := c.connect(ctx, silence)
		by := ""
		if err == nil {
			by = s.transport
			err = c.serve(ctx, s)
			pause.after(s, err)
		}
		if ctx.Err() == nil && final(err) {
			if isKind(err, Refused) {
				c.events.tell(Event{Name: "refused", Err: err})
			}
			return err
		}
		last := pause.next()
		silence = patience(last)
		if s != nil && s.sent {
			silence = raceMost
		}
		c.opt.Log.Debug("reconnecting", "pause", last, "error", err)
		if ctx.Err() == nil {
			c.events.tell(Event{Name: "waiting", Transport: by, Err: err})
		}
		t := time.NewTimer(last)
		select {
		case <-ctx.Done():
			t.Stop()
		case <-t.C:
		}
	}
	return nil
}

// serve works one session to its end.
func (c *Client) serve(ctx context.Context, s *session) error {
	c.events.tell(Event{
		Name: "connected", Transport: s.transport, Resumed: s.resumed,
		Milliseconds: float64(c.opt.Now().Sub(s.began)) / float64(time.Millisecond),
	})
	stop := c.follow()
	up := c.opt.Now()
	err := s.run(ctx)
	s.stood = c.opt.Now().Sub(up)
	stop()
	c.setCurrent(nil)
	c.over(s, err)
	c.events.tell(Event{Name: "disconnected", Transport: s.transport, Err: err})
	return err
}

// over notes what the end of a session means for the next dial.
func (c *Client) over(s *session, err error) {
	now := c.opt.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if until := now.Add(s.resumable); until.Before(c.state.ResumeUntil) {
		c.state.ResumeUntil = until
	}
	if isKind(err, Broken) && !s.cut.Load() && (s.suspect.Load() || !s.progressed() && !s.proven()) {
		c.paths.doubt(s.endpoint, now)
	}
}

func (c *Client) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func (c *Client) setCurrent(s *session) {
	c.mu.Lock()
	c.cur = s
	c.tell()
	c.mu.Unlock()
}

// tell wakes who waits for a change; mu is held.
func (c *Client) tell() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Connected waits until the device is connected and says by which transport. It
// fails with ctx, with the error for which Run gave up, or with ErrClosed.
func (c *Client) Connected(ctx context.Context) (transport string, err error) {
	s, err := c.connected(ctx)
	if err != nil {
		return "", err
	}
	return s.transport, nil
}

func (c *Client) connected(ctx context.Context) (*session, error) {
	for {
		c.mu.Lock()
		s, changed, ended, closed := c.cur, c.changed, c.ended, c.closed
		c.mu.Unlock()
		switch {
		case s != nil:
			return s, nil
		case closed:
			return nil, ErrClosed
		case ended != nil:
			return nil, ended
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-changed:
		}
	}
}

// Disconnect cuts the present connection, as a network failure would; Run makes
// a new one.
func (c *Client) Disconnect() {
	if s := c.current(); s != nil {
		s.cut.Store(true)
		s.conn.Close()
	}
}

// Profile returns the device's profile as it stands (certificate, catalogue and
// entry credentials change during sessions). The caller must not change it.
func (c *Client) Profile() *Profile {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.profile
}

// Pending says how many messages the relay has not acknowledged.
func (c *Client) Pending() int { return c.out.open() }

// Stop begins the end and waits for nothing, so that a callback may call it: Run ends, and
// after their present calls neither Handle nor OnEvent is called. Close waits for that.
func (c *Client) Stop() {
	c.end()
	c.in.end()
	c.events.end(true)
}

// end has Run end; running is closed when it has, and nil where it never began.
func (c *Client) end() (running <-chan struct{}) {
	c.mu.Lock()
	c.closed = true
	stop, running := c.stop, c.running
	c.tell()
	c.mu.Unlock()
	if running != nil {
		stop(ErrClosed)
	}
	return running
}

// Close ends Run and the callbacks: when it returns, Run has ended, OnEvent has been told
// of everything that was queued for it, and neither Handle nor OnEvent runs or will be
// called. What is not acknowledged or not shown stays in the store, which stays open, and
// nothing more is written to the profile. It waits for the callbacks' present calls, so
// none of them may call it, or wait for it: Stop is for them.
func (c *Client) Close() error {
	if running := c.end(); running != nil {
		<-running
	}
	c.saving.Lock()   // who is saving the profile has begun before, and ends before
	c.saving.Unlock() //nolint:staticcheck // nobody begins after it
	c.out.close(ErrClosed)
	c.in.end()
	c.in.wait()
	c.events.end(false)
	c.events.wait()
	return nil
}

func (c *Client) serverTime() time.Time { return c.opt.Now().Add(time.Duration(c.skew.Load())) }

func (c *Client) event(name string, f ccp.Frame) {
	c.events.tell(Event{Name: name, Channel: f.Channel, Payload: append([]byte{}, f.Payload...)}) // never nil: see teller
}
