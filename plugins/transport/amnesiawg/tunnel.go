package amnesiawg

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/conf"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/bind"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/inner"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
	"github.com/commucat/commucat/sdk"
)

// clientBatch is how many packets a client handles at once. Each costs 64 KiB of
// address space, of which little is touched.
const clientBatch = 64

// silence is how long a tunnel that was up may be quiet after we spoke before a new
// handshake is made.
const silence = time.Second

// afterHandshake is how long a handshake that the relay began may take.
const afterHandshake = 200 * time.Millisecond

// tunnel is a client's WireGuard device with the network inside.
type tunnel struct {
	e       conf.Endpoint
	public  [32]byte
	address netip.Addr // ours, inside
	conn    net.PacketConn
	net     *inner.Net
	dev     *device.Device
	bind    *bind.Bind
	asker   *obfs.Asker
	stop    chan struct{}
	running sync.WaitGroup

	// connecting is held by the one who makes a handshake.
	connecting chan struct{}

	mu      sync.Mutex
	up      bool
	at      []netip.Addr
	tried   int
	signs   signs
	changed chan struct{} // closed when signs or up change
	streams map[*inner.Conn]struct{}
}

// signs are what was heard since the handshake began.
type signs struct {
	response, cookie, refused bool
	asked                     map[[8]byte]bool
	answer                    *obfs.Answer
}

func newTunnel(e conf.Endpoint, private [32]byte, cfg Config, log *slog.Logger) (*tunnel, error) {
	c, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, &sdk.Error{Kind: sdk.Unavailable, Op: "udp", Text: "this machine gives no socket", Err: err}
	}
	return newTunnelOn(c, e, private, cfg, log)
}

// newTunnelOn takes a socket over.
func newTunnelOn(c net.PacketConn, e conf.Endpoint, private [32]byte, cfg Config, log *slog.Logger) (*tunnel, error) {
	public, err := conf.PublicKey(private)
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	t := &tunnel{
		e: e, conn: c, public: public, address: conf.ClientAddr(e.Server, public), asker: obfs.NewAsker(e.Server),
		stop: make(chan struct{}), connecting: make(chan struct{}, 1), changed: make(chan struct{}),
		streams: map[*inner.Conn]struct{}{},
	}
	fail := func(err error) (*tunnel, error) {
		t.close()
		return nil, err
	}
	if t.net, err = inner.New(inner.Options{Address: t.address, MTU: e.MTU, Padding: e.Wire.Padding, Silence: cfg.Silence}); err != nil {
		return fail(err)
	}
	t.bind, err = bind.New(bind.Options{
		Private: private, Sockets: []bind.Socket{{Conn: t.conn, Params: e.Wire, Errors: true}},
		Guard: &onlyServer{server: e.Server, again: t.poke}, Stray: t.stray, Event: t.event, Batch: clientBatch,
	})
	if err != nil {
		return fail(err)
	}
	t.dev = newDevice(t.net, t.bind, log)
	if err := t.dev.IpcSet("private_key=" + hex.EncodeToString(private[:]) + "\n"); err != nil {
		return fail(err)
	}
	if err := t.bind.Add(e.Server); err != nil {
		return fail(&sdk.Error{Kind: sdk.Invalid, Op: "key", Text: "the relay's key is none; ask for a new link"})
	}
	if err := t.dev.Up(); err != nil {
		return fail(err)
	}
	if cfg.Hop > 0 && len(e.Ports) > 1 {
		t.running.Go(func() { t.hop(cfg.Hop) })
	}
	return t, nil
}

// onlyServer lets the relay begin a handshake as well. It does when it has forgotten
// our session.
type onlyServer struct {
	server [32]byte
	again  func()

	mu   sync.Mutex
	last obfs.Stamp
}

func (o *onlyServer) Known(static [32]byte) bool { return static == o.server }

func (o *onlyServer) Admit(static [32]byte, stamp obfs.Stamp, _ *bind.Endpoint) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if static != o.server || !stamp.After(o.last) {
		return false
	}
	o.last = stamp
	o.again()
	return true
}

// hold notes a stream, or forgets it.
func (t *tunnel) hold(c *inner.Conn, open bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if open {
		t.streams[c] = struct{}{}
	} else {
		delete(t.streams, c)
	}
}

// poke asks the relay soon whether it still knows our streams.
func (t *tunnel) poke() {
	t.running.Go(func() {
		timer := time.NewTimer(afterHandshake)
		defer timer.Stop()
		select {
		case <-t.stop:
			return
		case <-timer.C:
		}
		t.mu.Lock()
		streams := slices.Collect(maps.Keys(t.streams))
		t.mu.Unlock()
		for _, c := range streams {
			c.Poke()
		}
	})
}

func (t *tunnel) close() {
	close(t.stop)
	if t.dev != nil {
		t.dev.Close()
	}
	if t.bind != nil {
		t.bind.Wait() // nothing is begun any more
	}
	t.running.Wait()
	if t.net != nil {
		t.net.Close()
	}
	_ = t.conn.Close()
}

// note changes what is known and wakes who waits.
func (t *tunnel) note(change func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change()
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *tunnel) event(e bind.Event) {
	switch e {
	case bind.GotResponse:
		t.note(func() { t.signs.response = true })
	case bind.GotCookie:
		t.note(func() { t.signs.cookie = true })
	case bind.Refused:
		t.note(func() { t.signs.refused = true })
	case bind.SentData: // the session is there
		t.note(func() { t.up = true })
	}
}

func (t *tunnel) stray(d []byte, _ *bind.Endpoint) {
	t.mu.Lock()
	answer, ok := t.asker.ReadAnswer(d, t.signs.asked)
	t.mu.Unlock()
	if ok {
		t.note(func() { t.signs.answer = &answer })
	}
}

// dial opens a stream, with a handshake before it where there is no session, or where
// the one that was there does not answer.
func (t *tunnel) dial(ctx context.Context, deadline time.Time) (*inner.Conn, error) {
	at := netip.AddrPortFrom(conf.ServerAddr(t.e.Server), conf.Port)
	for {
		t.mu.Lock()
		up := t.up
		t.mu.Unlock()
		if !up {
			if err := t.connect(ctx, deadline); err != nil {
				return nil, err
			}
		}
		limit := time.Until(deadline)
		if up {
			limit = min(limit, silence)
		}
		c, err := t.open(ctx, at, limit)
		switch {
		case err == nil:
			return c, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
			return nil, &sdk.Error{Kind: sdk.Unavailable, Op: "stream", Text: "there is a session, but the relay takes no streams at the moment", Err: err}
		case up:
			// The session is of another time: the relay was started anew, or
			// our address is not what it was.
			t.note(func() { t.up = false })
		default:
			return nil, &sdk.Error{Kind: sdk.Unavailable, Op: "stream", Text: "there is a session, but nothing gets through it: packets of this size are lost on the way, or the relay is overloaded"}
		}
	}
}

func (t *tunnel) open(ctx context.Context, at netip.AddrPort, limit time.Duration) (*inner.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return t.net.Dial(ctx, at)
}

// hop changes the relay's port now and then.
func (t *tunnel) hop(every time.Duration) {
	for {
		// Not at fixed times: those would be seen.
		timer := time.NewTimer(every/2 + rand.N(every))
		select {
		case <-t.stop:
			timer.Stop()
			return
		case <-timer.C:
		}
		t.mu.Lock()
		if t.up && len(t.at) > 0 {
			host := t.at[t.tried%len(t.at)]
			t.bind.SetRemote(netip.AddrPortFrom(host, t.e.Ports[rand.IntN(len(t.e.Ports))]))
		}
		t.mu.Unlock()
	}
}
