package relay

import (
	"context"

	"github.com/commucat/commucat/sdk/ccp"
)

// Outbox is a live session as the relay sees it. Calls never block, never do
// I/O and never call back into the relay (locks are held around them). They may
// come from several goroutines at once.
type Outbox interface {
	// Device, User and Session are constant for the session's life. Session is
	// the public id.
	Device() string
	User() string
	Session() string
	// Fence is the number of the session's route claim (Hub.Claim). With 0
	// Attach claims by itself, and Link.Fence tells the number.
	Fence() uint64
	Capabilities() ccp.Capabilities
	// Push queues one Deliver, or for a peer without ack the plain frame of its
	// kind on its channel. The relay bounds what it pushes by the in-flight
	// window, so Push never refuses for lack of room; false means that the
	// session is ending.
	Push(Delivery) bool
	// Control queues a frame that answers or informs (Ack, Error, Presence,
	// KeyUpdate, Join…). payload is valid during the call only. false: dropped,
	// because the session's bound is reached or it is ending.
	Control(t ccp.Type, channel uint32, payload []byte) bool
	// Media queues a droppable frame: voice, video, typing; for a peer with ack
	// it is a Deliver at position 0. payload is shared by all recipients: read
	// only, valid for ever. false: the writer is behind and the frame is dropped.
	Media(t ccp.Type, channel uint32, payload []byte) bool
	// Close sends an Error frame with the code and ends the session. It returns
	// at once.
	Close(code string)
}

// Plain is implemented by an Outbox whose peer is served in legacy plaintext
// mode (ccp1.md 4.1): such a peer gets only the frames of ccp1.md 9.6.
type Plain interface{ Plain() bool }

// Profiled is implemented by an Outbox that knows the profile shown with the
// device's presence, as JSON of at most 4 KiB (ccp1.md 3.5 "user").
type Profiled interface{ Profile() []byte }

// Delivery is one message on its way to one device.
type Delivery struct {
	// Position is the row's place in the device's queue; 0 is ephemeral.
	Position uint64
	Kind     ccp.Type
	// Flags are those of Deliver: own copy 1, sent before 2, direct 4.
	Flags uint8
	ID    ccp.MessageID
	// Channel is 0 for direct messages to peers with ack.
	Channel uint32
	// Time is when the message was taken, unix milliseconds.
	Time int64
	// Device and User are the authenticated sender; both are empty for frames
	// of the server itself.
	Device, User string
	// Body is shared by all recipients: read only, valid for ever.
	Body []byte
}

// The flags of Deliver (protocol-extensions.md section 5).
const (
	FlagOwnCopy    = 1
	FlagSentBefore = 2
	FlagDirect     = 4
)

// Device is what the relay must know of an account's device.
type Device struct {
	ID, User string
	// Active is false for a revoked device.
	Active bool
	// Capabilities are those of the device's last handshake.
	Capabilities ccp.Capabilities
}

// Accounts is the relay's view of the account store. Implementations answer
// from memory where they can; a missing device or user is ErrUnknown.
type Accounts interface {
	Device(ctx context.Context, id string) (Device, error)
	// Devices are the active devices of a user.
	Devices(ctx context.Context, user string) ([]Device, error)
	// Resolve finds a device id, user id or handle: the devices that the name
	// stands for, and their user.
	Resolve(ctx context.Context, name string) (devices []Device, user string, err error)
}

// Friends says whether owner has peer on its friend list. It is asked only
// with Contact "friends".
type Friends func(ctx context.Context, owner, peer string) (bool, error)

// Metrics receives the relay's counts. Every method may be called concurrently
// and must be cheap. A nil Metrics in Options counts nothing.
type Metrics interface {
	// Committed tells of one batch: rows stored, bytes sealed, seconds it took.
	Committed(rows, bytes int, seconds float64)
	// Waiting is how many rows wait for a batch at present.
	Waiting(rows int)
	// CommitFailed counts failed Append calls.
	CommitFailed()
	// Enqueued counts rows stored for devices that are not connected here.
	Enqueued(n int)
	// Delivered counts messages handed to sessions; again says that an earlier connection
	// may have brought this one.
	Delivered(again bool)
	// Accepted tells of one message acknowledged as done, FannedOut of one begun, Handed of
	// one recipient who was connected here when it was stored. The seconds are those since
	// the message arrived.
	Accepted(seconds float64)
	FannedOut(devices int)
	Handed(seconds float64)
	// Duplicate counts messages sent again that were done already.
	Duplicate()
	// Refused counts refused messages and rows by code.
	Refused(code string)
	// Poisoned counts rows moved behind the others.
	Poisoned()
	// Purged counts expired rows removed, Dropped those of revoked devices.
	Purged(n int)
	Dropped(n int)
	// Call counts call events: "offer", "answer", "end", "expire".
	Call(event string)
	// CallsActive is the number of running calls.
	CallsActive(n int)
	// Media counts relayed voice and video frames.
	Media(video bool)
	// Transport counts transport updates by kind: "candidate",
	// "selected_candidate_pair", "consent_keepalive".
	Transport(kind string)
}
