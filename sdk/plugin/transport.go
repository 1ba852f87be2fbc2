package plugin

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/internal/wire/handoff"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
	"github.com/commucat/commucat/sdk/transport"
)

// transports serves transports.
type transports struct {
	wirepb.UnimplementedTransportServer
	*server
}

// listener is a transport's listener with the socket to which its streams go.
type listener struct {
	ln     net.Listener
	ready  *transport.Handshaking
	out    *handoff.Socket
	done   sync.WaitGroup
	closed atomic.Bool
}

func (t *transports) opened(id uint64) (*instance, error) {
	i, err := t.find(id)
	if err == nil && i.transport == nil {
		err = &sdk.Error{Kind: sdk.Invalid, Text: "the plugin is no transport"}
	}
	return i, err
}

func (t *transports) Listen(ctx context.Context, r *wirepb.ListenRequest) (*wirepb.ListenReply, error) {
	reply := &wirepb.ListenReply{}
	if err := t.listen(ctx, r, reply); err != nil {
		reply.Error = wire.FromError(err)
	}
	return reply, nil
}

func (t *transports) listen(ctx context.Context, r *wirepb.ListenRequest, reply *wirepb.ListenReply) error {
	a, err := t.borrow(ctx, r.Listener)
	if err != nil {
		return err
	}
	out, err := handoff.NewSocket(a.fd, new(handoff.Counters))
	if err != nil {
		return err
	}
	i, err := t.opened(r.Instance)
	if err != nil {
		out.Close()
		return err
	}
	ln, err := i.transport.Listen(ctx)
	if err != nil {
		out.Close()
		return err
	}
	l := &listener{ln: ln, ready: transport.Handshakes(ln), out: out}
	t.mu.Lock()
	draining := t.draining
	i.mu.Lock()
	if !draining {
		i.listeners[r.Listener] = l
	}
	i.mu.Unlock()
	t.mu.Unlock()
	l.done.Go(func() { l.accept(t.server, i) })
	l.done.Go(l.watch)
	if draining {
		l.close()
		return errDraining
	}
	if a := ln.Addr(); a != nil {
		reply.Network, reply.Address = a.Network(), a.String()
	}
	_, reply.Server = ln.(transport.Server)
	_, reply.Registrar = ln.(transport.Registrar)
	_, reply.Replacer = ln.(transport.Replacer)
	reply.Health = t.health.get(i.id)
	return nil
}

// accept hands over what is accepted. A host that does not keep up holds up this
// loop alone.
func (l *listener) accept(s *server, i *instance) {
	defer l.stop()
	full := false
	for {
		c, err := l.ready.Accept()
		if err != nil {
			return
		}
		if crowded := s.crowded(); crowded != full {
			if full = crowded; full {
				i.env.Degraded(errors.New("nearly all of this process's descriptors are in use: new clients are refused; raise LimitNOFILE"))
			} else {
				i.env.Degraded(nil)
			}
		}
		if full {
			c.Close()
			continue
		}
		m := handoff.Message{Type: handoff.Accepted}
		m.Describe(c)
		if err := s.pumps.Give(l.out, &m, c, time.Time{}, nil); err != nil {
			if l.closed.Load() {
				return
			}
			i.env.log.Warn("a client was lost on its way to the relay", "error", err)
		}
	}
}

// watch waits for the host's end of the socket to be closed.
func (l *listener) watch() {
	_, fd, err := l.out.Receive()
	if err == nil {
		handoff.Drop(fd)
	}
	l.stop()
}

func (l *listener) stop() {
	if !l.closed.Swap(true) {
		l.out.Close()
		l.ready.Close()
	}
}

// drain takes nobody in any more; who has begun a handshake is still handed over.
func (l *listener) drain() {
	if !l.closed.Load() {
		_ = l.ready.Drain()
	}
}

// close ends the listener; streams live on.
func (l *listener) close() {
	l.stop()
	l.done.Wait()
}

func (t *transports) CloseListener(ctx context.Context, r *wirepb.ListenerRequest) (*wirepb.Done, error) {
	t.mu.Lock()
	if c, ok := t.lent[r.Listener]; ok { // of a Listen that never came
		delete(t.lent, r.Listener)
		select {
		case a := <-c:
			handoff.Drop(a.fd)
		default:
		}
	}
	t.mu.Unlock()
	if i, err := t.find(r.Instance); err == nil {
		if l, err := i.listener(r.Listener); err == nil {
			i.mu.Lock()
			delete(i.listeners, r.Listener)
			i.mu.Unlock()
			l.close()
		}
	}
	return &wirepb.Done{}, nil
}

func (t *transports) Probe(ctx context.Context, r *wirepb.Instance) (*wirepb.Done, error) {
	i, err := t.opened(r.Instance)
	if err == nil {
		err = i.transport.Probe(ctx)
	}
	return &wirepb.Done{Error: wire.FromError(err)}, nil
}

func (t *transports) NewKey(_ context.Context, r *wirepb.Instance) (*wirepb.NewKeyReply, error) {
	i, err := t.opened(r.Instance)
	if err != nil {
		return &wirepb.NewKeyReply{Error: wire.FromError(err)}, nil
	}
	k, ok := i.transport.(transport.KeyMaker)
	if !ok {
		return &wirepb.NewKeyReply{Error: wire.FromError(&sdk.Error{Kind: sdk.Unsupported, Text: "its devices have no keys"})}, nil
	}
	private, public, err := k.NewKey()
	return &wirepb.NewKeyReply{Private: private, Public: public, Error: wire.FromError(err)}, nil
}

// invites gives a listener that makes invitations.
func (t *transports) invites(id, number uint64) (transport.Server, error) {
	i, err := t.opened(id)
	if err != nil {
		return nil, err
	}
	l, err := i.listener(number)
	if err != nil {
		return nil, err
	}
	s, ok := l.ln.(transport.Server)
	if !ok {
		return nil, &sdk.Error{Kind: sdk.Unsupported, Text: "its clients need no invitation"}
	}
	return s, nil
}

func (t *transports) Invite(ctx context.Context, r *wirepb.InviteRequest) (*wirepb.InviteReply, error) {
	s, err := t.invites(r.Instance, r.Listener)
	if err != nil {
		return &wirepb.InviteReply{Error: wire.FromError(err)}, nil
	}
	g := transport.Guest{ID: r.Guest, Public: r.Public}
	if r.ExpiresUnixNano != 0 {
		g.Expires = time.Unix(0, r.ExpiresUnixNano).UTC()
	}
	e, err := s.Invite(ctx, r.Host, g)
	if err != nil {
		return &wirepb.InviteReply{Error: wire.FromError(err)}, nil
	}
	return &wirepb.InviteReply{Endpoint: wire.FromEndpoint(e)}, nil
}

func (t *transports) Revoke(ctx context.Context, r *wirepb.RevokeRequest) (*wirepb.Done, error) {
	s, err := t.invites(r.Instance, r.Listener)
	if err == nil {
		err = s.Revoke(ctx, r.Guest)
	}
	return &wirepb.Done{Error: wire.FromError(err)}, nil
}

// Register lets many guests in at once.
func (t *transports) Register(ctx context.Context, r *wirepb.RegisterRequest) (*wirepb.Done, error) {
	return &wirepb.Done{Error: wire.FromError(t.register(ctx, r))}, nil
}

func (t *transports) register(ctx context.Context, r *wirepb.RegisterRequest) error {
	s, err := t.invites(r.Instance, r.Listener)
	if err != nil {
		return err
	}
	to, ok := s.(transport.Registrar)
	if !ok {
		return &sdk.Error{Kind: sdk.Unsupported, Text: "it is not told of devices beforehand"}
	}
	if r.Mark != wirepb.ListMark_LIST_MARK_NONE {
		return mark(ctx, to, r)
	}
	if len(r.Guests) > transport.MaxRegister {
		return &sdk.Error{Kind: sdk.Invalid, Op: "register", Text: "too many guests for one call"}
	}
	guests := make([]transport.Guest, len(r.Guests))
	for i, g := range r.Guests {
		guests[i] = transport.Guest{ID: g.GetId(), Public: g.GetPublic()}
		if n := g.GetExpiresUnixNano(); n != 0 {
			guests[i].Expires = time.Unix(0, n).UTC()
		}
	}
	return to.Register(ctx, guests)
}

// mark tells where the list of all devices begins and ends.
func mark(ctx context.Context, to transport.Registrar, r *wirepb.RegisterRequest) error {
	whole, ok := to.(transport.Replacer)
	switch {
	case !ok:
		return &sdk.Error{Kind: sdk.Unsupported, Op: "register", Text: "it does not take a whole list"}
	case len(r.Guests) > 0:
		return &sdk.Error{Kind: sdk.Invalid, Op: "register", Text: "a mark comes without guests"}
	case r.Mark == wirepb.ListMark_LIST_MARK_BEGIN:
		return whole.Replacing(ctx)
	case r.Mark == wirepb.ListMark_LIST_MARK_END:
		return whole.Replaced(ctx)
	}
	return &sdk.Error{Kind: sdk.Unsupported, Op: "register", Text: "a mark that is not known"}
}

func (t *transports) Dial(stream grpc.BidiStreamingServer[wirepb.DialStep, wirepb.DialQuestion]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	d := &dial{server: t.server, stream: stream}
	gone := make(chan struct{})
	failed := wire.FromError(d.run(first.GetRequest(), gone))
	err = stream.Send(&wirepb.DialQuestion{Done: &wirepb.Done{Error: failed}})
	if err != nil || failed != nil || !d.asks {
		return err
	}
	// The conn may have questions as long as it lives.
	select {
	case <-gone:
	case <-stream.Context().Done():
	}
	return nil
}
