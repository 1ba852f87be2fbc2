package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/account/accounttest"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/noise"
	"github.com/commucat/commucat/sdk/transport"
)

const testDomain = "relay.example"

// house is a server with everything around it.
type house struct {
	*Server
	accounts *account.Store
	dir      *accounttest.Directory
	relay    *fakeRelay
	cache    *fakeCache
	key      ServerKey
	ca       identity.CA

	mu    sync.Mutex
	shift time.Duration
	conns []net.Conn
}

// now is the wall clock; tests move it against the real (or synctest's) one.
func (h *house) now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Now().Add(h.shift)
}

func (h *house) pass(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.shift += d
}

func newHouse(t testing.TB, change func(*Options, *account.Options)) *house {
	t.Helper()
	h := &house{dir: &accounttest.Directory{}, relay: &fakeRelay{}, cache: &fakeCache{}}
	var err error
	if h.ca, err = identity.NewCA([]byte(strings.Repeat("c", 32))); err != nil {
		t.Fatal(err)
	}
	h.key = ServerKey{Version: 3, Pair: noise.KeyPairFrom([32]byte{0x33, 0x33}), RotatesAt: time.Unix(2e9, 0), ExpiresAt: time.Unix(2e9, 0), ValidAfter: time.Unix(1e9, 0)}
	ao := account.Options{Domain: testDomain, Clock: h.now, CA: func() identity.CA { return h.ca }}
	so := Options{
		Relay: h.relay, Cache: h.cache, Domain: testDomain, Clock: h.now,
		Keys:     func() []ServerKey { return []ServerKey{h.key} },
		DeviceCA: func() [32]byte { return h.ca.Public() },
	}
	if change != nil {
		change(&so, &ao)
	}
	h.accounts = account.New(h.dir, ao)
	so.Accounts = h.accounts
	h.Server = New(so)
	h.accounts.OnChange(h.DeviceChanged)
	t.Cleanup(func() {
		for _, c := range h.conns {
			c.Close()
		}
		h.Close()
	})
	return h
}

func (h *house) invite(t testing.TB) *[16]byte {
	t.Helper()
	secret, _, err := h.accounts.CreateInvite(context.Background(), 1, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return &secret
}

// serve runs a connection with these facts and gives the client's end. ended is
// closed when Serve has returned.
func (h *house) serve(f transport.Facts) (client net.Conn, ended chan struct{}) {
	a, b := net.Pipe()
	h.mu.Lock()
	h.conns = append(h.conns, a)
	h.mu.Unlock()
	return a, h.serveConn(&factsConn{b, f})
}

func (h *house) serveConn(c net.Conn) chan struct{} {
	ended := make(chan struct{})
	go func() { h.Serve(c); close(ended) }()
	return ended
}

// device is the client's side of an account.
type device struct {
	id     string
	key    identity.Device
	static noise.KeyPair
	cert   *identity.Certificate
	hints  *ccp.UserHints
}

func newDevice(t testing.TB, id, handle string) *device {
	t.Helper()
	key, err := identity.GenerateDevice(nil)
	if err != nil {
		t.Fatal(err)
	}
	private, public := key.Static()
	d := &device{id: id, key: key, static: noise.KeyPair{Private: private, Public: public}}
	if handle != "" {
		d.hints = &ccp.UserHints{Handle: handle}
	}
	return d
}

func (d *device) identity(t testing.TB) *ccp.Identity {
	t.Helper()
	id := &ccp.Identity{DeviceID: d.id, DevicePublic: d.key.Public(), ClientStatic: d.static.Public, User: d.hints}
	if d.cert != nil {
		raw, err := d.cert.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		id.Certificate = raw
	}
	return id
}

// client is one handshake of a device, step by step, so that tests can bend it.
type client struct {
	t      testing.TB
	h      *house
	conn   net.Conn
	dev    *device
	caps   ccp.Capabilities
	ik     bool
	server [32]byte
	domain string

	invite *[16]byte
	pair   *ccp.Pair
	resume *[32]byte
	cursor uint64

	// clearEnd expects a clear frame after message 3.
	clearEnd bool
	// Hooks bend what goes out.
	bendHello   func(*ccp.Hello)
	bendBytes   func([]byte) []byte // Hello payload on the wire; the digest covers the original
	bendConfirm func(*ccp.Confirm)

	hs    *noise.Handshake
	kem   *noise.Decapsulator
	hello []byte
	got   ccp.Capabilities
	send  *noise.Sealer
	recv  *noise.Opener
	in    []byte
	plain []byte
	seq   uint32
	ack   ccp.Established
	auth  ccp.ServerAuth
	ext   ccp.Ext
}

func (h *house) client(t testing.TB, d *device, conn net.Conn) *client {
	return &client{t: t, h: h, conn: conn, dev: d, caps: ccp.AllCapabilities, server: h.key.Pair.Public, domain: testDomain}
}

// wireError is an Error frame from the server.
type wireError struct{ ccp.ErrorBody }

func (e *wireError) Error() string { return "server says " + e.ErrorBody.Error }

// connect does the whole handshake.
func (c *client) connect() error {
	if err := c.first(); err != nil {
		return err
	}
	return c.second()
}

// first sends the Hello and reads message 2.
func (c *client) first() error {
	if err := c.hello1(); err != nil {
		return err
	}
	return c.answer()
}

// hello1 sends the Hello.
func (c *client) hello1() error {
	pattern := noise.XK
	hello := ccp.Hello{Pattern: ccp.PatternXK, Capabilities: c.caps.Names(), SupportedVersions: ccp.Versions(1)}
	if c.ik {
		pattern, hello.Pattern = noise.IK, ccp.PatternIK
	}
	var err error
	if c.caps.Has(ccp.PQ) {
		if hello.PQ, c.kem, err = noise.PQClient(nil); err != nil {
			return err
		}
	}
	c.hs, err = noise.NewHandshake(noise.Config{
		Pattern: pattern, Initiator: true, Prologue: []byte(noise.DefaultPrologue), Static: c.dev.static, Peer: c.server, PQ: c.caps.Has(ccp.PQ),
	})
	if err != nil {
		return err
	}
	if hello.Handshake, err = c.hs.WriteMessage(nil, nil); err != nil {
		return err
	}
	if !c.caps.Has(ccp.Sealed) {
		hello.Identity = c.dev.identity(c.t)
		p, err := identity.ProveStatic(c.dev.key, c.domain, c.dev.id, c.dev.static.Public, nil)
		if err != nil {
			return err
		}
		hello.Proof = &ccp.StaticProof{Commitment: p.Commitment, Response: p.Response}
	}
	if c.bendHello != nil {
		c.bendHello(&hello)
	}
	c.hello = hello.Marshal()
	wire := c.hello
	if c.bendBytes != nil {
		wire = c.bendBytes(wire)
	}
	return c.clear(ccp.TypeHello, wire)
}

func (c *client) answer() error {
	f, err := c.readClear()
	if err != nil {
		return err
	}
	if f.Type != ccp.TypeAuth {
		return fmt.Errorf("frame %s instead of auth", f.Type)
	}
	if c.auth, err = ccp.ParseServerAuth(f.Payload); err != nil {
		return err
	}
	if c.kem != nil && c.auth.PQ != nil {
		psk, err := c.kem.PSK(c.auth.PQ)
		if err != nil {
			return err
		}
		if err := c.hs.SetPSK(psk); err != nil {
			return err
		}
	}
	payload, err := c.hs.ReadMessage(nil, c.auth.Handshake)
	if err != nil {
		return err
	}
	if c.ext, err = ccp.ParseExt(payload); err != nil {
		return err
	}
	c.got, err = c.ext.Answer.Check(c.hello, ccp.ParseCapabilities(c.caps.Names()))
	return err
}

// second sends message 3 and Confirm, and reads the Ack.
func (c *client) second() error {
	if err := c.third(); err != nil {
		return err
	}
	if c.clearEnd || !c.got.Has(ccp.ProofBinding) {
		f, err := c.readClear()
		if err != nil {
			return err
		}
		return c.readAck(f)
	}
	if err := c.confirm(); err != nil {
		return err
	}
	f, err := c.read()
	if err != nil {
		return err
	}
	return c.readAck(f)
}

func (c *client) third() error {
	if !c.ik {
		m, err := c.hs.WriteMessage(nil, nil)
		if err != nil {
			return err
		}
		if err := c.clear(ccp.TypeAuth, ccp.ClientAuth{Handshake: m}.Marshal()); err != nil {
			return err
		}
	}
	send, recv, err := c.hs.Split()
	if err != nil {
		return err
	}
	if !c.got.Has(ccp.Records) {
		send.WithoutRekey()
		recv.WithoutRekey()
	}
	c.send, c.recv = noise.NewSealer(send), noise.NewOpener(recv)
	return nil
}

// confirmation is the Confirm as it should be, then bent.
func (c *client) confirmation() ccp.Confirm {
	conf := ccp.Confirm{
		Proof:  identity.SignConfirm(c.dev.key, c.domain, c.dev.id, c.dev.static.Public, c.hs.Hash()),
		Invite: c.invite, Pair: c.pair, Resume: c.resume, Cursor: c.cursor,
	}
	if c.caps.Has(ccp.Sealed) {
		conf.Identity = c.dev.identity(c.t)
	}
	if c.bendConfirm != nil {
		c.bendConfirm(&conf)
	}
	return conf
}

func (c *client) confirm() error {
	conf := c.confirmation()
	return c.frame(ccp.TypeAuth, 0, conf.Marshal())
}

func (c *client) readAck(f ccp.Frame) error {
	if f.Type != ccp.TypeAck || f.Sequence != 2 || f.Channel != 0 {
		return fmt.Errorf("frame %s/%d/%d instead of the ack", f.Type, f.Channel, f.Sequence)
	}
	var err error
	if c.ack, err = ccp.ParseEstablished(f.Payload); err != nil {
		return err
	}
	if c.ack.DeviceCertificate != nil {
		cert, err := identity.ParseCertificate(c.ack.DeviceCertificate)
		if err != nil {
			return err
		}
		c.dev.cert = &cert
	}
	return nil
}

func (c *client) clear(t ccp.Type, payload []byte) error {
	c.seq++
	b, err := ccp.Append(nil, ccp.Frame{Type: t, Sequence: c.seq, Payload: payload})
	if err != nil {
		return err
	}
	_, err = c.conn.Write(b)
	return err
}

// frame sends one frame in records.
func (c *client) frame(t ccp.Type, channel uint32, payload []byte) error {
	c.seq++
	b, err := ccp.Append(nil, ccp.Frame{Type: t, Channel: channel, Sequence: c.seq, Payload: payload})
	if err != nil {
		return err
	}
	return c.raw(b)
}

// raw sends plaintext in records.
func (c *client) raw(plain []byte) error {
	var rec []byte
	var err error
	if c.got.Has(ccp.Records) || len(plain) == 0 {
		rec, err = c.send.AppendRecords(nil, plain, 0)
	} else {
		rec, err = c.send.AppendRecord(nil, plain)
	}
	if err != nil {
		return err
	}
	_, err = c.conn.Write(rec)
	return err
}

func (c *client) more() error {
	b := make([]byte, 64<<10)
	n, err := c.conn.Read(b)
	c.in = append(c.in, b[:n]...)
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// readClear reads a clear frame; Error frames become *wireError.
func (c *client) readClear() (ccp.Frame, error) {
	for {
		f, n, err := ccp.Decode(c.in)
		if err == nil {
			f.Payload = append([]byte(nil), f.Payload...)
			c.in = c.in[n:]
			return f, asError(f)
		}
		if !errors.Is(err, ccp.ErrIncomplete) {
			return f, err
		}
		if err := c.more(); err != nil {
			return f, err
		}
	}
}

// read reads a frame from records.
func (c *client) read() (ccp.Frame, error) {
	for {
		f, n, err := ccp.Decode(c.plain)
		if err == nil {
			f.Payload = append([]byte(nil), f.Payload...)
			c.plain = c.plain[n:]
			return f, asError(f)
		}
		if !errors.Is(err, ccp.ErrIncomplete) {
			return f, err
		}
		plain, n, err := c.recv.Next(c.in)
		if errors.Is(err, noise.ErrIncomplete) {
			if err := c.more(); err != nil {
				return f, err
			}
			continue
		}
		if err != nil {
			return f, err
		}
		c.plain = append(c.plain, plain...)
		c.in = c.in[n:]
	}
}

func asError(f ccp.Frame) error {
	if f.Type != ccp.TypeError {
		return nil
	}
	body, err := ccp.ParseErrorBody(f.Payload)
	if err != nil {
		return err
	}
	return &wireError{body}
}

func codeOf(err error) string {
	var w *wireError
	if errors.As(err, &w) {
		return w.ErrorBody.Error
	}
	if err == nil {
		return "ok"
	}
	return "closed"
}

// join registers a device and leaves it connected.
func (h *house) join(t testing.TB, d *device) *client {
	t.Helper()
	conn, _ := h.serve(transport.Facts{Transport: "pipe"})
	c := h.client(t, d, conn)
	c.invite = h.invite(t)
	if err := c.connect(); err != nil {
		t.Fatalf("join %s: %v", d.id, err)
	}
	return c
}

// dial makes a client on a new connection.
func (h *house) dial(t testing.TB, d *device) *client {
	t.Helper()
	conn, _ := h.serve(transport.Facts{Transport: "pipe"})
	return h.client(t, d, conn)
}
