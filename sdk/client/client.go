package client

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/transport"
)

// Options configure a Client. Profile, Store and Dialers are required.
type Options struct {
	Profile *Profile
	Store   Store
	// Dialers are the transports of this program, in the order of preference.
	Dialers []transport.Dialer
	// Transport restricts the client to one of them; "" chooses by itself.
	Transport string
	// Handle is called for each message, one at a time, in order. With an error it
	// is not called again: this message and those that follow stay in the store
	// for the next client. Nil discards messages.
	Handle func(Message) error
	// OnEvent is told of everything that is not a message; it must not block.
	OnEvent func(Event)
	// Log gets no secret and no message; nil discards.
	Log *slog.Logger
	// Now and Rand default to time.Now and crypto/rand.
	Now  func() time.Time
	Rand io.Reader
	// AnswerTimeout is how long a sent message may stay unanswered before the
	// connection counts as dead; 0 means 10 s.
	AnswerTimeout time.Duration
	// Roots and the like are the dialers' business; DialTCP replaces the carrier.
	DialTCP func(ctx context.Context, network, address string) (net.Conn, error)
	// PostQuantum, Padding and other wire choices follow the relay's promise.
}

// Event is what happened beside messages.
type Event struct {
	// Name is "connected", "disconnected", "refused", "presence", "event",
	// "catalogue", "certificate", "move" or "join".
	Name string
	// Transport and Milliseconds belong to "connected": which way, and how long
	// from the dial to the relay's Ack.
	Transport    string
	Milliseconds float64
	Resumed      bool
	Channel      uint32
	// Payload is the control frame's JSON, where there is one.
	Payload []byte
	Err     error
}

// Client keeps one device connected. Its methods may be called concurrently.
type Client struct {
	opt  Options
	out  *outbox
	in   *inbox
	skew atomic.Int64 // server time minus ours, nanoseconds

	mu      sync.Mutex
	profile *Profile
	state   State
	cur     *session
	avoid   map[string]time.Time // endpoints not to use before
	best    string               // endpoint of the last good session
	full    time.Time            // last completed XK under the present Noise key
	useXK   bool
	changed chan struct{} // closed and replaced at each change of cur
	closed  bool
}

// New makes a client; Run connects it.
func New(opt Options) (*Client, error) {
	if opt.Profile == nil || opt.Store == nil || len(opt.Dialers) == 0 {
		return nil, invalid("a client needs a profile, a store and at least one transport")
	}
	if err := opt.Profile.check(); err != nil {
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
	if opt.Handle == nil {
		opt.Handle = func(Message) error { return nil }
	}
	if opt.OnEvent == nil {
		opt.OnEvent = func(Event) {}
	}
	if opt.AnswerTimeout == 0 {
		opt.AnswerTimeout = 10 * time.Second
	}
	st, err := opt.Store.State()
	if err != nil {
		return nil, &Error{Kind: Invalid, Text: "the message store cannot be read", Err: err}
	}
	c := &Client{opt: opt, profile: opt.Profile, state: st, avoid: make(map[string]time.Time), changed: make(chan struct{})}
	if len(c.endpoints()) == 0 {
		if opt.Transport != "" {
			return nil, invalid("the relay offers no endpoint for transport %q that this program can dial", opt.Transport)
		}
		return nil, invalid("this program can dial none of the relay's transports")
	}
	if c.out, err = openOutbox(opt.Store, c.wake); err != nil {
		return nil, &Error{Kind: Invalid, Text: "the message store cannot be read", Err: err}
	}
	c.in = openInbox(opt.Store, st.Cursor, opt.Handle)
	return c, nil
}

func (c *Client) wake() {
	c.mu.Lock()
	s := c.cur
	c.mu.Unlock()
	if s != nil {
		s.poke()
	}
}

// Run keeps the device connected until ctx ends (returning nil), or until the
// relay refuses it for good (returning the *Error of kind Refused).
func (c *Client) Run(ctx context.Context) error {
	var pause backoff
	for ctx.Err() == nil {
		if err := c.in.err(); err != nil {
			return &Error{Kind: Invalid, Text: "the message store failed", Err: err}
		}
		s, err := c.connect(ctx)
		if err == nil {
			began := c.opt.Now()
			err = s.run(ctx)
			c.setCurrent(nil)
			if c.opt.Now().Sub(began) > backoffMax || s.progressed() {
				pause.reset()
			}
			c.opt.OnEvent(Event{Name: "disconnected", Transport: s.transport, Err: err})
		}
		if ctx.Err() != nil {
			break
		}
		if final(err) {
			c.opt.OnEvent(Event{Name: "refused", Err: err})
			return err
		}
		d := pause.next()
		c.opt.Log.Debug("reconnecting", "pause", d, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
	return nil
}

// final says whether err will not go away by trying again.
func final(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	if e.Kind == Invalid {
		return true
	}
	_, known := refusals[e.Code]
	return e.Kind == Refused && known
}

func (c *Client) setCurrent(s *session) {
	c.mu.Lock()
	c.cur = s
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
}

// Connected waits until the device is connected and says by which transport.
func (c *Client) Connected(ctx context.Context) (transport string, err error) {
	for {
		c.mu.Lock()
		s, changed := c.cur, c.changed
		c.mu.Unlock()
		if s != nil {
			return s.transport, nil
		}
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-changed:
		}
	}
}

// Disconnect cuts the present connection, as a network failure would; Run makes
// a new one.
func (c *Client) Disconnect() {
	c.mu.Lock()
	s := c.cur
	c.mu.Unlock()
	if s != nil {
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

// Draft is a message to send.
type Draft struct {
	// To names devices, accounts or handles, at most 64; empty with a Channel.
	To []string
	// Channel is a joined channel; its members get the message.
	Channel uint32
	// Kind is Msg unless set.
	Kind ccp.Type
	Body []byte
	// TTL is how long the relay keeps it for an absent device; 0 = its maximum.
	TTL time.Duration
	// NoCopies: do not copy to this account's other devices. Ephemeral: only for
	// devices that are connected now; nothing is stored.
	NoCopies, Ephemeral bool
}

// Send puts the message into the outbox, where it is durable when Send returns.
func (c *Client) Send(d Draft) (*Ticket, error) {
	if d.Kind == 0 {
		d.Kind = ccp.TypeMsg
	}
	switch {
	case (len(d.To) == 0) == (d.Channel == 0):
		return nil, invalid("a message goes either to named recipients or to a channel")
	case len(d.To) > MaxRecipients:
		return nil, invalid("at most %d recipients a message", MaxRecipients)
	case len(d.Body) > MaxBody:
		return nil, invalid("the message is larger than %d bytes", MaxBody)
	case d.TTL < 0 || d.TTL/time.Second > 1<<32-1:
		return nil, invalid("the time to live is out of range")
	}
	for _, to := range d.To {
		if to == "" || len(to) > 255 {
			return nil, invalid("a recipient's id has 1 to 255 bytes")
		}
	}
	o := Outgoing{Kind: d.Kind, Channel: d.Channel, To: d.To, Body: d.Body, TTL: uint32(d.TTL / time.Second)}
	if d.NoCopies {
		o.Flags |= ccp.SendNoCopies
	}
	if d.Ephemeral {
		o.Flags |= ccp.SendEphemeral
	}
	return c.out.put(o)
}

// Pending says how many messages the relay has not acknowledged.
func (c *Client) Pending() int {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.out.pending
}

// Close ends the client after Run has returned; the store stays open.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	c.out.close(ErrClosed)
	c.in.close()
	return nil
}
