package reality

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// Name is the transport's name in configuration files, links and lists.
const Name = "reality"

// Plugin is the transport.
func Plugin() sdk.Plugin {
	now := time.Now
	return transport.Define(transport.Descriptor{
		Name: Name, Version: "1.0.0",
		Summary:    "TLS whose port is a real web site to everybody without a key",
		Resistance: transport.High, Throughput: transport.High, LowLatency: transport.High,
		Needs: []transport.Need{
			{Kind: transport.TCPPort}, {Kind: transport.Outbound}, {Kind: transport.StateFolder}, {Kind: transport.CoverSite},
		},
		HalfClose: true,
	}, transport.Funcs[Config]{
		Listen: func(ctx context.Context, env sdk.Env, c Config) (net.Listener, error) {
			s, err := listen(ctx, env, c, now, net.DefaultResolver.LookupNetIP)
			if err != nil {
				return nil, err
			}
			return s, nil
		},
		Check: func(c Config) error {
			_, err := newSettings(c, unkept)
			return err
		},
		Dial: func(ctx context.Context, env sdk.Env, c Config, to transport.Endpoint, with transport.Dial) (net.Conn, error) {
			conn, err := (&dialer{now: now, env: env}).dial(ctx, to, with)
			if err != nil {
				return nil, err
			}
			return conn, nil
		},
		NewKey: newKey,
		Probe: func(ctx context.Context, env sdk.Env, c Config) error {
			verdict, err := Judge(ctx, env, c)
			if err != nil {
				return err
			}
			for _, f := range verdict.Findings {
				if f.Weight == Risk {
					env.Log().Warn("cover", slog.String("finding", f.String()))
				}
			}
			if c.Force {
				return nil
			}
			return verdict.Err()
		},
	})
}

// newKey draws a device's short id. Who shows it is let in, so both halves are the same.
func newKey() (private, public []byte, err error) {
	id, err := drawShortID(rand.Reader)
	return id[:], id[:], err
}

// Judge looks at the configured cover as the transport will. The error is for a
// configuration that cannot be used or a cover that does not answer; a cover that
// answers has a Verdict, also an unfit one.
func Judge(ctx context.Context, env sdk.Env, c Config) (Verdict, error) {
	set, err := newSettings(c, unkept) // keys have no part in it
	if err != nil {
		return Verdict{}, err
	}
	cover, err := newCover(set, env, net.DefaultResolver.LookupNetIP)
	if err != nil {
		return Verdict{}, err
	}
	defer cover.close()
	if at, err := net.ResolveTCPAddr("tcp", c.Listen); err == nil {
		if err := checkLoop(ctx, cover, at); err != nil {
			return Verdict{}, err
		}
	}
	verdict, _, err := assess(ctx, cover, set.ServerNames, set.roots, time.Now)
	return verdict, err
}
