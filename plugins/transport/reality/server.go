package reality

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// server is the listening half.
type server struct {
	*settings
	ln      net.Listener
	cover   cover
	seen    *seen
	guests  *guests
	crowd   *crowd
	records records
	health  health
	log     *slog.Logger
	now     func() time.Time
	figures figures

	ready    atomic.Bool   // the cover is known and fit, or forced
	looped   atomic.Bool   // the cover is this port itself
	begin    chan struct{} // holds one for each connection that has not met the cover yet
	closing  chan struct{}
	accepts  chan struct{} // closed when nobody is accepted any more
	looked   chan struct{} // closed after the first look at the cover
	recheck  chan struct{}
	accepted chan net.Conn
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	running  sync.WaitGroup
	once     sync.Once
	lost     atomic.Pointer[error] // why the listener ended by itself

	mu       sync.Mutex
	sessions map[string]map[*stream]struct{} // by guest
	roomy    *time.Timer                     // ends the trouble with descriptors
}

var (
	_ transport.Server    = (*server)(nil)
	_ transport.Registrar = (*server)(nil)
)

// listen starts the server half. Clients are let in once the cover has been learnt;
// strangers meet it from the first moment.
func listen(ctx context.Context, env sdk.Env, c Config, now func() time.Time, find lookup) (_ *server, err error) {
	set, err := newSettings(c, func() ([]lot, error) {
		return kept(env.State(), transport.Rotation{At: c.Rotated, Overlap: c.Overlap}, now())
	})
	if err != nil {
		return nil, err
	}
	s := &server{
		settings: set, log: env.Log(), now: now, crowd: newCrowd(c.Strangers),
		begin: make(chan struct{}, max(c.Strangers/2, 1)), closing: make(chan struct{}), accepts: make(chan struct{}),
		looked: make(chan struct{}), recheck: make(chan struct{}, 1), accepted: make(chan net.Conn),
		sessions: map[string]map[*stream]struct{}{},
	}
	s.health.tell = env.Degraded
	if s.guests, err = openGuests(env.State(), now); err != nil {
		return nil, err
	}
	if s.cover, err = newCover(set, env, find); err != nil {
		return nil, err
	}
	seen, doubt, err := openSeen(env.State(), c.Window, c.Remembered, now)
	if err != nil {
		s.cover.close()
		return nil, err
	}
	s.seen = seen
	if s.ln, err = env.Listen(ctx, "tcp", c.Listen); err != nil {
		s.cover.close()
		_ = seen.close()
		return nil, err
	}
	if env.State() == "" {
		s.log.Warn("no state folder; hellos seen before a restart would be accepted again")
	}
	s.records.instance = instanceName(s.ln.Addr())
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.health.set(troubleCover, &sdk.Error{Kind: sdk.Unavailable, Op: "reality", Text: "learning the cover " + s.cover.String()})
	if doubt != "" {
		s.pauseClients(doubt)
	}
	s.running.Go(s.watch)
	s.running.Go(s.acceptAll)
	return s, nil
}

// pauseClients says that nobody comes in until hellos of before the start have run out.
func (s *server) pauseClients(doubt string) {
	end := s.seen.notBefore
	s.log.Warn("clients are let in after a pause, so that no captured hello is taken for a new one",
		slog.String("why", doubt), slog.String("pause", sdk.FormatDuration(s.Window)))
	s.health.set(troublePause, &sdk.Error{Kind: sdk.Unavailable, Op: "reality",
		Text: doubt + ": clients are let in from " + end.UTC().Format(time.TimeOnly) + " UTC on"})
	s.running.Go(func() {
		if s.pause(end.Sub(s.now())) {
			s.health.set(troublePause, nil)
		}
	})
}

// instanceName keeps two servers apart in the module's table.
func instanceName(a net.Addr) string {
	return a.String() + "/" + strconv.FormatInt(time.Now().UnixNano(), 36)
}

// Addr is the listener's address.
func (s *server) Addr() net.Addr { return s.ln.Addr() }

// Accept gives clients whose handshake is over.
func (s *server) Accept() (net.Conn, error) {
	select {
	case c := <-s.accepted:
		return c, nil
	case <-s.ctx.Done():
		if p := s.lost.Load(); p != nil {
			return nil, *p
		}
		return nil, net.ErrClosed
	}
}

// Close takes nobody in any more, waits a moment for clients that have begun, which Accept
// still gives, and ends everything that was not handed over.
func (s *server) Close() error {
	var err error
	s.once.Do(func() {
		close(s.closing)
		err = s.ln.Close()
		<-s.accepts
		s.crowd.settle(s.ctx)
		s.cancel()
		s.crowd.close()
		s.running.Wait()
		s.mu.Lock()
		if s.roomy != nil {
			s.roomy.Stop()
		}
		s.mu.Unlock()
		s.cover.close()
		err = errors.Join(err, s.seen.close())
		s.records.forget()
		s.log.Info("reality ended", s.figures.attrs()...)
	})
	return err
}

// Backing off when descriptors or memory are short.
const (
	firstBackoff = 5 * time.Millisecond
	mostBackoff  = time.Second
)

// firstLook is how long connections wait in the kernel's queue for the first look at the
// cover. So nobody is turned away by a server that has only just begun, and a former one
// on the same socket goes on until this one can take over.
const firstLook = 10 * time.Second

func (s *server) acceptAll() {
	defer close(s.accepts)
	select {
	case <-s.looked:
	case <-time.After(firstLook):
	case <-s.closing:
		return
	}
	backoff := firstBackoff
	for {
		// Others wait in the kernel's queue: what is taken in is also looked at, however many
		// come and however slow this machine is.
		select {
		case s.begin <- struct{}{}:
		case <-s.closing:
			return
		}
		c, err := s.ln.Accept()
		if err != nil {
			<-s.begin
		} else {
			backoff = firstBackoff
			s.crowd.under(1)
			s.running.Go(func() { s.serve(c) })
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if !short(err) {
			select {
			case <-s.closing:
				return
			default:
			}
			lost := error(&sdk.Error{Kind: sdk.Unavailable, Op: "reality: accept", Err: err})
			s.lost.Store(&lost)
			s.cancel()
			return
		}
		s.shortOfFiles(err)
		select {
		case <-time.After(backoff):
		case <-s.closing:
			return
		}
		backoff = min(2*backoff, mostBackoff)
	}
}

// scarceTime is how long descriptors must have sufficed before all is well again.
const scarceTime = 3 * time.Second

// shortOfFiles makes room by ending a stranger.
func (s *server) shortOfFiles(err error) {
	s.mu.Lock()
	if s.roomy != nil {
		s.roomy.Stop()
	}
	s.roomy = time.AfterFunc(scarceTime, func() { s.health.set(troubleFiles, nil) })
	s.mu.Unlock()
	s.health.set(troubleFiles, &sdk.Error{Kind: sdk.Full, Op: "reality", Text: "no descriptors left: raise LimitNOFILE, or lower strangers", Err: err})
	s.crowd.shedOne()
}

// serve has one connection from accept to the end of the cover's part in it.
func (s *server) serve(c net.Conn) {
	begun := sync.OnceFunc(func() { <-s.begin })
	defer begun()
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	if k, ok := c.(keeper); ok {
		_ = k.SetKeepAliveConfig(s.cover.keepAlive())
	}
	x := newExchange(c, transport.AddrPort(c.RemoteAddr()).Addr(), cancel)
	if s.SlowRate > 0 {
		x.rate = func() *pace { return &pace{free: int64(s.FreeBytes), rate: int64(s.SlowRate)} }
	}
	x.late = s.lookAgain
	joined := s.crowd.join(x)
	s.crowd.under(-1)
	if !joined {
		reset(c)
		return
	}
	defer s.crowd.part(x)
	if s.looped.Load() {
		reset(c) // else everybody would come in again as a stranger, without end
		return
	}
	to, err := s.reach(ctx, c.RemoteAddr())
	if err != nil {
		if ctx.Err() == nil { // who gave way to others says nothing of the cover
			s.coverFailed(err)
		}
		reset(c)
		return
	}
	met := x.attach(to)
	begun()
	if !met {
		return
	}
	if conn := s.meet(x); conn != nil {
		s.crowd.under(1)
		s.crowd.part(x)
		s.hand(conn)
		s.crowd.under(-1)
	}
}

// reach dials the cover; while descriptors are short it waits, as accept does.
func (s *server) reach(ctx context.Context, from net.Addr) (net.Conn, error) {
	for backoff := firstBackoff; ; backoff = min(2*backoff, mostBackoff) {
		to, err := s.cover.dial(ctx, from)
		if err == nil || !short(err) || ctx.Err() != nil {
			return to, err
		}
		s.shortOfFiles(err)
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// meet is nil when the cover has had the client to its end.
func (s *server) meet(x *exchange) *stream {
	var p *pass
	record, ours := x.first(func(record []byte) bool {
		p = s.admit(record)
		return p != nil
	})
	if ours {
		x.patient = p.ticket || s.Force
		conn, err := x.answer(p, record, s.records.instance)
		if err == nil {
			s.figures.entered.Add(1)
			return s.stream(x, conn, p)
		}
		s.figures.unanswered.Add(1)
		s.log.Debug("client was left to the cover", slog.Any("err", err))
	}
	s.figures.strangers.Add(1)
	if !x.upEnded.Load() {
		x.up()
	}
	x.finish()
	return nil
}

func (s *server) stream(x *exchange, conn tlsStream, p *pass) *stream {
	st := &stream{tlsStream: conn, raw: x.client, facts: transport.Facts{
		Transport: Name, Remote: remoteOf(x.client), Context: context.Background(),
	}}
	if p.guest.ID != "" {
		s.register(st, p.guest)
	}
	return st
}

func remoteOf(c net.Conn) netip.AddrPort { return transport.AddrPort(c.RemoteAddr()) }

func (s *server) hand(st *stream) {
	select {
	case s.accepted <- st:
	case <-s.ctx.Done():
		_ = st.Close()
	}
}

// coverFailed asks for a new look at the cover.
func (s *server) coverFailed(err error) {
	if s.ctx.Err() != nil {
		return
	}
	s.figures.coverErrors.Add(1)
	s.health.set(troubleCover, &sdk.Error{Kind: sdk.Unavailable, Op: "reality", Text: "the cover " + s.cover.String() + " cannot be reached, so nobody can come in", Err: err})
	s.lookAgain()
}

// lookAgain asks for a new look at the cover; many asks make one.
func (s *server) lookAgain() {
	select {
	case s.recheck <- struct{}{}:
	default:
	}
}
