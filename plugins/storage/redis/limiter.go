package redis

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

const rateKey = "commucat:rate:"

// limiter implements storage.Limiter: a token bucket kept as one number, the
// theoretical arrival time of the generic cell rate algorithm (ITU-T I.371): the
// time at which the bucket will be full again.
type limiter store

var _ storage.Limiter = (*limiter)(nil)

// takeScript: KEYS bucket; ARGV now, cost of the tokens, time for a whole bucket, all
// in µs, and life in ms. A clock that was set back waits for a full bucket at most.
var takeScript = redis.NewScript(`
local now, cost, per = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local full = tonumber(redis.call('GET', KEYS[1]) or '0')
full = math.min(math.max(full, now), now + per)
local after = full + cost
if after - now > per then return string.format('%.0f', after - now - per) end
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', ARGV[4])
return '0'`)

// Take implements storage.Limiter.
func (l *limiter) Take(ctx context.Context, now time.Time, key string, r storage.Rate, n uint32) (time.Duration, error) {
	if r.Burst == 0 || r.Per <= 0 || n > r.Burst {
		return 0, &storage.Error{Kind: sdk.Invalid, Text: fmt.Sprintf("%d tokens of a bucket of %d in %v", n, r.Burst, r.Per)}
	}
	ctx, cancel := (*store)(l).within(ctx)
	defer cancel()
	now = (*store)(l).clock.server(now)
	cost := int64(float64(r.Per.Microseconds()) * float64(n) / float64(r.Burst))
	answers, err := (*store)(l).each(ctx, takeScript, []call{{(*store)(l).key(rateKey, key), []any{
		now.UnixMicro(), cost, r.Per.Microseconds(), life(r.Per).Milliseconds(),
	}}})
	if err != nil {
		return 0, plain("take", err)
	}
	wait, err := answers[0].Int64()
	return time.Duration(wait) * time.Microsecond, plain("take", err)
}
