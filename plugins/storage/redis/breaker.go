package redis

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// breaker stands before one server. A call that gets no answer in time closes the way
// for all others, which then fail at once, until the server answers a PING: a server
// that hangs costs those a wait that were under way, and nobody else. A server that is
// gone refuses at once by itself.
type breaker struct {
	db   *redis.Client
	kept *watched
	away atomic.Bool
}

// watched are the PINGs of all breakers of a store.
type watched struct {
	ctx     context.Context
	cancel  context.CancelFunc
	timeout time.Duration

	mu    sync.Mutex
	ended bool
	wg    sync.WaitGroup
}

func newWatched(timeout time.Duration) *watched {
	w := &watched{timeout: timeout}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w
}

// stop begins no more PINGs; wait returns when those that run have ended, which closing
// the connections hastens.
func (w *watched) stop() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.cancel()
}

func (w *watched) wait() { w.wg.Wait() }

func (w *watched) start(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.wg.Go(f)
	}
}

// guard puts a breaker before a server, of a cluster before each.
func (w *watched) guard(db redis.UniversalClient) {
	switch c := db.(type) {
	case *redis.Client:
		c.AddHook(&breaker{db: c, kept: w})
	case *redis.ClusterClient:
		c.OnNewNode(func(n *redis.Client) { n.AddHook(&breaker{db: n, kept: w}) })
	}
}

// errHangs is what calls get meanwhile.
var errHangs = &storage.Error{Kind: sdk.Unavailable, Text: "the server hangs; it is asked again until it answers"}

// probe marks the context of the breaker's own PING.
type probe struct{}

func (b *breaker) closed(ctx context.Context) bool {
	return b.away.Load() && ctx.Value(probe{}) == nil
}

// judge looks at a call's end. The caller's own haste counts as well: the PING, which
// has all its time, tells whether it was only that.
func (b *breaker) judge(err error) {
	if late(err) && b.away.CompareAndSwap(false, true) {
		b.kept.start(b.watch)
	}
}

func late(err error) bool {
	var n net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

// watch opens the way again.
func (b *breaker) watch() {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-b.kept.ctx.Done():
			return
		case <-pause.C:
		}
		ctx, cancel := context.WithTimeout(context.WithValue(b.kept.ctx, probe{}, true), b.kept.timeout)
		err := b.db.Ping(ctx).Err()
		cancel()
		if !late(err) {
			b.away.Store(false)
			return
		}
		pause.Reset(b.kept.timeout / 10)
	}
}

// DialHook implements redis.Hook.
func (b *breaker) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements redis.Hook.
func (b *breaker) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if b.closed(ctx) {
			cmd.SetErr(errHangs)
			return errHangs
		}
		err := next(ctx, cmd)
		if ctx.Value(probe{}) == nil {
			b.judge(err)
		}
		return err
	}
}

// ProcessPipelineHook implements redis.Hook.
func (b *breaker) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if b.closed(ctx) {
			for _, c := range cmds {
				c.SetErr(errHangs)
			}
			return errHangs
		}
		err := next(ctx, cmds)
		b.judge(err)
		return err
	}
}
