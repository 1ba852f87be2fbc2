package server

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"time"

	"github.com/commucat/commucat/core/account"
)

// nodesCacheAge is how long a node of several may go by what it read of a device, for
// the case that another node's word of a change was lost.
const nodesCacheAge = 30 * time.Second

// nodesPart is the name under which the status shows that other nodes are not reached.
const nodesPart = "nodes"

// nodeName is a name for this run: nodes that were set up as copies of one data folder
// have different ones all the same, and what was sent to a run that has ended reaches
// no other.
func (s *Server) nodeName() (string, error) {
	var b [6]byte
	if _, err := io.ReadFull(s.opt.Rand, b[:]); err != nil {
		return "", err
	}
	return s.data.drawn.Node + "-" + hex.EncodeToString(b[:]), nil
}

func (s *Server) cacheAge() time.Duration {
	if s.traits.Shared {
		return nodesCacheAge
	}
	return 0
}

// notice is what nodes tell each other.
type notice struct {
	// Change is one of an account's devices.
	Change *account.Change `json:"change,omitempty"`
	// Keys: there are new ones in the storage.
	Keys bool `json:"keys,omitempty"`
}

// tellNodes lets the other nodes follow a change.
func (s *Server) tellNodes(n notice) {
	b, err := json.Marshal(n)
	if err != nil {
		s.log.Error("a change could not be told to other nodes", "error", err)
		return
	}
	s.hub.Tell(b)
}

// told follows a change that another node has made durable and recorded: what is
// remembered of the device goes, and so does its session where it must.
func (s *Server) told(_ context.Context, message []byte) {
	var n notice
	if err := json.Unmarshal(message, &n); err != nil {
		s.log.Warn("another node's word is not understood; the nodes must run one version", "error", err)
		return
	}
	if n.Keys {
		select {
		case s.newKeys <- struct{}{}:
		default:
		}
	}
	if n.Change == nil {
		return
	}
	c := *n.Change
	s.accounts.Forget(c.Device)
	s.keysGone(c)
	if len(c.Came) > 0 {
		go s.keysCame(c.Device, c.Came)
	}
	if c.Kind == account.KeysChanged {
		return
	}
	s.hub.Changed(c.User)
	s.sessions.DeviceChanged(c)
}

// nodesHealth notes that the bus between the nodes carries nothing, for the status. The
// relay serves its devices without it, so it stays ready.
func (s *Server) nodesHealth(err error) {
	if err == nil {
		if _, was := s.degraded.LoadAndDelete(nodesPart); was {
			s.log.Info("other nodes are reached again")
		}
		return
	}
	s.degraded.Store(nodesPart, err)
	s.log.Warn("other nodes are not reached", "error", err)
}
