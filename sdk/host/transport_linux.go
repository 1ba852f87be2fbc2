package host

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/internal/wire/handoff"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
	"github.com/commucat/commucat/sdk/transport"
)

// short bounds calls that have no context.
const short = 10 * time.Second

// remoteTransport stands for a transport in the other process.
type remoteTransport struct{ remote }

var _ transport.Opener = (*remoteTransport)(nil)

// Descriptor implements transport.Opener.
func (t *remoteTransport) Descriptor() transport.Descriptor {
	d := t.d.Transport
	return transport.Descriptor{
		Name: t.d.Name, Version: t.d.Version, Summary: t.d.Summary,
		Resistance: wire.LevelOf(d.Resistance), Throughput: wire.LevelOf(d.Throughput),
		LowLatency: wire.LevelOf(d.LowLatency), Anonymity: wire.LevelOf(d.Anonymity),
		Needs: d.Needs, HalfClose: d.HalfClose, DeviceKeys: d.DeviceKeys,
	}
}

// Open implements transport.Opener.
func (t *remoteTransport) Open(ctx context.Context, env sdk.Env, raw map[string]any) (transport.Opened, error) {
	id, reply, err := t.open(ctx, env, raw)
	if err != nil {
		return nil, err
	}
	o := &openedTransport{p: t.p, id: id, name: t.Name(), call: wirepb.NewTransportClient(t.p.conn)}
	if reply.Keys {
		return keyed{o}, nil
	}
	return o, nil
}

// openedTransport is an opened transport of the other process.
type openedTransport struct {
	p    *Process
	id   uint64
	name string
	call wirepb.TransportClient
	once sync.Once
}

// keyed is one whose devices may have keys.
type keyed struct{ *openedTransport }

// NewKey implements transport.KeyMaker.
func (k keyed) NewKey() (private, public []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), short)
	defer cancel()
	r, err := k.call.NewKey(ctx, &wirepb.Instance{Instance: k.id})
	if err != nil {
		return nil, nil, k.p.callError(ctx, err)
	}
	return r.Private, r.Public, wire.ToError(r.Error)
}

// Close implements transport.Opened.
func (o *openedTransport) Close() error {
	var err error
	o.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), short)
		defer cancel()
		err = o.p.shut(ctx, o.id)
	})
	return err
}

// Probe implements transport.Opened.
func (o *openedTransport) Probe(ctx context.Context) error {
	r, err := o.call.Probe(ctx, &wirepb.Instance{Instance: o.id})
	if err != nil {
		return o.p.callError(ctx, err)
	}
	return wire.ToError(r.Error)
}

// Listen implements transport.Opened.
func (o *openedTransport) Listen(ctx context.Context) (net.Listener, error) {
	in, theirs, err := handoff.Pair(&o.p.counters)
	if err != nil {
		return nil, err
	}
	l := &listener{o: o, in: in}
	l.number = o.p.number()
	deadline, _ := ctx.Deadline()
	err = o.p.main.Send(&handoff.Message{Type: handoff.Listener, Number: l.number}, int(theirs.Fd()), deadline)
	theirs.Close()
	if err != nil {
		in.Close()
		return nil, o.p.callError(ctx, err)
	}
	r, err := o.call.Listen(ctx, &wirepb.ListenRequest{Instance: o.id, Listener: l.number})
	if err == nil {
		err = wire.ToError(r.Error)
	} else {
		err = o.p.callError(ctx, err)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	l.o.p.listening.Add(1)
	l.counted.Store(true)
	l.addr = handoff.Address(transport.Addr{Net: printable(r.Network, 64), Text: printable(r.Address, 300)})
	if r.Health.GetInstance() == o.id {
		o.p.healthy(r.Health)
	}
	switch {
	case r.Server && r.Registrar && r.Replacer:
		return replacer{registrar{server{l}}}, nil
	case r.Server && r.Registrar:
		return registrar{server{l}}, nil
	case r.Server:
		return server{l}, nil
	}
	return l, nil
}

// number draws a number that this process has not seen.
func (p *Process) number() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	return p.last
}

// listener is a transport's listener in the other process.
type listener struct {
	o      *openedTransport
	in     *handoff.Socket
	number uint64
	addr   net.Addr
	mu     sync.Mutex // of Accept
	once   sync.Once
	// counted says that the process counts it among those that listen.
	counted atomic.Bool
}

// over says that nothing more is handed over.
func (l *listener) over() {
	if p := l.o.p; l.counted.Swap(false) && p.listening.Add(-1) == 0 {
		p.quiet.tell()
	}
}

// Accept implements net.Listener. When the process has ended it says why at once.
func (l *listener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		m, fd, err := l.in.Receive()
		switch {
		case errors.Is(err, io.EOF):
			l.over()
			return nil, l.gone()
		case err != nil:
			l.over()
			return nil, err
		case m.Type != handoff.Accepted:
			handoff.Drop(fd)
			l.o.p.counters.Malformed.Add(1)
			continue
		}
		c, err := l.o.p.stream(l.in, &m, fd)
		if err != nil {
			l.o.p.log.Warn("a descriptor of the plugin was refused", "plugin", l.o.name, "reason", err)
			continue
		}
		return c, nil
	}
}

// gone says why nothing comes any more.
func (l *listener) gone() error {
	t := time.NewTimer(lag)
	defer t.Stop()
	select {
	case <-l.o.p.runner.exited:
		<-l.o.p.ended
		return l.o.p.Err()
	case <-t.C:
		return &net.OpError{Op: "accept", Net: l.o.name, Addr: l.addr, Err: net.ErrClosed}
	}
}

// Close implements net.Listener: it returns when the plugin has closed its sockets.
func (l *listener) Close() error {
	var err error
	l.once.Do(func() {
		l.in.Close()
		l.over()
		ctx, cancel := context.WithTimeout(context.Background(), short)
		defer cancel()
		if l.o.p.Err() != nil {
			return
		}
		var r *wirepb.Done
		if r, err = l.o.call.CloseListener(ctx, &wirepb.ListenerRequest{Instance: l.o.id, Listener: l.number}); err == nil {
			err = wire.ToError(r.Error)
		} else if l.o.p.Err() != nil {
			err = nil
		} else {
			err = l.o.p.callError(ctx, err)
		}
	})
	return err
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.addr }

// server is a listener that makes invitations.
type server struct{ *listener }

var _ transport.Server = server{}

// Invite implements transport.Server.
func (s server) Invite(ctx context.Context, host string, g transport.Guest) (transport.Endpoint, error) {
	in := &wirepb.InviteRequest{Instance: s.o.id, Listener: s.number, Host: host, Guest: g.ID, Public: g.Public}
	if !g.Expires.IsZero() {
		in.ExpiresUnixNano = g.Expires.UnixNano()
	}
	r, err := s.o.call.Invite(ctx, in)
	if err != nil {
		return transport.Endpoint{}, s.o.p.callError(ctx, err)
	}
	if err := wire.ToError(r.Error); err != nil {
		return transport.Endpoint{}, err
	}
	return wire.ToEndpoint(r.Endpoint), nil
}

// Revoke implements transport.Server.
func (s server) Revoke(ctx context.Context, id string) error {
	r, err := s.o.call.Revoke(ctx, &wirepb.RevokeRequest{Instance: s.o.id, Listener: s.number, Guest: id})
	if err != nil {
		return s.o.p.callError(ctx, err)
	}
	return wire.ToError(r.Error)
}

// registrar is a server that is handed the keys of devices.
type registrar struct{ server }

var _ transport.Registrar = registrar{}

// Register implements transport.Registrar.
func (s registrar) Register(ctx context.Context, guests []transport.Guest) error {
	if len(guests) > transport.MaxRegister {
		return &sdk.Error{Kind: sdk.Invalid, Op: "register", Text: "too many guests for one call"}
	}
	in := &wirepb.RegisterRequest{Instance: s.o.id, Listener: s.number, Guests: make([]*wirepb.Guest, len(guests))}
	for i, g := range guests {
		in.Guests[i] = &wirepb.Guest{Id: g.ID, Public: g.Public}
		if !g.Expires.IsZero() {
			in.Guests[i].ExpiresUnixNano = g.Expires.UnixNano()
		}
	}
	return s.register(ctx, in)
}

func (s registrar) register(ctx context.Context, in *wirepb.RegisterRequest) error {
	r, err := s.o.call.Register(ctx, in)
	if err != nil {
		return s.o.p.callError(ctx, err)
	}
	return wire.ToError(r.Error)
}

// replacer is a registrar that takes a whole list.
type replacer struct{ registrar }

var _ transport.Replacer = replacer{}

// Replacing implements transport.Replacer.
func (s replacer) Replacing(ctx context.Context) error {
	return s.register(ctx, &wirepb.RegisterRequest{Instance: s.o.id, Listener: s.number, Mark: wirepb.ListMark_LIST_MARK_BEGIN})
}

// Replaced implements transport.Replacer.
func (s replacer) Replaced(ctx context.Context) error {
	return s.register(ctx, &wirepb.RegisterRequest{Instance: s.o.id, Listener: s.number, Mark: wirepb.ListMark_LIST_MARK_END})
}

// Dial implements transport.Opened. Roots are given to the other process as
// RootCertificates: with a pool that consists of anything else it is refused.
func (o *openedTransport) Dial(ctx context.Context, to transport.Endpoint, with transport.Dial) (net.Conn, error) {
	if with.Roots != nil {
		var same transport.Dial
		if same.Trust(with.RootCertificates...); !same.Roots.Equal(with.Roots) {
			return nil, &sdk.Error{Kind: sdk.Unsupported, Op: "transport " + o.name, Text: "roots cannot be given to a plugin in another process without their certificates: set them with Dial.Trust, or pin the key"}
		}
	}
	d := &dial{o: o, with: with, number: o.p.number(), got: make(chan handed, 1)}
	o.p.mu.Lock()
	o.p.dials[d.number] = d.got
	o.p.mu.Unlock()
	c, err := d.run(ctx, to)
	if err != nil {
		o.p.mu.Lock()
		delete(o.p.dials, d.number)
		o.p.mu.Unlock()
		select { // it may have come all the same
		case h := <-d.got:
			if h.conn != nil {
				h.conn.Close()
			}
		default:
		}
		return nil, err
	}
	return c, nil
}
