package pt

import (
	"net"

	"github.com/commucat/commucat/sdk/transport"
)

// stream is a connection to a child. It has no CloseWrite: programs take the end of one
// direction for the end of both. Nothing is buffered in front of it, so that the socket
// itself can be handed on (transport.Attached).
type stream struct {
	net.Conn
	facts transport.Facts
}

var _ transport.Attached = stream{}

// Path implements transport.PathFacts.
func (s stream) Path() transport.Facts { return s.facts }

// Attached implements transport.Attached.
func (s stream) Attached() net.Conn { return s.Conn }
