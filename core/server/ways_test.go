package server

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/core/config"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/link"
)

func TestFittingWays(t *testing.T) {
	at := func(name string, params int) link.Endpoint {
		return link.Endpoint{Transport: name, Host: "relay.example", Port: 444, Params: strings.Repeat("p", params)}
	}
	many := make([]link.Endpoint, ccp.MaxEndpoints+1)
	for i := range many {
		many[i] = at("obfs4", 100)
	}
	large := make([]link.Endpoint, ccp.MaxEndpoints)
	for i := range large {
		large[i] = at("obfs4", ccp.MaxParams)
	}
	for name, x := range map[string]struct {
		all  []link.Endpoint
		want []ccp.Endpoint
	}{
		"none":         {},
		"keyed is out": {[]link.Endpoint{at("obfs4", 9), at("onion", 9), at("webtunnel", 9)}, []ccp.Endpoint{at("obfs4", 9), at("webtunnel", 9)}},
		"too many":     {many, many[:ccp.MaxEndpoints]},
		"too large":    {large, large[:7]},
	} {
		if d := cmp.Diff(x.want, fitting(x.all, []string{"onion"})); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// Devices are told of what the transports said last, once it is allowed, and the transports are
// asked beside.
func TestKnownWays(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s := &Server{log: slog.New(slog.DiscardHandler), cfg: &config.Config{}, opt: Options{Clock: func() time.Time { return now }}}
	s.ways.keyless, s.ways.keyed, s.ways.asked = []ccp.Endpoint{{Transport: "obfs4"}}, []string{"onion"}, now
	s.ways.announce(false)
	if keyless, keyed := s.knownWays(); keyless != nil || keyed != nil {
		t.Error("told, though it is not to be:", keyless, keyed)
	}
	s.ways.announce(true)
	keyless, keyed := s.knownWays()
	if len(keyless) != 1 || len(keyed) != 1 || s.ways.asking {
		t.Error(keyless, keyed)
	}
	s.ways.outdated()
	s.askWays(s.ways.changes - 1) // there was a change meanwhile: it is asked again
	if s.ways.keyed != nil || !s.ways.asked.IsZero() {
		t.Error(s.ways.keyed, s.ways.asked)
	}
	if s.askWays(s.ways.changes); !s.ways.asked.Equal(now) {
		t.Error(s.ways.asked)
	}
}
