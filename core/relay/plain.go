package relay

import (
	"context"

	"github.com/commucat/commucat/sdk/ccp"
)

// handlePlain takes a relayed frame that is not in a Send: what old peers send
// (ccp1.md 6.1). It is relayed to the channel and acknowledged by its sequence.
func (l *Link) handlePlain(ctx context.Context, f ccp.Frame, io bool) error {
	rt, err := l.routeFor(ctx, f.Channel, nil, true, io)
	if err != nil {
		return err
	}
	body := f.Payload
	if f.Type != ccp.TypeMsg {
		if body, err = l.inspect(f.Channel, f.Type, body, rt); err != nil {
			return err
		}
	}
	now := l.h.now()
	l.counter++
	id := ccp.MessageID{Log: l.ownLog, Counter: l.counter}
	if f.Type.Media() || f.Type == ccp.TypeTyping {
		if err := l.broadcast(rt, f.Type, f.Channel, id, now, body); err != nil {
			return err
		}
		l.reply(f)
		return nil
	}
	m := message{kind: f.Type, channel: f.Channel, id: id, body: body, plain: true, seq: f.Sequence, extras: ackExtras(f.Type, body)}
	return l.launch(&m, rt, now)
}

// reply acknowledges a frame at once.
func (l *Link) reply(f ccp.Frame, extras ...ccp.Member) {
	l.box.Control(ccp.TypeAck, f.Channel, ccp.AppendReply(nil, f.Sequence, extras...))
}
