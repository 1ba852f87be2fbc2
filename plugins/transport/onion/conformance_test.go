package onion

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/transport/onion/tornet"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/host"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/transport"
)

// TestConformance runs the suite over a Tor network of its own, in process and as a
// binary. Each of its cases starts a tor for each half, which takes minutes in all;
// TestOnion runs the binary's cases of a transport over the same two tors.
func TestConformance(t *testing.T) {
	if os.Getenv("COMMUCAT_SOAK") == "" {
		t.Skip("set COMMUCAT_SOAK=1: each case starts two tors")
	}
	dir, err := os.MkdirTemp("", "tornet-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	n, err := tornet.Start(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	o := conformance(n)
	o.Package, o.Clients, o.Buffered = process, 20, 64<<20
	plugintest.Plugin(t, Plugin(), o)
}

const process = "github.com/commucat/commucat/cmd/commucat-transport-onion"

// conformance are the options of the suite in a network.
func conformance(n *tornet.Network) plugintest.PluginOptions {
	var lines []any
	for _, l := range n.Torrc() {
		lines = append(lines, l)
	}
	return plugintest.PluginOptions{Probes: true, Server: func(testing.TB) map[string]any {
		return map[string]any{"torrc": lines, "stall": "15s", "circuit_streams": 4096}
	}}
}

// few are the cases of the suite that need few tors, with both halves in processes of
// their own: the transport's over one tor a half, and one client that has two more.
func few(t *testing.T, n *tornet.Network) {
	o := conformance(n)
	o.Clients, o.Buffered, o.Once = 20, 64<<20, true
	o.Skip = []string{"junk", "half handshakes", "probe", "listener handed over", "revoked", "registered", "process"}
	file := plugintest.Build(t, process)
	start := func(t testing.TB) *host.Process { return plugintest.Start(t, file, host.Options{}) }
	plugintest.ProcessCases(plugintest.Wrap(t), start, Name, o)

	p, env := start(t), plugintest.NewLender(t)
	open := func(p sdk.Plugin, env sdk.Env) transport.Opened {
		opened, err := transport.Open(t.Context(), p, env, o.Server(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = opened.Close() })
		return opened
	}
	server, client := open(p.Plugins()[0], env), open(start(t).Plugins()[0], nil)
	ln, err := server.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	to, err := ln.(transport.Server).Invite(t.Context(), "relay.example", transport.Guest{ID: "friend"})
	if err != nil {
		t.Fatal(err)
	}
	go echo(ln)
	for until := time.Now().Add(patience); server.Probe(t.Context()) != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal(server.Probe(t.Context()))
		}
	}
	// Without the guest's key tor cannot read where the service is, though the token is right.
	stranger := to
	stranger.Params = map[string]string{paramToken: to.Params[paramToken]}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if c, err := client.Dial(ctx, stranger, transport.Dial{}); err == nil {
		c.Close()
		t.Error("a stranger reached the service")
	}
	if err := talk(dialWith(t, client, to), "from one process to another"); err != nil {
		t.Error(err)
	}
	if s := p.Stats(); s.Sockets != 1 || s.Pumped != 0 {
		t.Errorf("the relay has not tor's socket itself: %+v", s)
	}
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
	if server.Probe(t.Context()) == nil {
		t.Error("no complaint while nothing listens")
	}
}
