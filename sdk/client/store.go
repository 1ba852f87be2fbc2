package client

import (
	"time"

	"github.com/commucat/commucat/sdk/ccp"
)

// Message is one received message.
type Message struct {
	// Position orders the messages of this device at the relay.
	Position uint64 `json:"position"`
	// ID was made by the sender's device.
	ID ccp.MessageID `json:"id"`
	// Device and User are the sender as the relay authenticated it; both are empty for
	// the relay's own word (such as that a device was added), and only for that: a member
	// can send the same Kind and Body.
	Device  string   `json:"device"`
	User    string   `json:"user"`
	Channel uint32   `json:"channel"`
	Kind    ccp.Type `json:"kind"`
	// Own: sent by another device of this account. Direct: addressed to this
	// device or account by name.
	Own    bool `json:"own,omitempty"`
	Direct bool `json:"direct,omitempty"`
	// Ephemeral messages (typing, media) are never stored, neither by the relay
	// nor here.
	Ephemeral bool      `json:"ephemeral,omitempty"`
	Stored    time.Time `json:"stored"`   // at the relay
	Received  time.Time `json:"received"` // here
	Body      []byte    `json:"body"`
}

// Outgoing is one message in the outbox.
type Outgoing struct {
	Counter uint64   `json:"counter"`
	Kind    ccp.Type `json:"kind"`
	Channel uint32   `json:"channel,omitempty"`
	To      []string `json:"to,omitempty"`
	TTL     uint32   `json:"ttl,omitempty"` // seconds, 0 = the relay's
	Flags   uint8    `json:"flags,omitempty"`
	Body    []byte   `json:"body"`
}

// State is the small part of a store.
type State struct {
	// Log names this device's message ids; Next is the counter to use next.
	Log  [8]byte
	Next uint64
	// Cursor is the highest position below which everything is stored here.
	Cursor uint64
	// Resume is the resume token, usable until ResumeUntil under the Noise key
	// ResumeKey.
	Resume      []byte
	ResumeUntil time.Time
	ResumeKey   Hex32
	// Confirmed is when the last XK handshake under ResumeKey was completed.
	Confirmed time.Time
}

// WindowKey names a duplicate table: one per sender device and log.
type WindowKey struct {
	Device string
	Log    [8]byte
}

// Arrival is what one transaction of the receiving side stores.
type Arrival struct {
	Messages []Message
	Windows  map[WindowKey]*ccp.Window
	Cursor   uint64
}

// Store keeps what must survive a restart. Methods are called by one client, at
// once from its sending, its receiving and its showing side. Arguments may be
// used until the method returns, byte slices and strings in them for ever.
type Store interface {
	State() (State, error)
	// SaveSession replaces resume token, its times and key; the rest of its
	// argument is not looked at.
	SaveSession(State) error
	// Restart begins a new log: the outbox is renumbered from 1 in its order.
	Restart(log [8]byte) error

	// PutOutbox stores messages; they are durable when it returns. Counters
	// follow State.Next.
	PutOutbox([]Outgoing) error
	// Outbox returns everything not yet deleted, in order.
	Outbox() ([]Outgoing, error)
	// DeleteOutbox forgets acknowledged messages.
	DeleteOutbox(counters []uint64) error

	// Window returns the duplicate table of a sender, empty when there is none.
	Window(WindowKey) (*ccp.Window, error)
	// Arrive stores messages, duplicate tables and cursor in one transaction.
	Arrive(Arrival) error
	// Inbox returns at most limit messages not yet shown, in order of arrival; it
	// may stop earlier to save memory, but not before the first.
	Inbox(limit int) ([]Message, error)
	// Shown removes messages by position; of several with one position, the first.
	Shown(positions []uint64) error

	Close() error
}
