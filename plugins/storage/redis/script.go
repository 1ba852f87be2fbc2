package redis

import (
	"context"
	"strings"

	"github.com/redis/go-redis/v9"
)

// call is one run of a script on one key.
type call struct {
	key  string
	args []any
}

// each runs a script for every call in one round trip (one for each node of a
// cluster), in order. A server that has forgotten the script gets its text with the calls
// that it could not run, and no other server is asked for that.
func (s *store) each(ctx context.Context, script *redis.Script, calls []call) ([]*redis.Cmd, error) {
	out := make([]*redis.Cmd, len(calls))
	run := func(places []int, eval func(context.Context, redis.Scripter, []string, ...any) *redis.Cmd) error {
		_, err := s.db.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, i := range places {
				out[i] = eval(ctx, p, []string{calls[i].key}, calls[i].args...)
			}
			return nil
		})
		return err
	}
	all := make([]int, len(calls))
	for i := range all {
		all[i] = i
	}
	err := run(all, script.EvalSha)
	var missing []int
	for i, c := range out {
		if e := c.Err(); e != nil && strings.HasPrefix(e.Error(), "NOSCRIPT") {
			missing = append(missing, i)
		}
	}
	if len(missing) == 0 {
		return out, err
	}
	if err := run(missing, script.Eval); err != nil {
		return out, err
	}
	for _, c := range out {
		if c.Err() != nil {
			return out, c.Err()
		}
	}
	return out, nil
}
