//go:build !linux

package bind

import (
	"errors"
	"net"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
)

// batch is for systems that take many datagrams in one call.
type batch struct{}

func newBatch(*net.UDPConn, bool) *batch { return nil }

func (*batch) newInbox() inbox { return nil }

func (*batch) newWall(*obfs.Params, int) wall { return nil }

func (*batch) unwall() {}

func (*batch) send(*Endpoint, int, [][]byte, func(prefix, msg []byte)) error {
	return errors.ErrUnsupported
}
