package plugin

import (
	"context"
	"sync"

	"google.golang.org/grpc"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
	"github.com/commucat/commucat/sdk/storage"
)

const (
	// ahead is how many calls of a lane may wait behind the one that runs.
	ahead = 8
	// beside is how many calls of any other stream run at once.
	beside = 32
)

// storages serves storages.
type storages struct {
	wirepb.UnimplementedStorageServer
	*server
}

func (s *storages) opened(id uint64) (*storage.Store, error) {
	i, err := s.find(id)
	if err == nil && i.store == nil {
		err = &sdk.Error{Kind: sdk.Invalid, Text: "the plugin is no storage"}
	}
	if err != nil {
		return nil, err
	}
	return i.store, nil
}

// partsOf says what a store offers.
func partsOf(s *storage.Store) *wirepb.Parts {
	return &wirepb.Parts{
		Queues: s.Queues != nil, Directory: s.Directory != nil, Routes: s.Routes != nil, Presence: s.Presence != nil,
		Cache: s.Cache != nil, Limiter: s.Limiter != nil, Bus: s.Bus != nil, Ready: s.Ready != nil,
		Inventory: s.Inventory != nil, Snapshots: s.Snapshots != nil,
		Positions: s.Positions != nil,
	}
}

func (s *storages) Ready(ctx context.Context, r *wirepb.Instance) (*wirepb.Done, error) {
	store, err := s.opened(r.Instance)
	if err == nil && store.Ready != nil {
		err = store.Ready(ctx)
	}
	return &wirepb.Done{Error: wire.FromError(err)}, nil
}

func (s *storages) Subscribe(r *wirepb.SubscribeRequest, out grpc.ServerStreamingServer[wirepb.BusMessages]) error {
	store, err := s.opened(r.Instance)
	if err != nil {
		return err
	}
	if store.Bus == nil {
		return &sdk.Error{Kind: sdk.Unsupported, Text: "the store has no bus"}
	}
	// The first message says that the subscription is being made.
	if err := out.Send(&wirepb.BusMessages{}); err != nil {
		return err
	}
	return store.Bus.Subscribe(out.Context(), string(r.Node), func(m []byte) {
		_ = out.Send(&wirepb.BusMessages{Messages: [][]byte{m}}) // fails with the context
	})
}

// worker serves one Work stream.
type worker struct {
	store  *storage.Store
	stream grpc.BidiStreamingServer[wirepb.StorageRequest, wirepb.StorageReply]
	lane   bool

	sending sync.Mutex

	mu    sync.Mutex
	calls map[uint64]*call
}

// call is one call: its requests so far, then itself.
type call struct {
	id     uint64
	parts  []*wirepb.StorageRequest
	ctx    context.Context
	cancel context.CancelFunc
}

func (s *storages) Work(stream grpc.BidiStreamingServer[wirepb.StorageRequest, wirepb.StorageReply]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	store, err := s.opened(first.GetBegin().GetInstance())
	if err != nil {
		return err
	}
	w := &worker{store: store, stream: stream, lane: first.Begin.Role == wirepb.Role_ROLE_LANE, calls: map[uint64]*call{}}
	return w.run()
}

// run takes calls until the stream ends, and returns when none runs any more.
func (w *worker) run() error {
	var group sync.WaitGroup
	ready := make(chan *call, ahead)
	slots := make(chan struct{}, beside)
	group.Go(func() {
		for c := range ready {
			if w.lane {
				w.do(c)
				continue
			}
			slots <- struct{}{}
			group.Go(func() {
				w.do(c)
				<-slots
			})
		}
	})
	defer group.Wait()
	defer close(ready)
	for {
		r, err := w.stream.Recv()
		if err != nil {
			return err
		}
		if c := w.gather(r); c != nil {
			ready <- c
		}
	}
}

// gather puts a request to its call and gives the call when it is complete.
func (w *worker) gather(r *wirepb.StorageRequest) *call {
	w.mu.Lock()
	defer w.mu.Unlock()
	c, ok := w.calls[r.Id]
	if r.Cancel {
		if ok {
			c.cancel()
			if c.parts[len(c.parts)-1].More { // the rest will not come
				delete(w.calls, r.Id)
			}
		}
		return nil
	}
	if !ok {
		c = &call{id: r.Id}
		c.ctx, c.cancel = context.WithCancel(w.stream.Context())
		w.calls[r.Id] = c
	}
	if c.parts = append(c.parts, r); r.More {
		return nil
	}
	return c
}

// do runs a call and answers it.
func (w *worker) do(c *call) {
	var err error
	if err = c.ctx.Err(); err == nil {
		err = w.answer(c)
	}
	w.mu.Lock()
	delete(w.calls, c.id)
	w.mu.Unlock()
	c.cancel()
	if err != nil {
		w.reply(c, &wirepb.StorageReply{Error: wire.FromError(err)}, false)
	}
}

// reply sends one reply of a call.
func (w *worker) reply(c *call, r *wirepb.StorageReply, more bool) {
	r.Id, r.More = c.id, more
	w.sending.Lock()
	defer w.sending.Unlock()
	_ = w.stream.Send(r) // the stream's end ends everything
}

// answer runs a call; it has replied if the answer is nil.
func (w *worker) answer(c *call) error {
	switch c.parts[0].Call.(type) {
	case *wirepb.StorageRequest_Append, *wirepb.StorageRequest_Read, *wirepb.StorageRequest_Done, *wirepb.StorageRequest_Depths,
		*wirepb.StorageRequest_Marks, *wirepb.StorageRequest_Drop, *wirepb.StorageRequest_Purge:
		if w.store.Queues == nil {
			return errNotOffered
		}
		return w.queues(c)
	case *wirepb.StorageRequest_Get, *wirepb.StorageRequest_List, *wirepb.StorageRequest_Commit, *wirepb.StorageRequest_PurgeRecords:
		if w.store.Directory == nil {
			return errNotOffered
		}
		return w.directory(c)
	case *wirepb.StorageRequest_Inventory:
		if w.store.Inventory == nil {
			return errNotOffered
		}
		return w.inventory(c)
	case *wirepb.StorageRequest_Positions:
		if w.store.Positions == nil {
			return errNotOffered
		}
		return w.positions(c)
	case *wirepb.StorageRequest_Snapshot:
		if w.store.Snapshots == nil {
			return errNotOffered
		}
		return w.snapshot(c)
	}
	return w.volatile(c)
}

var errNotOffered = &sdk.Error{Kind: sdk.Unsupported, Text: "the store does not offer this"}
