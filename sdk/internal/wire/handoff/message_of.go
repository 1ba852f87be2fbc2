package handoff

import (
	"net"

	"github.com/commucat/commucat/sdk/transport"
)

// Describe fills in what a message says of a conn.
func (m *Message) Describe(conn net.Conn) {
	m.Facts = transport.FactsOf(conn)
	m.Facts.Context = nil
	m.Local, m.Remote = addr(conn.LocalAddr()), addr(conn.RemoteAddr())
}

func addr(a net.Addr) transport.Addr {
	if a == nil {
		return transport.Addr{}
	}
	return transport.Addr{Net: a.Network(), Text: a.String()}
}
