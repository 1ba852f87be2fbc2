package client

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/noise"
	"github.com/commucat/commucat/sdk/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// relay is the scripted other side: the handshake as protocol-extensions.md has
// it, with hooks where a test wants it otherwise, and a frame loop.
type relay struct {
	tb     testing.TB
	root   ed25519.PrivateKey
	keys   []noise.KeyPair // newest first
	caps   ccp.Capabilities
	domain string

	hello   func(payload []byte) []byte // what the relay sees of the Hello
	answer  func(*ccp.Answer)
	auth    func(*ccp.ServerAuth)
	ext     func(*ccp.Ext)
	confirm func(ccp.Confirm) *ccp.ErrorBody
	ack     func(*ccp.Established)
	// frame handles what comes after the Ack; nil: the connection is only kept.
	frame func(*peer, ccp.Frame)
	// ready runs when a connection is established, before frames are read.
	ready func(*peer)

	dials    atomic.Int64
	hellos   atomic.Int64
	confirms atomic.Int64
	wg       sync.WaitGroup

	mu       sync.Mutex
	patterns []string
	last     ccp.Confirm
	lastHi   ccp.Hello
	peers    []*peer
	arrived  chan *peer
}

// peer is an established connection at the relay.
type peer struct {
	r        *relay
	conn     net.Conn
	accepted ccp.Capabilities
	open     *noise.Opener
	in       []byte
	plain    []byte

	mu   sync.Mutex
	seal *noise.Sealer
	seq  uint32
}

func newRelay(tb testing.TB) *relay {
	_, root, err := ed25519.GenerateKey(nil)
	if err != nil {
		tb.Fatal(err)
	}
	r := &relay{tb: tb, root: root, caps: ccp.AllCapabilities, domain: "relay.example", arrived: make(chan *peer, 64)}
	r.rotate()
	tb.Cleanup(r.stop)
	return r
}

func (r *relay) rotate() {
	k, err := noise.GenerateKeyPair(rand.Reader)
	if err != nil {
		r.tb.Fatal(err)
	}
	r.keys = append([]noise.KeyPair{k}, r.keys...)
}

func (r *relay) stop() {
	r.mu.Lock()
	for _, p := range r.peers {
		p.conn.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}

func (r *relay) link(kind link.Kind, promised ccp.Capabilities) link.Link {
	l := link.Link{
		Kind: kind, Root: [32]byte(r.root.Public().(ed25519.PublicKey)), NoiseVersion: 1, NoisePublic: r.keys[0].Public,
		Domain: r.domain, Capabilities: uint64(promised),
		Endpoints: []link.Endpoint{{Transport: "pipe", Host: "relay.example", Port: 443}},
	}
	if kind != link.Address {
		l.Secret = [16]byte{7}
	}
	return l
}

func (r *relay) profile(promised ccp.Capabilities) *Profile {
	p, err := NewProfile(r.link(link.Address, promised), "", rand.Reader)
	if err != nil {
		r.tb.Fatal(err)
	}
	return p
}

// Name and Dial make the relay its own dialer, over net.Pipe.
func (r *relay) Name() string { return "pipe" }

func (r *relay) Dial(ctx context.Context, _ transport.Endpoint, _ transport.Dial) (net.Conn, error) {
	r.dials.Add(1)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	a, b := net.Pipe()
	r.wg.Go(func() {
		defer b.Close()
		_ = r.serve(b)
	})
	return a, nil
}

var errStop = errors.New("handshake refused")

func (r *relay) serve(conn net.Conn) error {
	f, rest, err := readFrame(conn, nil)
	if err != nil {
		return err
	}
	r.hellos.Add(1)
	payload := f.Payload
	if r.hello != nil {
		payload = r.hello(payload)
	}
	h, err := ccp.ParseHello(payload)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.patterns, r.lastHi = append(r.patterns, h.Pattern), h
	r.mu.Unlock()
	pattern, _ := noise.ParsePattern(h.Pattern)
	var hs *noise.Handshake
	for _, k := range r.keys {
		hs, err = noise.NewHandshake(noise.Config{Pattern: pattern, Prologue: []byte(noise.DefaultPrologue), Static: k, PQ: h.PQ != nil})
		if err != nil {
			return err
		}
		if _, err = hs.ReadMessage(nil, h.Handshake); err == nil {
			break
		}
	}
	if err != nil {
		frame, _ := ccp.Append(nil, ccp.Frame{Type: ccp.TypeError, Payload: ccp.ErrorBody{Error: ccp.CodeHandshake}.Marshal()})
		_, err := conn.Write(frame)
		return err
	}
	accepted := ccp.Negotiate(h.Offer(), r.caps)
	answer := ccp.NewAnswer(payload, r.caps, accepted)
	if r.answer != nil {
		r.answer(answer)
	}
	auth := ccp.ServerAuth{Session: "public", ProtocolVersion: 1, SupportedVersions: []uint16{1}}
	if h.PQ != nil {
		ct, psk, err := noise.PQServer(h.PQ, nil)
		if err != nil {
			return err
		}
		auth.PQ = ct
		if err := hs.SetPSK(psk); err != nil {
			return err
		}
	}
	ext := ccp.Ext{Domain: r.domain, ProtocolVersion: 1, Answer: answer}
	if r.ext != nil {
		r.ext(&ext)
	}
	if auth.Handshake, err = hs.WriteMessage(nil, ext.Marshal()); err != nil {
		return err
	}
	if r.auth != nil {
		r.auth(&auth)
	}
	frame, err := ccp.Append(nil, ccp.Frame{Type: ccp.TypeAuth, Channel: 5, Sequence: 1, Payload: auth.Marshal()})
	if err != nil {
		return err
	}
	if _, err := conn.Write(frame); err != nil {
		return err
	}
	if pattern == noise.XK {
		if f, rest, err = readFrame(conn, rest); err != nil {
			return err
		}
		a, err := ccp.ParseClientAuth(f.Payload)
		if err != nil {
			return err
		}
		if _, err := hs.ReadMessage(nil, a.Handshake); err != nil {
			return err
		}
	}
	return r.establish(conn, hs, h, accepted, rest)
}

func (r *relay) establish(conn net.Conn, hs *noise.Handshake, h ccp.Hello, accepted ccp.Capabilities, rest []byte) error {
	send, recv, err := hs.Split()
	if err != nil {
		return err
	}
	p := &peer{r: r, conn: conn, accepted: accepted, open: noise.NewOpener(recv), seal: noise.NewSealer(send), in: append([]byte(nil), rest...)}
	f, err := p.next()
	if err != nil {
		return err
	}
	cf, err := ccp.ParseConfirm(f.Payload)
	if err != nil {
		r.tb.Errorf("confirm: %v", err)
		return err
	}
	r.confirms.Add(1)
	id := h.Identity
	if id == nil {
		id = cf.Identity
	}
	if err := identity.VerifyConfirm(id.DevicePublic, r.domain, id.DeviceID, id.ClientStatic, hs.Hash(), cf.Proof[:]); err != nil || id.ClientStatic != hs.PeerStatic() {
		r.tb.Errorf("the proof does not verify: %v", err)
		return errStop
	}
	r.mu.Lock()
	r.last = cf
	r.mu.Unlock()
	if r.confirm != nil {
		if e := r.confirm(cf); e != nil {
			_ = p.send(ccp.TypeError, 0, e.Marshal())
			return errStop
		}
	}
	var token [32]byte
	rand.Read(token[:])
	ack := ccp.Established{Session: "bearer", Keepalive: 30, Ext: &ccp.AckExt{
		SendWindow: ccp.SendWindow, Time: time.Now().UnixMilli(),
		Resume: &ccp.ResumeGrant{Resumed: cf.Resume != nil, Token: &token, Window: 120},
	}}
	if r.ack != nil {
		r.ack(&ack)
	}
	if err := p.send(ccp.TypeAck, 0, ack.Marshal()); err != nil {
		return err
	}
	r.mu.Lock()
	r.peers = append(r.peers, p)
	r.mu.Unlock()
	if r.ready != nil {
		r.ready(p)
	}
	select {
	case r.arrived <- p:
	default:
	}
	for {
		f, err := p.next()
		if err != nil {
			return err
		}
		if r.frame != nil {
			r.frame(p, f)
		}
	}
}

// next reads one frame from the records.
func (p *peer) next() (ccp.Frame, error) {
	buf := make([]byte, 32<<10)
	for {
		f, n, err := ccp.Decode(p.plain)
		if err == nil {
			f.Payload = append([]byte(nil), f.Payload...)
			p.plain = p.plain[n:]
			return f, nil
		}
		if !errors.Is(err, ccp.ErrIncomplete) {
			return ccp.Frame{}, err
		}
		plain, n, err := p.open.Next(p.in)
		if err == nil {
			p.plain, p.in = append(p.plain, plain...), p.in[n:]
			continue
		}
		if !errors.Is(err, noise.ErrIncomplete) {
			return ccp.Frame{}, err
		}
		n, err = p.conn.Read(buf)
		if err != nil {
			return ccp.Frame{}, err
		}
		p.in = append(p.in, buf[:n]...)
	}
}

func (p *peer) send(t ccp.Type, channel uint32, payload []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seq++
	f, err := ccp.Append(nil, ccp.Frame{Type: t, Channel: channel, Sequence: p.seq, Payload: payload})
	if err != nil {
		p.r.tb.Errorf("relay: %v", err)
		return err
	}
	return p.raw(f)
}

// raw sends bytes in records; mu is held, or the caller is alone.
func (p *peer) raw(b []byte) error {
	rec, err := p.seal.AppendRecords(nil, b, noise.DefaultRecord)
	if err != nil {
		return err
	}
	_, err = p.conn.Write(rec)
	return err
}

func (p *peer) deliver(position, counter uint64, body string) error {
	return p.deliverAs(ccp.Deliver{
		Kind: ccp.TypeMsg, Flags: ccp.DeliverDirect, Position: position, Time: 1_800_000_000_000,
		ID: ccp.MessageID{Log: [8]byte{1}, Counter: counter}, Device: []byte("dev-a"), User: []byte("u-1"), Body: []byte(body),
	})
}

func (p *peer) deliverAs(d ccp.Deliver) error {
	b, err := ccp.AppendDeliver(nil, d)
	if err != nil {
		p.r.tb.Errorf("relay: %v", err)
		return err
	}
	return p.send(ccp.TypeDeliver, 0, b)
}

func (p *peer) ackRange(log [8]byte, from, to uint64) {
	b, _ := ccp.AppendSendAck(nil, ccp.SendAck{Log: log, Done: [][2]uint64{{from, to}}})
	_ = p.send(ccp.TypeAck, 0, b)
}

func (p *peer) refuse(s ccp.Send, code string, retry uint32) {
	_ = p.send(ccp.TypeError, 0, ccp.ErrorBody{Error: code, ID: s.ID, RetryMS: retry}.Marshal())
}

func parseSend(tb testing.TB, f ccp.Frame) ccp.Send {
	s, err := ccp.ParseSend(f.Payload)
	if err == nil {
		err = s.CheckChannel(f.Channel)
	}
	if err != nil {
		tb.Errorf("send: %v", err)
	}
	return s
}

// ackAll acknowledges every Send.
func ackAll(p *peer, f ccp.Frame) {
	if f.Type == ccp.TypeSend {
		s := parseSend(p.r.tb, f)
		p.ackRange(s.ID.Log, s.ID.Counter, s.ID.Counter)
	}
}

// running is a client whose Run is under way.
type running struct {
	*Client
	tb    testing.TB
	ended chan error
	stop  context.CancelFunc

	mu     sync.Mutex
	events []Event
	shown  []Message
	notice chan struct{}
}

func start(tb testing.TB, opt Options) *running {
	u := &running{tb: tb, ended: make(chan error, 1), notice: make(chan struct{}, 1)}
	handle := opt.Handle
	opt.Handle = func(m Message) error {
		if handle != nil {
			if err := handle(m); err != nil {
				return err
			}
		}
		u.mu.Lock()
		u.shown = append(u.shown, m)
		u.mu.Unlock()
		u.ring()
		return nil
	}
	opt.OnEvent = func(e Event) {
		u.mu.Lock()
		u.events = append(u.events, e)
		u.mu.Unlock()
		u.ring()
	}
	c, err := New(opt)
	if err != nil {
		tb.Fatal(err)
	}
	u.Client = c
	ctx, stop := context.WithCancel(context.Background())
	u.stop = stop
	go func() { u.ended <- c.Run(ctx) }()
	tb.Cleanup(func() { u.close() })
	return u
}

func (u *running) ring() {
	select {
	case u.notice <- struct{}{}:
	default:
	}
}

func (u *running) close() {
	u.stop()
	u.Client.Close()
}

func (u *running) connected() {
	u.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := u.Connected(ctx); err != nil {
		u.tb.Fatal(err)
	}
}

// cut breaks the connection and waits for the next one.
func (u *running) cut() {
	u.tb.Helper()
	u.connected()
	old := u.current()
	u.Disconnect()
	for limit := time.Now().Add(20 * time.Second); ; {
		u.Client.mu.Lock()
		s, changed := u.Client.cur, u.Client.changed
		u.Client.mu.Unlock()
		if s != nil && s != old {
			return
		}
		select {
		case <-changed:
		case <-time.After(time.Until(limit)):
			u.tb.Fatal("no second connection")
		}
	}
}

func (u *running) until(what string, ok func(*running) bool) {
	u.tb.Helper()
	limit := time.NewTimer(2 * time.Minute) // also of the bubbles' time
	defer limit.Stop()
	for {
		u.mu.Lock()
		done := ok(u)
		u.mu.Unlock()
		if done {
			return
		}
		select {
		case <-u.notice:
		case <-limit.C:
			u.tb.Fatalf("waited in vain for %s", what)
		}
	}
}

func (u *running) heard(n int) []Message {
	u.tb.Helper()
	u.until("messages", func(u *running) bool { return len(u.shown) >= n })
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]Message(nil), u.shown...)
}

func (u *running) event(name string) Event {
	u.tb.Helper()
	var found Event
	u.until("event "+name, func(u *running) bool {
		for _, e := range u.events {
			if e.Name == name {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

func (u *running) say(body string) *Ticket {
	u.tb.Helper()
	t, err := u.Send(Draft{To: []string{"dev-b"}, Body: []byte(body)})
	if err != nil {
		u.tb.Fatal(err)
	}
	return t
}

func (u *running) wait(t *Ticket) (Result, error) {
	u.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	res, err := t.Wait(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		u.tb.Fatal("no answer")
	}
	return res, err
}

func memory() *MemoryStore { return NewMemoryStore([8]byte{0xa1}) }

func (r *relay) options(promised ccp.Capabilities) Options {
	return Options{Profile: r.profile(promised), Store: memory(), Dialers: []transport.Dialer{r}}
}
