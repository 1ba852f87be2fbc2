package redis

import (
	"context"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/commucat/commucat/sdk/storage"
)

const routeKey = "commucat:route:"

// routes implements storage.Routes. Numbers of fences fit the 53 bits of a Lua number
// for some 280,000 years.
type routes store

// claimScript: KEYS route; ARGV node, session, unix ms now, end in ms, life in ms.
var claimScript = redis.NewScript(`
local last = tonumber(redis.call('HGET', KEYS[1], 'fence') or '-1')
local fence = math.max(last + 1, tonumber(ARGV[3]))
local text = string.format('%.0f', fence)
redis.call('HSET', KEYS[1], 'node', ARGV[1], 'session', ARGV[2], 'fence', text, 'end', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return text`)

// renewScript: KEYS route; ARGV node, session, fence, end in ms, life in ms, release.
// A newer fence, or the same one of another session, keeps the route; a server that
// has forgotten takes the number back. A released route has no session and keeps its
// number.
var renewScript = redis.NewScript(`
local held = redis.call('HMGET', KEYS[1], 'fence', 'session', 'node')
local fence = tonumber(ARGV[3])
if held[1] then
	local have = tonumber(held[1])
	if have > fence or have == fence and held[2] ~= ARGV[2] then return 0 end
end
local node, session = ARGV[1], ARGV[2]
if node == '' and held[3] then node = held[3] end
if ARGV[6] == '1' then session = '' end
redis.call('HSET', KEYS[1], 'node', node, 'session', session, 'fence', ARGV[3], 'end', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1`)

func (r *routes) key(device string) string { return (*store)(r).key(routeKey, device) }

// Claim implements storage.Routes.
func (r *routes) Claim(ctx context.Context, now time.Time, c []storage.Claim) ([]uint64, error) {
	ctx, cancel := (*store)(r).within(ctx)
	defer cancel()
	now = (*store)(r).clock.server(now)
	calls := make([]call, len(c))
	for i, c := range c {
		calls[i] = call{r.key(c.Device), []any{
			c.Node, c.Session, max(now.UnixMilli(), 0), now.Add(c.TTL).UnixMilli(), life(c.TTL).Milliseconds(),
		}}
	}
	answers, err := (*store)(r).each(ctx, claimScript, calls)
	if err != nil {
		return nil, plain("claim", err)
	}
	out := make([]uint64, len(c))
	for i, a := range answers {
		if out[i], err = a.Uint64(); err != nil {
			return nil, plain("claim", err)
		}
	}
	return out, nil
}

// Renew implements storage.Routes.
func (r *routes) Renew(ctx context.Context, now time.Time, renewals []storage.Renewal) ([]bool, error) {
	ctx, cancel := (*store)(r).within(ctx)
	defer cancel()
	now = (*store)(r).clock.server(now)
	calls := make([]call, len(renewals))
	for i, n := range renewals {
		release := "0"
		if n.TTL <= 0 {
			release = "1"
		}
		calls[i] = call{r.key(n.Device), []any{
			n.Node, n.Session, strconv.FormatUint(n.Fence, 10), now.Add(max(n.TTL, 0)).UnixMilli(), life(n.TTL).Milliseconds(), release,
		}}
	}
	answers, err := (*store)(r).each(ctx, renewScript, calls)
	if err != nil {
		return nil, plain("renew", err)
	}
	out := make([]bool, len(renewals))
	for i, a := range answers {
		if out[i], err = a.Bool(); err != nil {
			return nil, plain("renew", err)
		}
	}
	return out, nil
}

// Lookup implements storage.Routes.
func (r *routes) Lookup(ctx context.Context, now time.Time, devices []string) ([]storage.Route, error) {
	ctx, cancel := (*store)(r).within(ctx)
	defer cancel()
	now = (*store)(r).clock.server(now)
	out := make([]storage.Route, len(devices))
	answers := make([]*redis.SliceCmd, len(devices))
	_, err := r.db.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, d := range devices {
			answers[i] = p.HMGet(ctx, r.key(d), "session", "node", "fence", "end")
		}
		return nil
	})
	if err != nil {
		return nil, plain("lookup", err)
	}
	for i, a := range answers {
		out[i] = routeOf(devices[i], now, a.Val())
	}
	return out, nil
}

// routeOf reads a hash; a route that is released or over has no fence.
func routeOf(device string, now time.Time, v []any) storage.Route {
	r := storage.Route{Device: device}
	var text [4]string
	for i := range text {
		if i < len(v) {
			text[i], _ = v[i].(string)
		}
	}
	end, err := strconv.ParseInt(text[3], 10, 64)
	if text[0] == "" || err != nil || now.UnixMilli() >= end {
		return r
	}
	fence, err := strconv.ParseUint(text[2], 10, 64)
	if err != nil {
		return r
	}
	r.Session, r.Node, r.Fence = text[0], text[1], fence
	return r
}
