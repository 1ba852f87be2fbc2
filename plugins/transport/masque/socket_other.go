//go:build !linux

package masque

import "net"

// enlarge sets the buffers; how large they became is not known here.
func enlarge(c *net.UDPConn) (got int) {
	_, _ = c.SetReadBuffer(bufferSize), c.SetWriteBuffer(bufferSize)
	return 0
}

// batching is nothing here.
type batching struct{}

func (s *socket) batch() {}

// WriteMsgUDP sends a packet.
func (s *socket) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (n, oobn int, err error) {
	n, oobn, err = s.UDPConn.WriteMsgUDP(b, oob, to)
	if err = s.kept(err); err == nil {
		n, oobn = len(b), len(oob)
	}
	return n, oobn, err
}
