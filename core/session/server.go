package session

import (
	"context"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/internal/crew"
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/sdk/ccp"
)

// Server runs sessions. It is safe for concurrent use.
type Server struct {
	opt   Options
	pool  pools
	large slots
	work  *crew.Crew // for handshakes

	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.Mutex
	began    time.Time
	sessions map[*Session]struct{}
	paths    map[string]int // sessions by transport
	openings map[*opening]struct{}
	conns    map[*net.Conn]struct{} // of every Serve that runs
	draining bool
	idle     chan struct{} // closed when draining and nothing runs
}

// New makes a Server. It panics when a required option is missing.
func New(opt Options) *Server {
	opt.complete()
	s := &Server{
		opt: opt, sessions: make(map[*Session]struct{}), paths: make(map[string]int), openings: make(map[*opening]struct{}),
		conns: make(map[*net.Conn]struct{}), idle: make(chan struct{}), began: time.Now(),
	}
	s.large.free = opt.Limits.LargeFrames
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.work = crew.New(s.ctx.Done())
	return s
}

// Serve runs the connection to its end and closes it. It blocks; the calling
// goroutine becomes the session's reader. The handshake runs on another one that
// ends, so that what waits for years has a small stack.
func (s *Server) Serve(conn net.Conn) {
	defer conn.Close()
	o := newOpening(s, conn)
	if !s.enter(&conn, o) {
		return
	}
	defer s.leave(&conn)
	done := make(chan *Session, 1)
	s.work.Go(func() { done <- o.run() })
	ses := <-done
	s.forgetOpening(o)
	o = nil
	if ses != nil {
		ses.run()
	}
}

func (s *Server) enter(conn *net.Conn, o *opening) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.conns[conn] = struct{}{}
	s.openings[o] = struct{}{}
	return true
}

func (s *Server) forgetOpening(o *opening) {
	s.mu.Lock()
	delete(s.openings, o)
	s.mu.Unlock()
}

func (s *Server) leave(conn *net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
	if s.draining && len(s.conns) == 0 {
		close(s.idle)
	}
}

// register makes the session known by its device before the device's standing is
// read, so that a revocation in between is not lost on it. It refuses when there are
// as many as Limits.Sessions.
func (s *Server) register(ses *Session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if most := s.opt.Limits.Sessions; most > 0 && len(s.sessions) >= most && !s.connected(ses.device) {
		return refused(ccp.CodeUnavailable, "limits.sessions are connected", nil)
	}
	s.sessions[ses] = struct{}{}
	s.paths[ses.transport]++
	s.opt.Metrics.Set(metrics.MultipathPaths, float64(len(s.paths)))
	return nil
}

// Connected says whether there is a session of the device here, also one that is being
// closed.
func (s *Server) Connected(device string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connected(device)
}

// connected looks for a session of the device; mu is held.
func (s *Server) connected(device string) bool {
	for x := range s.sessions {
		if x.device == device {
			return true
		}
	}
	return false
}

func (s *Server) unregister(ses *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.sessions[ses]; !there {
		return
	}
	delete(s.sessions, ses)
	if s.paths[ses.transport]--; s.paths[ses.transport] == 0 {
		delete(s.paths, ses.transport)
	}
	s.opt.Metrics.Set(metrics.MultipathPaths, float64(len(s.paths)))
}

// CloseDevice ends every session of a device here with an Error frame of code,
// and says how many there were.
func (s *Server) CloseDevice(device, code string) int {
	return s.closeWhere(code, func(x *Session) bool { return x.device == device })
}

func (s *Server) closeWhere(code string, want func(*Session) bool) int {
	s.mu.Lock()
	var hit []*Session
	for x := range s.sessions {
		if want(x) {
			hit = append(hit, x)
		}
	}
	s.mu.Unlock()
	for _, x := range hit {
		x.Close(code)
	}
	return len(hit)
}

// DeviceChanged is a hook for account.Store.OnChange: sessions of a revoked device
// end, and so do those that proved a key which pairing has replaced. A rotation by
// the device itself leaves its session running.
func (s *Server) DeviceChanged(c account.Change) {
	switch {
	case c.Kind == account.DeviceRevoked:
		s.CloseDevice(c.Device, ccp.CodeRevoked)
	case c.Kind == account.DeviceRotated && c.Via != account.ViaRotation:
		s.closeWhere(ccp.CodeKeyMismatch, func(x *Session) bool { return x.device == c.Device && x.public != c.Public })
	}
}

// Sessions is the number of established sessions and of handshakes under way.
func (s *Server) Sessions() (established, opening int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions), len(s.openings)
}

// Drain stops taking connections, asks every client to go elsewhere (Move) and
// waits until all have gone or ctx ends; then it closes the rest and waits for
// them. move.WithinMS should not be longer than ctx allows.
func (s *Server) Drain(ctx context.Context, move ccp.Move) {
	s.stop()
	payload := move.Marshal()
	s.mu.Lock()
	all := make([]*Session, 0, len(s.sessions))
	for x := range s.sessions {
		all = append(all, x)
	}
	s.mu.Unlock()
	for _, x := range all {
		if x.caps.Has(ccp.Ack) {
			x.Control(ccp.TypeMove, 0, payload)
		}
	}
	select {
	case <-ctx.Done():
	case <-s.idle:
	}
	s.Close()
}

// Move asks the sessions on matching connections to go elsewhere, and says how many
// there are. They end when their clients go, or with their connection.
func (s *Server) Move(match func(net.Conn) bool, move ccp.Move) int {
	payload := move.Marshal()
	s.mu.Lock()
	var all []*Session
	for x := range s.sessions {
		if match(x.conn) {
			all = append(all, x)
		}
	}
	s.mu.Unlock()
	for _, x := range all {
		if x.caps.Has(ccp.Ack) {
			x.Control(ccp.TypeMove, 0, payload)
		}
	}
	return len(all)
}

// Close ends everything at once and waits for it. Established peers are told
// "unavailable", so that they resume elsewhere or later. What is not gone after twice the
// farewell time loses its connection.
func (s *Server) Close() {
	s.stop()
	s.mu.Lock()
	openings := slices.Collect(maps.Keys(s.openings))
	s.mu.Unlock()
	for _, o := range openings {
		go o.abort() // closing may wait for a peer that does not read
	}
	s.closeWhere(ccp.CodeUnavailable, func(*Session) bool { return true })
	late := time.AfterFunc(2*s.opt.Limits.Farewell, s.cutAll)
	<-s.idle
	late.Stop()
	s.cancel()
}

// cutAll closes every connection that is being served, whatever became of it.
func (s *Server) cutAll() {
	s.mu.Lock()
	conns := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	for _, c := range conns {
		go (*c).Close() // closing may wait for a peer that does not read
	}
}

func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return
	}
	s.draining = true
	if len(s.conns) == 0 {
		close(s.idle)
	}
}

func (s *Server) count(c metrics.Counter, n int) { s.opt.Metrics.Add(c, n) }

// ioTime bounds one call of storage made in the background.
const ioTime = 10 * time.Second
