package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/admission"
	"github.com/commucat/commucat/core/api"
	"github.com/commucat/commucat/core/audit"
	"github.com/commucat/commucat/core/config"
	"github.com/commucat/commucat/core/front"
	"github.com/commucat/commucat/core/keyring"
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/core/pairing"
	"github.com/commucat/commucat/core/pluginhost"
	"github.com/commucat/commucat/core/relay"
	"github.com/commucat/commucat/core/session"
	"github.com/commucat/commucat/sdk/entry"
	"github.com/commucat/commucat/sdk/storage"
	"github.com/commucat/commucat/sdk/transport"
)

// Server is one relay. It is made by New, run once by Run, and is gone after
// that.
type Server struct {
	opt Options
	cfg *config.Config
	log *slog.Logger

	data     *data
	ring     *keyring.Ring
	metrics  *metrics.Set
	store    storage.Store
	traits   storage.Traits
	audit    *audit.Recorder
	accounts *account.Store
	codes    *pairing.Codes
	hub      *relay.Hub
	node     string        // this run's name among the nodes
	newKeys  chan struct{} // one slot: another node has made keys
	sessions *session.Server
	gate     *admission.Gate
	entries  *entry.Verifier
	files    *front.Files
	pin      *[32]byte // of the self-signed certificate
	webs     []transport.Web
	cover    http.Handler
	front    *front.Front
	operator *api.Admin
	host     *pluginhost.Host

	transports transports
	ways       ways
	// revocations are what transports have still to be told.
	revocations *revocations
	// answers are what connecting devices were told of their keys.
	answers answers

	public       []net.Listener // TLS is the front's
	adminSockets []adminSocket

	// reloading is held while a configuration is read and taken over, never while a plugin
	// is started or drained: that is done with plugging, see turn.
	reloading sync.Mutex
	current   *config.Config // as last reloaded
	follows   *Following     // waits for its turn, or nil
	following sync.WaitGroup // with reloading
	telling   sync.WaitGroup // of changes to other devices
	plugging  chan struct{}  // one slot
	// working ends when the relay stops; changed with reloading.
	working   context.Context
	endWork   context.CancelCauseFunc
	invite    string
	started   time.Time
	stopping  atomic.Bool                   // transports end because they were told to
	closers   []func(context.Context) error // in the order of opening
	closeOnce sync.Once
	// onOpenAudit records what happened before the ledger stood.
	onOpenAudit func()
	degraded    sync.Map // name -> error
}

// New opens everything that the configuration names, up to listening sockets.
// Its errors are one line each and say what to do; nothing stays open after one.
func New(ctx context.Context, opt Options) (_ *Server, err error) {
	if err := opt.complete(); err != nil {
		return nil, err
	}
	s := &Server{
		opt: opt, cfg: opt.Config, current: opt.Config, log: opt.Log, newKeys: make(chan struct{}, 1), plugging: make(chan struct{}, 1),
		metrics: metrics.New(metrics.Options{Version: opt.Version, Process: true}),
	}
	s.working, s.endWork = context.WithCancelCause(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			s.close(ctx)
		}
	}()
	for _, step := range []func(context.Context) error{
		s.openData, s.openKeys, s.openHost, s.openStorage, s.openMark, s.openSharedKeys, s.openAudit, s.openAccounts, s.openRelay, s.openOperator, s.openFront, s.openTransports, s.openAdmin, s.openInvite,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	s.onClose(func(context.Context) error { // first of all, before what it works with
		s.endFollowing()
		return nil
	})
	return s, nil
}

// onClose adds what undoes a step.
func (s *Server) onClose(f func(context.Context) error) { s.closers = append(s.closers, f) }

// close undoes the steps in reverse.
func (s *Server) close(ctx context.Context) error {
	var errs []error
	s.closeOnce.Do(func() {
		for i := len(s.closers) - 1; i >= 0; i-- {
			errs = append(errs, s.closers[i](ctx))
		}
	})
	return errors.Join(errs...)
}

// Close undoes New for a server that is not run.
func (s *Server) Close(ctx context.Context) error { return s.close(ctx) }

// maintenance is how often keys, certificates and records are looked after.
const maintenance = 10 * time.Minute

// Run serves until ctx ends, then drains: clients are asked to go, what was
// accepted is stored, and everything is closed. It returns nil after a drain.
func (s *Server) Run(ctx context.Context) (err error) {
	if s.opt.Prepare {
		return errors.Join(errors.New("this server was made to prepare its data folder only"), s.close(ctx))
	}
	s.started = s.opt.Clock()
	work, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	var wg sync.WaitGroup
	failed := make(chan error, 4)
	start := func(what string, f func(context.Context) error) {
		wg.Go(func() {
			if err := f(work); err != nil && work.Err() == nil {
				failed <- fmt.Errorf("%s: %w", what, err)
			}
		})
	}
	hubCtx, stopHub := context.WithCancel(context.WithoutCancel(ctx))
	defer stopHub()
	hubEnded := make(chan error, 1)
	go func() { hubEnded <- s.hub.Run(hubCtx) }()
	start("public listener", func(ctx context.Context) error { return s.front.Serve(ctx, s.public) })
	for _, a := range s.adminSockets {
		start("admin listener", a.serve)
	}
	start("maintenance", s.maintain)
	s.host.Serve()
	start("memory", s.memory)
	s.record(audit.Started(s.opt.Version))

	select {
	case <-ctx.Done():
	case err = <-failed:
		s.log.Error("stopping", "error", err)
	case err = <-hubEnded:
		hubEnded <- err
		err = fmt.Errorf("relay ended: %w", errors.Join(err, errors.New("unexpectedly")))
	}
	s.drain(ctx)
	stop(nil)
	s.stopping.Store(true)
	s.host.StopTransports()
	s.endFollowing()
	wg.Wait()
	s.sessions.Close()
	s.telling.Wait()
	stopHub()
	<-hubEnded //nolint:errcheck // why it ended was told before
	s.record(audit.Stopped("in order"))
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(err, s.close(end))
}

// maintain rotates keys, drops expired records and watches the self-signed
// certificate.
func (s *Server) maintain(ctx context.Context) error {
	t := time.NewTimer(time.Minute)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case <-s.newKeys:
		}
		changes, err := s.rotateKeys(ctx, s.ring.Rotate)
		s.recordKeys(changes)
		if err != nil {
			s.log.Error("keys could not be rotated", "error", err)
		}
		if s.pin != nil {
			if _, _, _, err := s.ring.SelfSigned(); err != nil {
				s.log.Error("the self-signed certificate could not be renewed", "error", err)
			}
		}
		s.purge(ctx)
		s.tellOwed(ctx)
		t.Reset(maintenance)
	}
}

// purge removes expired records of the directory, a few at a time so that it
// never stands before a handshake's transaction.
func (s *Server) purge(ctx context.Context) {
	const step, steps = 256, 64
	for range steps {
		n, err := s.store.Directory.Purge(ctx, s.opt.Clock(), step)
		if err != nil {
			s.log.Warn("expired records could not be removed", "error", err)
			return
		}
		if n < step {
			return
		}
	}
}

// record adds an event to the audit chain; a full disk is reported once by the
// recorder itself.
func (s *Server) record(e audit.Event) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.audit.Record(ctx, e); err != nil {
		s.metrics.Inc(metrics.AuditFailures)
		s.log.Error("event could not be recorded", "action", e.Action, "error", err)
		return
	}
	s.metrics.Inc(metrics.AuditRecords)
}
