package onion

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cretz/bine/control"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// Limits of the server half.
const (
	maxArriving = 512
	maxCircuits = 8 // of one guest that are remembered
	leastPause  = 500 * time.Millisecond
	mostPause   = time.Minute
	wellAfter   = 2 * time.Minute
)

// service is a listening onion service.
type service struct {
	cfg     Config
	env     sdk.Env
	tor     program
	state   string // what is kept: tor's data, the service's key
	temp    bool
	runtime string
	guests  *guests
	ln      net.Listener

	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup
	accepted chan net.Conn
	slots    chan struct{}
	once     sync.Once
	gone     func()
	applying sync.Mutex // held while tor is told of the guests

	mu        sync.Mutex
	daemon    *daemon
	address   string // without ".onion"
	reason    error
	uploaded  bool
	published time.Time     // of the last ADD_ONION
	known     chan struct{} // closed when the address is known
	circuits  map[string][]uint64
	whose     map[uint64]string
}

var _ transport.Server = (*service)(nil)

var errStarting = &sdk.Error{Kind: sdk.Unavailable, Op: "onion", Text: "tor is starting"}

// listen starts tor. It returns when the address is known; the transport is reported
// as degraded until the service's descriptor has been uploaded.
func (p *plugin) listen(ctx context.Context, env sdk.Env, c Config) (net.Listener, error) {
	var tor program
	if c.Control == "" {
		var err error
		if tor, err = findTor(ctx, c.Program); err != nil {
			return nil, err
		}
	}
	s := &service{
		cfg: c, env: env, tor: tor, accepted: make(chan net.Conn), slots: make(chan struct{}, maxArriving),
		reason: errStarting, known: make(chan struct{}), circuits: map[string][]uint64{}, whose: map[uint64]string{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.prepare(ctx); err != nil {
		s.cancel()
		s.discard()
		return nil, err
	}
	s.gone = func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.probes[env] == s {
			delete(p.probes, env)
		}
	}
	p.mu.Lock()
	p.probes[env] = s
	p.mu.Unlock()
	env.Degraded(errStarting)
	s.running.Go(s.arrivals)
	s.running.Go(s.supervise)
	var err error
	select {
	case <-s.known:
		return s, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(socketTime):
		err = s.health()
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
		s.ln, err = lc.Listen(ctx, "tcp", "127.0.0.1:0")
		return err
	}
	if s.runtime, err = makeRuntime(); err != nil {
		return err
	}
	if err := os.MkdirAll(s.folder(), 0o700); err != nil {
		return err
	}
	if s.cfg.Authorise {
		err = s.guests.write(s.folder())
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
	s.ln, err = net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(s.runtime, targetSocket), Net: "unix"})
	return err
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
	pause := leastPause
	for s.ctx.Err() == nil {
		began := time.Now()
		err := s.run()
		if s.ctx.Err() != nil {
			return
		}
		if time.Since(began) > wellAfter {
			pause = leastPause
		}
		s.setHealth(&sdk.Error{Kind: sdk.Unavailable, Op: "onion", Err: err})
		s.env.Log().Warn("tor has ended or did not start", slog.Any("error", err))
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
			return
		}
		pause = min(2*pause, mostPause)
	}
}

// run is one life of a tor.
func (s *service) run() error {
	s.mu.Lock()
	s.uploaded = false
	s.mu.Unlock()
	var d *daemon
	var err error
	before := s.guests.changes()
	if s.cfg.Control != "" {
		d, err = joinTor(s.ctx, s.cfg.Control, s.cfg.Pass.Text(), s.env.Log())
	} else {
		d, err = startTor(s.ctx, s.tor, s.runtime, filepath.Join(s.state, "tor"), s.lines(), s.env.Log())
	}
	if err != nil {
		return err
	}
	defer d.stop()
	progress := newWatch(s.cfg.Stall)
	defer progress.stop()
	if err := d.follow(func(e control.Event) { s.event(e, progress) }, control.EventCodeStatusClient, control.EventCodeHSDesc, control.EventCodeCircuit); err != nil {
		return err
	}
	if d.foreign {
		err = s.publish(d)
	} else {
		err = s.learn()
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.daemon = d
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.daemon = nil
		clear(s.circuits)
		clear(s.whose)
		s.mu.Unlock()
	}()
	if s.guests.changes() != before { // they came while this tor was started
		if err := s.apply(); err != nil {
			return err
		}
	}
	select {
	case <-d.done:
		return d.err
	case <-progress.late:
		return fmt.Errorf("no progress for %v: is the network there", s.cfg.Stall)
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
		s.mu.Lock()
		ours := e.Address == s.address || s.address == ""
		first := !s.uploaded
		if ours && e.Action == "UPLOADED" {
			s.uploaded = true
		}
		s.mu.Unlock()
		if ours && e.Action == "UPLOADED" {
			progress.stop()
			if first {
				s.setHealth(nil)
				s.env.Log().Info("onion service is published")
			}
		}
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

func (s *service) health() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason
}

// arrivals takes streams from tor.
func (s *service) arrivals() {
	for {
		c, err := s.ln.Accept()
		if err != nil {
			if s.ctx.Err() != nil {
				return
			}
			select { // descriptors are short
			case <-time.After(100 * time.Millisecond):
			case <-s.ctx.Done():
				return
			}
			continue
		}
		select {
		case s.slots <- struct{}{}:
			s.running.Go(func() {
				defer func() { <-s.slots }()
				s.arrive(c)
			})
		default:
			c.Close()
		}
	}
}

// arrive hands on one stream after what stands before it.
func (s *service) arrive(c net.Conn) {
	stop := context.AfterFunc(s.ctx, func() { c.Close() })
	defer stop()
	_ = c.SetDeadline(time.Now().Add(s.cfg.Header))
	var circuit uint64
	var err error
	if s.cfg.Control == "" {
		circuit, err = readCircuit(c)
	}
	if err == nil && s.cfg.Authorise {
		err = s.admit(c, circuit)
	}
	if err != nil {
		s.env.Log().Debug("a stream was refused", slog.Any("error", err))
		c.Close()
		return
	}
	_ = c.SetDeadline(time.Time{})
	if !stop() {
		return
	}
	facts := transport.Facts{Transport: Name, Hidden: true, Context: context.Background()}
	if circuit != 0 {
		facts.Circuit = strconv.FormatUint(circuit, 10)
	}
	select {
	case s.accepted <- stream{c, facts}:
	case <-s.ctx.Done():
		c.Close()
	}
}

var errToken = errors.New("the guest's token is not known")

// admit reads the guest's token. Who shows a wrong one loses the circuit: guessing has
// a price.
func (s *service) admit(c net.Conn, circuit uint64) error {
	var token [tokenSize]byte
	if _, err := readFull(c, token[:]); err != nil {
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
func (s *service) Accept() (net.Conn, error) {
	select {
	case c := <-s.accepted:
		return c, nil
	case <-s.ctx.Done():
		return nil, net.ErrClosed
	}
}

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
		_ = s.ln.Close()
		s.running.Wait()
		s.discard()
		s.gone()
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

// Parameters of our endpoints.
const (
	paramToken  = "t" // token of the guest, base64url
	paramSecret = "k" // X25519 private key of a link, base64url
)

// Invite implements transport.Server. The host is always the onion address.
func (s *service) Invite(_ context.Context, _ string, g transport.Guest) (transport.Endpoint, error) {
	s.mu.Lock()
	address, reason := s.address, s.reason
	s.mu.Unlock()
	if address == "" {
		return transport.Endpoint{}, reason
	}
	to := transport.Endpoint{Transport: Name, Host: address + ".onion", Port: uint16(s.cfg.Port), Params: map[string]string{}}
	if !s.cfg.Authorise {
		return to, nil
	}
	if g.ID == "" {
		return to, &sdk.Error{Kind: sdk.Unavailable, Op: "onion", Text: "with authorise = true there is no address for everybody"}
	}
	public := g.Public
	if public == nil {
		key, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			return to, err
		}
		public = key.PublicKey().Bytes()
		to.Params[paramSecret] = base64.RawURLEncoding.EncodeToString(key.Bytes())
	}
	if len(public) != 32 {
		return to, &sdk.Error{Kind: sdk.Invalid, Op: "onion", Text: "the guest's key has not 32 bytes"}
	}
	token := make([]byte, tokenSize)
	if _, err := rand.Read(token); err != nil {
		return to, err
	}
	if err := s.guests.add(g.ID, public, token, g.Expires); err != nil {
		return to, err
	}
	to.Params[paramToken] = base64.RawURLEncoding.EncodeToString(token)
	return to, s.apply()
}

// apply makes tor read the authorised clients and publish a descriptor for them.
func (s *service) apply() error {
	s.applying.Lock()
	defer s.applying.Unlock()
	if s.cfg.Control == "" {
		if err := s.guests.write(s.folder()); err != nil {
			return err
		}
	}
	s.mu.Lock()
	d := s.daemon
	s.mu.Unlock()
	if d == nil {
		return nil // run looks for changes when there is one
	}
	if d.foreign {
		return s.again(d)
	}
	_, err := d.ask("SIGNAL RELOAD")
	return err
}

// Revoke implements transport.Server: the token is worthless at once, the guest's
// circuits are cut, and the next descriptor cannot be read by it.
func (s *service) Revoke(_ context.Context, id string) error {
	known, err := s.guests.remove(id)
	if !known || err != nil {
		return err
	}
	s.mu.Lock()
	list := s.circuits[id]
	delete(s.circuits, id)
	for _, c := range list {
		delete(s.whose, c)
	}
	s.mu.Unlock()
	for _, c := range list {
		s.cut(c)
	}
	return s.apply()
}
