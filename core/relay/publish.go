package relay

import (
	"context"

	"github.com/commucat/commucat/sdk/storage"
)

// wakeBytes bounds one message of wakes.
const wakeBytes = 16 << 10

// publish sends what waits. What could not be sent waits for the next tick.
func (b *bus) publish(ctx context.Context) {
	b.mu.Lock()
	wakes, everyone, notices, tick := b.wakes, b.everyone, b.notices, b.tick
	b.wakes, b.everyone, b.notices, b.tick = map[string]struct{}{}, false, nil, false
	b.mu.Unlock()
	if tick {
		b.publishTicks(ctx)
	}
	if everyone {
		if m, err := b.seal(busWake, nil); err == nil && b.send(ctx, everyNode, [][]byte{m}) != nil {
			b.mu.Lock()
			b.everyone = true
			b.mu.Unlock()
		}
	}
	if len(notices) > 0 && b.send(ctx, everyNode, notices) != nil {
		b.mu.Lock()
		later := b.notices
		b.notices = nil
		for _, m := range append(notices, later...) {
			b.addNotice(m)
		}
		b.mu.Unlock()
	}
	if len(wakes) > 0 {
		b.publishWakes(ctx, wakes)
	}
}

func (b *bus) send(ctx context.Context, topic string, messages [][]byte) error {
	call, cancel := context.WithTimeout(ctx, busCall)
	defer cancel()
	err := b.h.opt.Store.Bus.Publish(call, topic, messages)
	if err != nil && !b.down() {
		b.h.log.Warn("publish", "messages", len(messages), "error", err)
	}
	return err
}

func (b *bus) publishTicks(ctx context.Context) {
	m, err := b.seal(busTick, b.run[:])
	if err != nil {
		return
	}
	for _, topic := range b.topics() {
		if b.send(ctx, topic, [][]byte{m}) != nil {
			return
		}
	}
}

// publishWakes tells each device's node of it, and all nodes of devices whose node
// is not known: the volatile store may have forgotten.
func (b *bus) publishWakes(ctx context.Context, wakes map[string]struct{}) {
	devices := make([]string, 0, len(wakes))
	for d := range wakes {
		devices = append(devices, d)
	}
	routes, err := b.lookup(ctx, devices)
	if err != nil {
		b.again(devices)
		return
	}
	nodes := map[string][]string{}
	for i, r := range routes {
		switch {
		case r.Fence == 0 || r.Node == "":
			nodes[everyNode] = append(nodes[everyNode], devices[i])
		case r.Node != b.h.opt.Node:
			nodes[r.Node] = append(nodes[r.Node], devices[i])
		default:
			// It has come here since, or has left a moment ago.
			if l := b.h.link(devices[i]); l != nil {
				l.reread()
			}
		}
	}
	for node, list := range nodes {
		messages, err := b.wakeMessages(list)
		if err == nil {
			err = b.send(ctx, node, messages)
		}
		if err != nil {
			b.again(list)
		}
	}
}

func (b *bus) wakeMessages(devices []string) (out [][]byte, err error) {
	var body []byte
	for i, d := range devices {
		body = appendName(body, d)
		if len(body) < wakeBytes && i < len(devices)-1 {
			continue
		}
		m, err := b.seal(busWake, body)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
		body = body[:0]
	}
	return out, nil
}

// again puts back what could not be sent.
func (b *bus) again(devices []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range devices {
		b.addWake(d)
	}
}

func (b *bus) lookup(ctx context.Context, devices []string) ([]storage.Route, error) {
	call, cancel := context.WithTimeout(ctx, busCall)
	defer cancel()
	routes, err := b.h.opt.Store.Routes.Lookup(call, b.h.now(), devices)
	if err == nil && len(routes) != len(devices) {
		err = errBusSilent
	}
	if err != nil && !b.down() {
		b.h.log.Warn("look up routes", "devices", len(devices), "error", err)
	}
	return routes, err
}

// publishEphemeral sends a message that is not stored to where its recipients are.
func (b *bus) publishEphemeral(ctx context.Context, j *ephemeralJob) {
	if b.down() {
		return // it would be stale by then
	}
	routes, err := b.lookup(ctx, j.devices)
	if err != nil {
		return
	}
	nodes := map[string][][]byte{}
	for i, r := range routes {
		if r.Fence == 0 || r.Node == "" || r.Node == b.h.opt.Node {
			continue
		}
		m, err := b.seal(busEphemeral, j.body(i))
		if err != nil {
			return
		}
		nodes[r.Node] = append(nodes[r.Node], m)
	}
	for node, messages := range nodes {
		_ = b.send(ctx, node, messages) // best effort, and reported there
	}
}
