package client

import (
	"slices"
	"time"
	"unicode/utf8"

	"github.com/commucat/commucat/sdk/ccp"
)

// Limits of messages.
const (
	// MaxBody is the largest message body.
	MaxBody = ccp.MaxBody - 32<<10
	// MaxRecipients is how many ids one message may name.
	MaxRecipients = ccp.MaxTo
	// maxName bounds a recipient's name, a handle among them.
	maxName = 255
)

// Draft is a message to send.
type Draft struct {
	// To names devices, accounts or handles, at most 64 of at most 255 bytes;
	// empty with a Channel.
	To []string
	// Channel is a joined channel; its members get the message.
	Channel uint32
	// Kind is Msg unless set. The body of a control kind must be JSON.
	Kind ccp.Type
	// Body is copied; at most MaxBody bytes.
	Body []byte
	// TTL is how long the relay keeps it for an absent device, in whole seconds;
	// 0 = the relay's maximum.
	TTL time.Duration
	// NoCopies: do not copy to this account's other devices. Ephemeral: only for
	// devices that are connected when it reaches the relay, which stores nothing.
	NoCopies, Ephemeral bool
}

// Send puts the message into the outbox, where it is durable when Send returns.
// Errors: kind Invalid for a draft that no relay would take and for a store that
// failed, Full, and ErrClosed.
func (c *Client) Send(d Draft) (*Ticket, error) {
	it, err := d.item()
	if err != nil {
		return nil, err
	}
	return c.out.put(it)
}

// Check says whether Send would take the draft: nil, or an error of kind Invalid.
func (d *Draft) Check() error {
	switch {
	case (len(d.To) == 0) == (d.Channel == 0):
		return invalid("a message goes either to named recipients or to a channel")
	case len(d.To) > MaxRecipients:
		return invalid("at most %d recipients a message", MaxRecipients)
	case len(d.Body) > MaxBody:
		return invalid("the message is larger than %d bytes", MaxBody)
	case d.TTL < 0 || d.TTL/time.Second > 1<<32-1:
		return invalid("the time to live is out of range")
	case d.TTL > 0 && d.TTL < time.Second:
		return invalid("the shortest time to live is one second")
	}
	for _, to := range d.To {
		if len(to) == 0 || len(to) > maxName || !utf8.ValidString(to) {
			return invalid("a recipient's name is text of 1 to %d bytes", maxName)
		}
	}
	return nil
}

// item checks the draft and writes it as the payload of a Send, whose message id
// is filled in when it is sent.
func (d *Draft) item() (*item, error) {
	if err := d.Check(); err != nil {
		return nil, err
	}
	if d.Kind == 0 {
		d.Kind = ccp.TypeMsg
	}
	it := new(item)
	it.Kind, it.Channel, it.TTL = d.Kind, d.Channel, uint32(d.TTL/time.Second)
	if len(d.To) == 1 {
		it.one[0] = d.To[0]
		it.To = it.one[:]
	} else {
		it.To = slices.Clone(d.To)
	}
	if d.NoCopies {
		it.Flags |= ccp.SendNoCopies
	}
	if d.Ephemeral {
		it.Flags |= ccp.SendEphemeral
	}
	it.Body = d.Body
	return it, it.encode()
}

// encode writes the payload of the Send; Body then is its tail.
func (it *item) encode() error {
	var few [4][]byte
	s := ccp.Send{
		Kind: it.Kind, ID: ccp.MessageID{Counter: 1}, Flags: it.Flags, To: few[:0], TTL: it.TTL, Body: it.Body,
	}
	size := sendHead + len(it.Body)
	for _, to := range it.To {
		s.To = append(s.To, []byte(to))
		size += 1 + len(to)
	}
	payload, err := ccp.AppendSend(make([]byte, 0, size), s)
	if err != nil {
		return &Error{Kind: Invalid, Text: "the message cannot be sent", Err: err}
	}
	it.payload = payload
	it.Body = payload[len(payload)-len(it.Body):]
	return nil
}

// The layout of a Send's payload as far as the outbox must know it:
// kind u8 | log 8 | counter u64 | flags u8 | count u8 | … | ttl u32 | body.
const (
	sendLog     = 1
	sendCounter = 9
	sendHead    = 19 + 4
)
