package server

import (
	"context"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
)

// drain asks every client to reconnect elsewhere (or here, after a restart), and
// waits at most server.drain for them to go.
func (s *Server) drain(ctx context.Context) {
	limit := s.cfg.Server.Drain
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	s.log.Info("draining", "limit", limit)
	within := min(limit/2, 5*time.Second)
	s.sessions.Drain(end, ccp.Move{Reason: "drain", WithinMS: uint32(within / time.Millisecond)})
}
