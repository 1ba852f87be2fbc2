package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
	"github.com/commucat/commucat/sdk/ledger"
	"github.com/commucat/commucat/sdk/storage"
	"github.com/commucat/commucat/sdk/transport"
)

// control serves what all kinds have.
type control struct {
	wirepb.UnimplementedControlServer
	*server
}

func (c *control) Describe(context.Context, *wirepb.DescribeRequest) (*wirepb.DescribeReply, error) {
	b, err := json.Marshal(wire.Describe(c.plugins, c.protocols))
	return &wirepb.DescribeReply{Document: b}, err
}

func (c *control) Open(ctx context.Context, r *wirepb.OpenRequest) (*wirepb.OpenReply, error) {
	reply := &wirepb.OpenReply{}
	if err := c.open(ctx, r, reply); err != nil {
		reply.Error = wire.FromError(err)
	}
	return reply, nil
}

func (c *control) open(ctx context.Context, r *wirepb.OpenRequest, reply *wirepb.OpenReply) error {
	n := slices.IndexFunc(c.plugins, func(p sdk.Plugin) bool { return p.Name() == r.Plugin })
	if n < 0 {
		return &sdk.Error{Kind: sdk.NotFound, Text: fmt.Sprintf("this binary has no plugin %q", r.Plugin)}
	}
	p := c.plugins[n]
	if !slices.Contains(c.protocols(p.Kind()), r.Protocol) {
		_, err := wire.Choose(p.Name(), []uint32{r.Protocol}, c.protocols(p.Kind()))
		return err
	}
	raw, err := wire.ToTable(r.Config)
	if err != nil {
		return err
	}
	if r.Check {
		return check(p, raw)
	}
	e := &env{server: c.server, instance: r.Instance, state: string(r.State), log: newLog(c.stderr, p.Name(), slog.Level(r.LogLevel))}
	if r.Cover {
		e.cover = wire.NewCoverClient(e.dialCover)
	}
	i := &instance{id: r.Instance, plugin: p, env: e, listeners: map[uint64]*listener{}}
	switch p.Kind() {
	case sdk.Transport:
		if i.transport, err = transport.Open(ctx, p, e, raw); err == nil {
			_, reply.Keys = i.transport.(transport.KeyMaker)
		}
	case sdk.Storage:
		var store storage.Store
		if store, err = storage.Open(ctx, p, e, raw); err == nil {
			i.store, reply.Parts = &store, partsOf(&store)
		}
	case sdk.Ledger:
		i.ledger, err = ledger.Open(ctx, p, e, raw)
	default:
		err = &sdk.Error{Kind: sdk.Unsupported, Text: "this kind of plugin cannot be opened"}
	}
	if err != nil {
		e.close()
		return err
	}
	c.mu.Lock()
	_, taken := c.instances[r.Instance]
	if !taken {
		c.instances[r.Instance] = i
	}
	c.mu.Unlock()
	if taken {
		_ = i.close(ctx)
		return &sdk.Error{Kind: sdk.Conflict, Text: "the instance is there already"}
	}
	return nil
}

// check says what is wrong with a configuration, without opening anything.
func check(p sdk.Plugin, raw map[string]any) error {
	if o, ok := p.(transport.ServerChecker); ok {
		return o.CheckServer(raw)
	}
	return sdk.Decode(raw, nil, p.Config())
}

func (c *control) Close(ctx context.Context, r *wirepb.Instance) (*wirepb.Done, error) {
	c.mu.Lock()
	i, ok := c.instances[r.Instance]
	delete(c.instances, r.Instance)
	c.mu.Unlock()
	if !ok {
		return &wirepb.Done{}, nil
	}
	if r.LimitNanoseconds > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(r.LimitNanoseconds))
		defer cancel()
	}
	return &wirepb.Done{Error: wire.FromError(i.close(ctx))}, nil
}

func (c *control) Ping(context.Context, *wirepb.PingRequest) (*wirepb.PingReply, error) {
	return &wirepb.PingReply{Streams: uint64(c.pumps.Open())}, nil
}

func (c *control) Drain(ctx context.Context, _ *wirepb.DrainRequest) (*wirepb.DrainReply, error) {
	c.drain(ctx)
	err := c.pumps.Wait(ctx)
	return &wirepb.DrainReply{Streams: uint64(c.pumps.Open())}, err
}

func (c *control) Events(_ *wirepb.EventsRequest, out grpc.ServerStreamingServer[wirepb.Event]) error {
	told := map[uint64]uint64{} // instance to version
	for {
		now, changed := c.health.all()
		for id := range told {
			if _, ok := now[id]; !ok {
				delete(told, id)
			}
		}
		for id, e := range now {
			if told[id] == e.Version {
				continue
			}
			if err := out.Send(e); err != nil {
				return err
			}
			told[id] = e.Version
		}
		select {
		case <-changed:
		case <-out.Context().Done():
			return nil
		}
	}
}

// health is the last report of each instance that has reported.
type health struct {
	mu      sync.Mutex
	changed chan struct{}
	reports map[uint64]*wirepb.Event // never changed, only replaced
}

func (h *health) set(id uint64, reason error) {
	text := ""
	if reason != nil {
		if text = transport.Shorten(reason.Error(), 1024); text == "" {
			text = "degraded"
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.reports[id]
	if old.GetDegraded() == text {
		return
	}
	h.reports[id] = &wirepb.Event{Instance: id, Degraded: text, Version: old.GetVersion() + 1}
	h.wake()
}

func (h *health) get(id uint64) *wirepb.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reports[id]
}

func (h *health) forget(id uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.reports, id)
	h.wake()
}

func (h *health) wake() {
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *health) all() (map[uint64]*wirepb.Event, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.reports), h.changed
}
