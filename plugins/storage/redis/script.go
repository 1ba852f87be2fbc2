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
// cluster), in order. A server that has forgotten the script is given it again.
func (s *store) each(ctx context.Context, script *redis.Script, calls []call) ([]*redis.Cmd, error) {
	out := make([]*redis.Cmd, len(calls))
	run := func(places []int) error {
		_, err := s.db.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, i := range places {
				out[i] = script.EvalSha(ctx, p, []string{calls[i].key}, calls[i].args...)
			}
			return nil
		})
		return err
	}
	all := make([]int, len(calls))
	for i := range all {
		all[i] = i
	}
	err := run(all)
	var missing []int
	for i, c := range out {
		if e := c.Err(); e != nil && strings.HasPrefix(e.Error(), "NOSCRIPT") {
			missing = append(missing, i)
		}
	}
	if len(missing) == 0 {
		return out, err
	}
	if err := s.load(ctx, script); err != nil {
		return out, err
	}
	if err := run(missing); err != nil {
		return out, err
	}
	for _, c := range out {
		if c.Err() != nil {
			return out, c.Err()
		}
	}
	return out, nil
}

// load gives a script to the server, to every master of a cluster.
func (s *store) load(ctx context.Context, script *redis.Script) error {
	if c, ok := s.db.(*redis.ClusterClient); ok {
		return c.ForEachMaster(ctx, func(ctx context.Context, m *redis.Client) error { return script.Load(ctx, m).Err() })
	}
	return script.Load(ctx, s.db).Err()
}
