package onion

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cretz/bine/control"

	"github.com/commucat/commucat/plugins/transport/internal/agent"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// maxCircuits bounds the circuits of one guest that are remembered.
const maxCircuits = 8

// service is a listening onion service.
type service struct {
	cfg     Config
	env     sdk.Env
	tor     program
	state   string // what is kept: tor's data, the service's key
	temp    bool
	runtime string
	guests  *guests

	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup
	arrivals *agent.Arrivals
	once     sync.Once
	stall    time.Duration // doubles with each start that makes no progress

	applying sync.Mutex // held while tor is told of the guests
	told     uint64     // the count of their changes that it knows; guarded by applying
	written  uint64     // the count of those that its files hold; guarded by applying

	mu       sync.Mutex
	daemon   *daemon
	address  string // without ".onion"
	reason   error
	news     publication
	sent     time.Time     // when tor began to send the last descriptor
	answered bool          // a directory has said what becomes of it
	taken    bool          // one has it
	rejected bool          // directories have refused it
	patient  *time.Timer   // ends the wait for the descriptor that counts
	known    chan struct{} // closed when the address is known
	circuits map[string][]uint64
	whose    map[uint64]string
}

var (
	_ transport.Server = (*service)(nil)
	_ agent.Listener   = (*service)(nil)
)

var errStarting = &sdk.Error{Kind: sdk.Unavailable, Op: "onion", Text: "tor is starting"}

// listen starts tor. It returns when the address is known; the transport is reported
// as degraded until the service's descriptor has been uploaded.
func listen(ctx context.Context, env sdk.Env, c Config) (agent.Listener, error) {
	var tor program
	if c.Control == "" {
		var err error
		if tor, err = findTor(ctx, c.Program); err != nil {
			return nil, err
		}
	}
	s := &service{
		cfg: c, env: env, tor: tor, stall: c.Stall, reason: errStarting,
		known: make(chan struct{}), circuits: map[string][]uint64{}, whose: map[uint64]string{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.prepare(ctx); err != nil {
		s.cancel()
		s.discard()
		return nil, err
	}
	env.Degraded(errStarting)
	s.running.Go(s.supervise)
	var err error
	select {
	case <-s.known:
		return s, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(socketTime):
		err = s.Health()
	}
	return nil, errors.Join(err, s.Close())
}

func (s *service) prepare(ctx context.Context) error {
	log := s.env.Log()
	if s.cfg.Control == "" && !s.tor.pow && s.cfg.Defence != "off" {
		if s.cfg.Defence == "on" {
			return &sdk.Error{Kind: sdk.Unsupported, Op: "proof_of_work", Text: fmt.Sprintf("%s (tor %v) was built without it; needed is %v or newer", s.tor.path, s.tor.version, withPoW)}
		}
		log.Warn("this tor has no defence by proof of work", slog.String("program", s.tor.path), slog.String("version", s.tor.version.String()))
	}
	if s.cfg.SingleHop {
		log.Warn("single_hop: clients are hidden, the relay is NOT: anybody can find out where it is")
	}
	var err error
	if s.state = s.env.State(); s.state == "" {
		log.Warn("no state folder is lent: the address ends with this process")
		if s.state, err = os.MkdirTemp("", "onion-"); err != nil {
			return err
		}
		s.temp = true
	}
	if s.guests, err = openGuests(s.env.State(), s.cfg.Guests, time.Now); err != nil {
		return err
	}
	if s.cfg.Control != "" {
		// The operator's tor runs as another user, who could not reach a socket of ours in
		// a folder of ours.
		var lc net.ListenConfig
		lc.SetMultipathTCP(false) // accepted sockets are handed on as what they are: TCP
		ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
		if err == nil {
			s.receive(ln)
		}
		return err
	}
	if s.runtime, err = makeRuntime(); err != nil {
		return err
	}
	if err := os.MkdirAll(s.folder(), 0o700); err != nil {
		return err
	}
	if s.cfg.Authorise {
		err = s.guests.write(s.folder(), false)
	} else {
		err = os.RemoveAll(filepath.Join(s.folder(), authFolder))
	}
	if err != nil {
		return err
	}
	// An address that was made before is known at once: a process that takes over waits
	// for tor's data until the one before has ended.
	_ = s.learn() // the first time there is none
	// Only who may enter the runtime folder can pose as tor.
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(s.runtime, targetSocket), Net: "unix"})
	if err == nil {
		s.receive(ln)
	}
	return err
}

func (s *service) receive(ln net.Listener) {
	s.arrivals = agent.Receive(ln, s.cfg.Header, s.env.Log(), s.header)
}

// folder is tor's folder of the service, with its key.
func (s *service) folder() string { return filepath.Join(s.state, "service") }

// lines are tor's configuration.
func (s *service) lines() []string {
	lines := append([]string{"SocksPort 0"}, s.cfg.Torrc...)
	if s.cfg.SingleHop {
		lines = append(lines, "HiddenServiceSingleHopMode 1", "HiddenServiceNonAnonymousMode 1")
	}
	lines = append(lines,
		"HiddenServiceDir "+quoted(s.folder()), "HiddenServiceVersion 3",
		fmt.Sprintf("HiddenServicePort %d unix:%s", s.cfg.Port, quoted(filepath.Join(s.runtime, targetSocket))),
		"HiddenServiceExportCircuitID haproxy",
		"HiddenServiceMaxStreams "+strconv.Itoa(s.cfg.Streams), "HiddenServiceMaxStreamsCloseCircuit 1")
	if s.tor.pow && s.cfg.Defence != "off" {
		lines = append(lines, "HiddenServicePoWDefensesEnabled 1", "HiddenServicePoWQueueRate 20", "HiddenServicePoWQueueBurst 100")
	}
	return lines
}

// supervise keeps a tor running.
func (s *service) supervise() {
	agent.Keep(s.ctx, agent.Pauses{Least: 500 * time.Millisecond, Most: time.Minute, Well: 2 * time.Minute}, s.run, func(err error) {
		s.setHealth(&sdk.Error{Kind: sdk.Unavailable, Op: "onion", Err: err})
		s.env.Log().Warn("tor has ended or did not start", slog.Any("error", err))
	})
}

// run is one life of a tor.
func (s *service) run() error {
	s.publication(told) // of ours, which reads the guests when it starts
	s.mu.Lock()
	s.rejected = false // that was another tor's
	s.mu.Unlock()
	var d *daemon
	var err error
	s.applying.Lock()
	news := s.noted()
	s.applying.Unlock()
	if s.cfg.Control != "" {
		d, err = joinTor(s.ctx, s.cfg.Control, s.cfg.Pass.Text(), s.env.Log())
	} else {
		d, err = startTor(s.ctx, s.tor, s.runtime, filepath.Join(s.state, "tor"), s.lines(), s.env.Log())
	}
	if err != nil {
		return err
	}
	defer d.stop()
	progress := newWatch(s.stall)
	defer progress.stop()
	if err := d.follow(func(e control.Event) { s.event(e, progress) }, control.EventCodeStatusClient, control.EventCodeHSDesc, control.EventCodeCircuit); err != nil {
		return err
	}
	if d.foreign {
		s.applying.Lock()
		news = s.noted()
		s.applying.Unlock()
		err = s.publish(d)
	} else {
		err = s.learn()
	}
	if err != nil {
		return err
	}
	s.applying.Lock()
	s.told = news
	s.applying.Unlock()
	s.mu.Lock()
	s.daemon = d
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.daemon = nil
		if s.patient != nil {
			s.patient.Stop()
			s.patient = nil
		}
		clear(s.circuits)
		clear(s.whose)
		s.mu.Unlock()
	}()
	if err := s.apply(); err != nil { // some may have come while this tor was started
		return err
	}
	s.running.Go(func() { s.republish(d) })
	select {
	case <-d.done:
		return d.err
	case <-progress.late:
		err := fmt.Errorf("no progress for %v: is the network there", s.stall)
		s.stall *= 2 // a slow machine, or network, comes through as well
		return err
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// learn reads the address that tor has made.
func (s *service) learn() error {
	b, err := os.ReadFile(filepath.Join(s.folder(), "hostname"))
	if err != nil {
		return err
	}
	address, ok := strings.CutSuffix(strings.TrimSpace(string(b)), ".onion")
	if !ok || !validAddress(address) {
		return errors.New("tor made no onion address")
	}
	s.know(address)
	return nil
}

func (s *service) know(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.address = address
	select {
	case <-s.known:
	default:
		close(s.known)
	}
}

// event is one of tor's.
func (s *service) event(e control.Event, progress *watch) {
	switch e := e.(type) {
	case *control.StatusEvent:
		if e.Action == "BOOTSTRAP" {
			progress.moved()
			s.env.Log().Debug("tor starts", slog.String("phase", e.Arguments["SUMMARY"]), slog.String("progress", e.Arguments["PROGRESS"]))
		}
	case *control.HSDescEvent:
		s.descriptor(e, progress)
	case *control.CircuitEvent:
		if e.Status == "CLOSED" || e.Status == "FAILED" {
			if id, err := strconv.ParseUint(e.CircuitID, 10, 64); err == nil {
				s.forget(id)
			}
		}
	}
}

func (s *service) setHealth(reason error) {
	s.mu.Lock()
	s.reason = reason
	s.mu.Unlock()
	s.env.Degraded(reason)
}

// Health implements agent.Listener.
func (s *service) Health() error {
	if s.ctx.Err() != nil {
		return agent.ErrNotListening()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason
}

// header reads what stands before a stream.
func (s *service) header(c net.Conn) (transport.Facts, error) {
	facts := transport.Facts{Transport: Name, Hidden: true, Context: context.Background()}
	var circuit uint64
	if s.cfg.Control == "" {
		var err error
		if circuit, err = readCircuit(c); err != nil {
			return facts, err
		}
		facts.Circuit = strconv.FormatUint(circuit, 10)
	}
	if s.cfg.Authorise {
		return facts, s.admit(c, circuit)
	}
	return facts, nil
}

var errToken = errors.New("the guest's token is not known")

// admit reads the guest's token. Who shows a wrong one loses the circuit: guessing has
// a price.
func (s *service) admit(c net.Conn, circuit uint64) error {
	var token [tokenSize]byte
	if _, err := io.ReadFull(c, token[:]); err != nil {
		return err
	}
	// Under the lock: who is revoked now is either refused here, or Revoke finds the circuit.
	s.mu.Lock()
	id, ok := s.guests.who(token[:])
	if !ok {
		s.mu.Unlock()
		s.cut(circuit)
		return errToken
	}
	defer s.mu.Unlock()
	if circuit == 0 || s.whose[circuit] == id {
		return nil
	}
	list := append(s.circuits[id], circuit)
	if len(list) > maxCircuits { // the oldest is cut, so that all that are open are known
		old := list[0]
		list = list[1:]
		delete(s.whose, old)
		go s.cut(old)
	}
	s.circuits[id], s.whose[circuit] = list, id
	return nil
}

// cut ends a circuit with everything in it.
func (s *service) cut(circuit uint64) {
	s.mu.Lock()
	d := s.daemon
	s.mu.Unlock()
	if d != nil && circuit != 0 {
		_, _ = d.ask("CLOSECIRCUIT " + strconv.FormatUint(circuit, 10)) // it may have ended already
	}
}

// forget drops a circuit that has ended.
func (s *service) forget(circuit uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, ok := s.whose[circuit]
	if !ok {
		return
	}
	delete(s.whose, circuit)
	var rest []uint64
	for _, c := range s.circuits[id] {
		if c != circuit {
			rest = append(rest, c)
		}
	}
	if rest == nil {
		delete(s.circuits, id)
		return
	}
	s.circuits[id] = rest
}

// Accept gives clients.
func (s *service) Accept() (net.Conn, error) { return s.arrivals.Accept() }

// Addr is the onion address.
func (s *service) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return transport.Addr{Net: Name, Text: s.address + ".onion:" + strconv.Itoa(s.cfg.Port)}
}

// Close ends tor and every stream.
func (s *service) Close() error {
	s.once.Do(func() {
		s.cancel()
		s.arrivals.Close()
		s.running.Wait()
		s.discard()
	})
	return nil
}

func (s *service) discard() {
	if s.runtime != "" {
		_ = os.RemoveAll(s.runtime)
	}
	if s.temp {
		_ = os.RemoveAll(s.state)
	}
}
