package redis

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

const presenceKey = "presence:"

// presence implements storage.Presence.
type presence store

// beat is the reference's form.
type beat struct {
	Entity  string          `json:"entity"`
	State   string          `json:"state"`
	Expires time.Time       `json:"expires_at"`
	User    json.RawMessage `json:"user"`
}

// Announce implements storage.Presence.
func (p *presence) Announce(ctx context.Context, now time.Time, beats []storage.Beat) error {
	now = (*store)(p).clock.server(now)
	values := make([][]byte, len(beats))
	for i := range beats {
		b := &beats[i]
		if err := storage.CheckBeat(b); err != nil {
			return err
		}
		user := json.RawMessage("null")
		if len(b.User) > 0 {
			user = b.User
		}
		var err error
		if values[i], err = json.Marshal(beat{b.Device, b.State, now.Add(b.TTL).UTC(), user}); err != nil {
			return &storage.Error{Kind: sdk.Invalid, Text: "the presence profile is not JSON"}
		}
	}
	ctx, cancel := (*store)(p).within(ctx)
	defer cancel()
	_, err := p.db.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, b := range beats {
			pipe.Set(ctx, (*store)(p).key(presenceKey, b.Device), values[i], max(b.TTL, time.Second))
		}
		return nil
	})
	return plain("announce", err)
}

// Beats implements storage.Presence.
func (p *presence) Beats(ctx context.Context, now time.Time, devices []string) ([]storage.Beat, error) {
	ctx, cancel := (*store)(p).within(ctx)
	defer cancel()
	now = (*store)(p).clock.server(now)
	answers := make([]*redis.StringCmd, len(devices))
	_, err := p.db.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, d := range devices {
			answers[i] = pipe.Get(ctx, (*store)(p).key(presenceKey, d))
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, plain("beats", err)
	}
	out := make([]storage.Beat, len(devices))
	for i, a := range answers {
		out[i].Device = devices[i]
		text, err := a.Bytes()
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil {
			return nil, plain("beats", err)
		}
		var b beat
		if json.Unmarshal(text, &b) != nil || !now.Before(b.Expires) {
			continue // another program's value, or over
		}
		out[i].State, out[i].TTL = b.State, b.Expires.Sub(now)
		if string(b.User) != "null" {
			out[i].User = b.User
		}
	}
	return out, nil
}
