package agent

import (
	"net"

	"github.com/commucat/commucat/sdk/transport"
)

// Stream is a connection to the program. It has no CloseWrite: programs take the end
// of one direction for the end of both. Nothing is buffered in front of it, so that the
// socket itself can be handed on (transport.Attached).
type Stream struct {
	net.Conn
	facts transport.Facts
}

var _ transport.Attached = Stream{}

// NewStream makes a stream of a connection.
func NewStream(c net.Conn, f transport.Facts) Stream { return Stream{c, f} }

// Path implements transport.PathFacts.
func (s Stream) Path() transport.Facts { return s.facts }

// Attached implements transport.Attached.
func (s Stream) Attached() net.Conn { return s.Conn }
