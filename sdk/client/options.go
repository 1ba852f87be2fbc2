package client

import (
	"context"
	"io"
	"log/slog"
	"net"
	"time"

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
	// for the next client. With Handle nil all messages stay there. It may use the
	// client, and Stop it.
	Handle func(Message) error
	// OnEvent is told of everything that is not a message: one call after the other, in
	// the order of the events, and none after Close has returned. It runs beside Handle
	// and beside the connection, which a slow one does not hold up; it may use the client,
	// and Stop it. Run may return before the last ones are told. At most 256 events wait for it: 192 with a Payload, of 1 MiB together,
	// and 64 others. Where there is no room the oldest of the same sort is dropped, of the
	// others "refused", "downgraded" and "confirming" last; the next event says how many
	// are missing.
	OnEvent func(Event)
	// Log gets no secret and no message; nil discards.
	Log *slog.Logger
	// Now and Rand default to time.Now and crypto/rand; both are used by several
	// goroutines at once.
	Now  func() time.Time
	Rand io.Reader
	// AnswerTimeout is how long a sent message may stay unanswered before the
	// connection counts as dead, besides the time that large messages need on a
	// slow line; 0 means 10 s.
	AnswerTimeout time.Duration
	// DialTCP replaces the carrier; roots and the like are the dialers' business.
	DialTCP func(ctx context.Context, network, address string) (net.Conn, error)
}

// Event is what happened beside messages.
type Event struct {
	// Name is "connected", "disconnected", "waiting" (a try failed, or a connection
	// ended, by Err; the next follows after a pause), "refused", "downgraded"
	// (somebody may sit between: tell the user), "presence", "event", "catalogue",
	// "certificate", "move", "join", "trying" (a way is dialled), "failed" (that one did not
	// come to a session, by Err; others may), or "confirming" (from now on the relay may have
	// done what was asked, such as making an account, even if no answer comes).
	Name string
	// Transport is the way that it is about, where it is about one. "waiting" has it
	// where a connection by it has ended. Milliseconds belongs to "connected": how long
	// it took from the dial to the relay's Ack.
	Transport    string
	Milliseconds float64
	Resumed      bool
	Channel      uint32
	// Payload is the control frame's JSON, where there is one.
	Payload []byte
	Err     error
	// Missed is how many events before this one were dropped since OnEvent was called last.
	Missed int
}
