//go:build !linux

package handoff

import (
	"context"
	"errors"
	"net"
	"time"
)

// errSystem is every answer on systems without this kind of socket.
var errSystem = errors.New("plugin processes need Linux; elsewhere plugins are compiled in")

// Socket is one end of a hand-off connection.
type Socket struct{}

// NewSocket takes a descriptor over.
func NewSocket(int, *Counters) (*Socket, error) { return nil, errSystem }

// Send sends a message.
func (*Socket) Send(*Message, int, time.Time) error { return errSystem }

// Receive gives the next message.
func (*Socket) Receive() (Message, int, error) { return Message{}, -1, errSystem }

// Stream takes a descriptor over as a stream.
func (*Socket) Stream(int, *Message, func()) (net.Conn, error) { return nil, errSystem }

// Close ends the connection.
func (*Socket) Close() error { return nil }

// Pumps joins conns of this process to streams that were handed over.
type Pumps struct{}

// NewPumps makes an empty set.
func NewPumps() *Pumps { return &Pumps{} }

// Open is how many streams are joined.
func (*Pumps) Open() int { return 0 }

// Wait returns when no stream is joined.
func (*Pumps) Wait(context.Context) error { return nil }

// Close ends every stream.
func (*Pumps) Close() {}

// Give hands a conn over.
func (*Pumps) Give(_ *Socket, _ *Message, c net.Conn, _ time.Time, done func()) error {
	c.Close()
	if done != nil {
		done()
	}
	return errSystem
}

// Drop closes a descriptor that nobody wants.
func Drop(int) {}
