package relay

import (
	"context"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
)

// Messages between nodes:
//
//	1 | device                                a row was stored for the device
//	2 | flags u8 | channel u32 | len | device | Deliver   an ephemeral message
//
// They are best effort: a node that misses a wake reads the row when its link
// next reads, at the latest after renewal.
const (
	busWake      = 1
	busEphemeral = 2
)

// bus wakes devices at other nodes. With a store of one node it does nothing.
type bus struct {
	h   *Hub
	out chan []string // devices to wake
	eph chan ephemeralJob

	mu    sync.Mutex
	batch []string
}

type ephemeralJob struct {
	devices []string
	own     []bool
	env     envelope
}

func (b *bus) on() bool {
	return b.h.opt.Traits.Shared && b.h.opt.Store.Bus != nil && b.h.opt.Store.Routes != nil
}

// stored notes a row for a device that is not connected here.
func (b *bus) stored(device string) {
	if !b.on() {
		return
	}
	b.mu.Lock()
	b.batch = append(b.batch, device)
	b.mu.Unlock()
}

// flush hands the devices of one batch to the sender.
func (b *bus) flush(*lane) {
	if !b.on() {
		return
	}
	b.mu.Lock()
	batch := b.batch
	b.batch = nil
	b.mu.Unlock()
	if len(batch) == 0 {
		return
	}
	select {
	case b.out <- batch:
	default: // the other nodes read at their next renewal
	}
}

// ephemeral passes a message on to recipients that are connected elsewhere.
func (b *bus) ephemeral(rt *route, e *envelope) {
	if !b.on() {
		return
	}
	job := ephemeralJob{env: *e}
	job.env.body = append([]byte(nil), e.body...)
	for _, r := range rt.to {
		if b.h.link(r.device) == nil {
			job.devices = append(job.devices, r.device)
			job.own = append(job.own, r.own)
		}
	}
	if len(job.devices) == 0 {
		return
	}
	select {
	case b.eph <- job:
	default:
	}
}

func (b *bus) start(ctx context.Context, wg *sync.WaitGroup) {
	if !b.on() {
		return
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			err := b.h.opt.Store.Bus.Subscribe(ctx, b.h.opt.Node, b.receive)
			if ctx.Err() == nil {
				b.h.log.Warn("bus", "error", err)
				b.h.sleep(ctx, time.Second)
			}
		}
	})
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case devices := <-b.out:
				b.publish(ctx, devices, func(i int) []byte { return append([]byte{busWake}, devices[i]...) })
			case job := <-b.eph:
				b.publish(ctx, job.devices, func(i int) []byte { return job.message(i) })
			}
		}
	})
}

func (j *ephemeralJob) message(i int) []byte {
	m := []byte{busEphemeral, j.env.flags}
	if j.own[i] {
		m[1] |= FlagOwnCopy
	}
	m = append(m, byte(j.env.channel>>24), byte(j.env.channel>>16), byte(j.env.channel>>8), byte(j.env.channel))
	m = append(m, byte(len(j.devices[i])))
	m = append(m, j.devices[i]...)
	m, err := ccp.AppendDeliver(m, ccp.Deliver{
		Kind: j.env.kind, Flags: m[1], ID: j.env.id, Time: j.env.time,
		Device: []byte(j.env.device), User: []byte(j.env.user), Body: j.env.body,
	})
	if err != nil {
		return nil
	}
	return m
}

// publish sends one message per device to the node that serves it.
func (b *bus) publish(ctx context.Context, devices []string, message func(i int) []byte) {
	call, cancel := context.WithTimeout(ctx, upkeepCall)
	defer cancel()
	routes, err := b.h.opt.Store.Routes.Lookup(call, b.h.now(), devices)
	if err != nil || len(routes) != len(devices) {
		b.h.log.Warn("look up routes", "devices", len(devices), "error", err)
		return
	}
	nodes := map[string][][]byte{}
	for i, r := range routes {
		if r.Fence == 0 || r.Node == b.h.opt.Node {
			continue
		}
		if m := message(i); m != nil {
			nodes[r.Node] = append(nodes[r.Node], m)
		}
	}
	for node, messages := range nodes {
		if err := b.h.opt.Store.Bus.Publish(call, node, messages); err != nil {
			b.h.log.Warn("publish", "node", node, "error", err)
		}
	}
}

func (b *bus) receive(m []byte) {
	if len(m) < 2 {
		return
	}
	switch m[0] {
	case busWake:
		if l := b.h.link(string(m[1:])); l != nil {
			l.reread()
		}
	case busEphemeral:
		b.receiveEphemeral(m)
	}
}

func (b *bus) receiveEphemeral(m []byte) {
	if len(m) < 7 || len(m) < 7+int(m[6]) {
		return
	}
	l := b.h.link(string(m[7 : 7+int(m[6])]))
	if l == nil {
		return
	}
	var d ccp.Deliver
	if d.Parse(m[7+int(m[6]):]) != nil {
		return
	}
	channel := uint32(m[2])<<24 | uint32(m[3])<<16 | uint32(m[4])<<8 | uint32(m[5])
	l.ephemeral(&envelope{
		kind: d.Kind, flags: m[1], channel: channel, time: d.Time, id: d.ID,
		device: string(d.Device), user: string(d.User), body: d.Body,
	}, false)
}
