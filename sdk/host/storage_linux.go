package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
	"github.com/commucat/commucat/sdk/storage"
)

// remoteStorage stands for a storage in the other process.
type remoteStorage struct{ remote }

var _ storage.Opener = (*remoteStorage)(nil)

// Traits implements storage.Opener.
func (r *remoteStorage) Traits() storage.Traits {
	t := r.d.Storage
	return storage.Traits{Batch: t.Batch, Lanes: t.Lanes, Shared: t.Shared, Source: t.Source}
}

// Open implements storage.Opener.
func (r *remoteStorage) Open(ctx context.Context, env sdk.Env, raw map[string]any) (storage.Store, error) {
	id, reply, err := r.open(ctx, env, raw)
	if err != nil {
		return storage.Store{}, err
	}
	return newStore(r.p, id, r.Traits().Lanes, reply.Parts), nil
}

// store is an opened storage of the other process. Each lane has a stream, so that
// its batches take effect in the order sent; what reads, what writes seldom and what
// may be forgotten have one each, so that none waits for another.
type store struct {
	p        *Process
	id       uint64
	call     wirepb.StorageClient
	lanes    []*wire.Caller
	reads    *wire.Caller
	writes   *wire.Caller
	volatile *wire.Caller
	closed   atomic.Bool
	once     sync.Once
	err      error // of close
}

func newStore(p *Process, id uint64, lanes int, parts *wirepb.Parts) storage.Store {
	s := &store{p: p, id: id, call: wirepb.NewStorageClient(p.conn)}
	for range lanes {
		s.lanes = append(s.lanes, s.caller(wirepb.Role_ROLE_LANE))
	}
	s.reads, s.writes, s.volatile = s.caller(wirepb.Role_ROLE_READS), s.caller(wirepb.Role_ROLE_WRITES), s.caller(wirepb.Role_ROLE_VOLATILE)
	out := storage.Store{Close: s.close}
	if parts.GetQueues() {
		out.Queues = queues{s}
	}
	if parts.GetDirectory() {
		out.Directory = directory{s}
	}
	if parts.GetInventory() {
		out.Inventory = inventory{s}
	}
	if parts.GetPositions() {
		out.Positions = positions{s}
	}
	if parts.GetSnapshots() {
		out.Snapshots = snapshots{s}
	}
	if parts.GetRoutes() {
		out.Routes = routes{s}
	}
	if parts.GetPresence() {
		out.Presence = presence{s}
	}
	if parts.GetCache() {
		out.Cache = cache{s}
	}
	if parts.GetLimiter() {
		out.Limiter = limiter{s}
	}
	if parts.GetBus() {
		out.Bus = bus{s}
	}
	if parts.GetReady() {
		out.Ready = s.ready
	}
	return out
}

func (s *store) caller(role wirepb.Role) *wire.Caller {
	return &wire.Caller{
		Begin: &wirepb.Begin{Instance: s.id, Role: role},
		Open: func(ctx context.Context) (grpc.BidiStreamingClient[wirepb.StorageRequest, wirepb.StorageReply], error) {
			return s.call.Work(ctx, grpc.MaxCallRecvMsgSize(wire.MaxMessage))
		},
		Gone: s.p.callError,
	}
}

// check answers what can be said without asking.
func (s *store) check(ctx context.Context) error {
	if s.closed.Load() {
		return storage.ErrClosed
	}
	return ctx.Err()
}

// close closes the store; what waits ends with sdk.Closed.
func (s *store) close(ctx context.Context) error {
	s.once.Do(func() {
		s.closed.Store(true)
		for _, c := range append(s.lanes, s.reads, s.writes, s.volatile) {
			c.Close()
		}
		s.err = s.p.shut(ctx, s.id)
	})
	return s.err
}

func (s *store) ready(ctx context.Context) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	r, err := s.call.Ready(ctx, &wirepb.Instance{Instance: s.id})
	if err != nil {
		return s.p.callError(ctx, err)
	}
	return wire.ToError(r.Error)
}

// one makes a call of one request.
func one(now time.Time, r *wirepb.StorageRequest) []*wirepb.StorageRequest {
	if !now.IsZero() {
		r.Now = wire.FromTime(now)
	}
	return []*wirepb.StorageRequest{r}
}

// nothing is the answer of calls without one.
func nothing(*wirepb.StorageReply) error { return nil }

// numbers collects an answer of n numbers.
func (s *store) numbers(ctx context.Context, c *wire.Caller, n int, requests []*wirepb.StorageRequest) ([]uint64, error) {
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	out := make([]uint64, 0, n)
	err := c.Call(ctx, requests, func(r *wirepb.StorageReply) error {
		out = append(out, r.GetNumbers().GetNumbers()...)
		return nil
	})
	if err == nil && len(out) != n {
		err = odd(n, len(out))
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// odd is an answer with another number of values than were asked for.
func odd(want, got int) error {
	return &sdk.Error{Kind: sdk.Corrupt, Text: fmt.Sprintf("the plugin gave %d answers, want %d", got, want)}
}

// values collects an answer of n byte strings.
func (s *store) values(ctx context.Context, c *wire.Caller, n int, requests []*wirepb.StorageRequest) ([][]byte, error) {
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	out := make([][]byte, 0, n)
	err := c.Call(ctx, requests, func(r *wirepb.StorageReply) error {
		out = wire.ToValues(out, r.GetValues())
		return nil
	})
	if err == nil && len(out) != n {
		err = odd(n, len(out))
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// do makes a call without an answer.
func (s *store) do(ctx context.Context, c *wire.Caller, requests []*wirepb.StorageRequest) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	return c.Call(ctx, requests, nothing)
}

// bus is storage.Bus in the other process.
type bus struct{ *store }

func (b bus) Publish(ctx context.Context, node string, messages [][]byte) error {
	var parts []*wirepb.StorageRequest
	size := 0
	var m *wirepb.BusMessages
	for _, one := range messages {
		if m == nil || size+len(one) > wire.PartBytes {
			m, size = &wirepb.BusMessages{Node: []byte(node)}, 0
			parts = append(parts, &wirepb.StorageRequest{Call: &wirepb.StorageRequest_Publish{Publish: m}})
		}
		if len(one) > storage.MaxPayload {
			return tooLong("message")
		}
		m.Messages = append(m.Messages, one)
		size += len(one)
	}
	if parts == nil {
		return b.check(ctx)
	}
	return b.do(ctx, b.volatile, parts)
}

func (b bus) Subscribe(ctx context.Context, self string, f func(message []byte)) error {
	if err := b.check(ctx); err != nil {
		return err
	}
	in, err := b.call.Subscribe(ctx, &wirepb.SubscribeRequest{Instance: b.id, Node: []byte(self)}, grpc.MaxCallRecvMsgSize(wire.MaxMessage))
	if err != nil {
		return b.p.callError(ctx, err)
	}
	for {
		m, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return storage.ErrClosed
		}
		if err != nil {
			return b.p.callError(ctx, err)
		}
		for _, one := range m.Messages {
			f(one)
		}
	}
}

func tooLong(what string) error {
	return &sdk.Error{Kind: sdk.Invalid, Text: "the " + what + " is too long for a plugin in another process"}
}
