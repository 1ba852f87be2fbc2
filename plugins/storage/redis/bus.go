package redis

import (
	"context"
	"encoding/binary"

	"github.com/redis/go-redis/v9"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

const busKey = "commucat:bus:"

// bus implements storage.Bus.
type bus store

var _ storage.Bus = (*bus)(nil)

// maxFrame bounds one publication; a single larger message goes alone.
const maxFrame = 256 << 10

// Publish implements storage.Bus. The messages of a call go together: each behind its
// length as a varint.
func (b *bus) Publish(ctx context.Context, node string, messages [][]byte) error {
	ctx, cancel := (*store)(b).within(ctx)
	defer cancel()
	for len(messages) > 0 {
		var frame []byte
		n := 0
		for n < len(messages) && (n == 0 || len(frame)+len(messages[n]) < maxFrame) {
			frame = binary.AppendUvarint(frame, uint64(len(messages[n])))
			frame = append(frame, messages[n]...)
			n++
		}
		if err := b.db.SPublish(ctx, (*store)(b).key(busKey, node), frame).Err(); err != nil {
			return plain("publish", err)
		}
		messages = messages[n:]
	}
	return nil
}

// Subscribe implements storage.Bus.
func (b *bus) Subscribe(ctx context.Context, self string, f func(message []byte)) error {
	sub := b.db.SSubscribe(ctx, (*store)(b).key(busKey, self))
	defer sub.Close()
	stop := context.AfterFunc(ctx, func() { _ = sub.Close() }) // wakes Receive
	defer stop()
	asked := false // for a sign of life
	for {
		got, err := sub.ReceiveTimeout(ctx, b.timeout)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case late(err) && !asked:
			// Silence may be a server that hangs, or one that is not the master any
			// more and keeps the connection.
			if err := sub.Ping(ctx); err != nil {
				return plain("subscribe", err)
			}
			asked = true
			continue
		case err != nil:
			return plain("subscribe", err)
		}
		asked = false
		switch m := got.(type) {
		case *redis.Message:
			if !split([]byte(m.Payload), f) {
				return &storage.Error{Kind: sdk.Corrupt, Op: "redis: subscribe", Text: "somebody else publishes on the bus"}
			}
		case *redis.Subscription:
			if m.Kind == "sunsubscribe" { // and the connection stands: nothing else would tell
				return &storage.Error{Kind: sdk.Unavailable, Op: "redis: subscribe", Text: "the channel has moved to another server of the cluster"}
			}
		}
	}
}

// split gives f each message of a frame and says whether the frame was whole.
func split(frame []byte, f func([]byte)) bool {
	for len(frame) > 0 {
		n, size := binary.Uvarint(frame)
		if size <= 0 || n > uint64(len(frame)-size) {
			return false
		}
		end := size + int(n)
		f(frame[size:end:end])
		frame = frame[end:]
	}
	return true
}
