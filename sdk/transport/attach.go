package transport

import "net"

// Attached is what Attach returns: a conn with facts around one without.
type Attached interface {
	net.Conn
	PathFacts
	// Attached is the conn that was given to Attach.
	Attached() net.Conn
}

// Attach gives an accepted conn its facts. Nothing may be buffered in front of conn:
// a plugin process that attaches facts to a bare *net.TCPConn or *net.UnixConn hands
// the socket itself to the relay and is out of the path from then on.
func Attach(conn net.Conn, f Facts) Attached {
	if c, ok := conn.(CloseWriter); ok {
		return closeWriting{attached{conn, f}, c}
	}
	return attached{conn, f}
}

type attached struct {
	net.Conn
	facts Facts
}

// closeWriting is attached to a conn with half-close.
type closeWriting struct {
	attached
	CloseWriter
}

func (a attached) Path() Facts        { return a.facts }
func (a attached) Attached() net.Conn { return a.Conn }

// NetConn lets FactsOf and others look inside.
func (a attached) NetConn() net.Conn { return a.Conn }
