package plugintest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/host"
	"github.com/commucat/commucat/sdk/transport"
)

// PluginOptions say how the halves of a transport plugin are joined on this machine.
// Every field may be zero.
type PluginOptions struct {
	// Package is the command that serves the plugin ("./cmd/x" or an import path);
	// "" leaves the process out.
	Package string
	// Server and Client make the configuration of each half, once for an opening;
	// without Client it is the server's.
	Server, Client func(t testing.TB) map[string]any
	// Endpoint says how a client reaches the listener. Without it, it is what
	// transport.Server answers, or 127.0.0.1 and the port of the listener's address.
	Endpoint func(t testing.TB, ln net.Listener) transport.Endpoint
	// Dial is what the dialling half gets; its Key is drawn where it has keys.
	Dial func(t testing.TB) transport.Dial
	// Cover is lent to the server half.
	Cover http.Handler
	// Clients is how many are connected at once; 0 is 1,000. With the race detector it
	// is a fifth.
	Clients int
	// Buffered is as TransportPair.Buffered.
	Buffered int
	// Once runs the cases of Transport over one server and one client, where each takes
	// long to start.
	Once bool
	// Probes says that Probe must fail while nothing listens.
	Probes bool
	// Skip names cases that are left out, as they are named in the test's output.
	Skip []string
}

// Plugin runs every conformance case of a transport plugin in this process, and again
// in processes of its own where o.Package is set: description and configuration, the
// cases of Transport, junk and half handshakes, probing, listeners handed over to a
// second instance, and for processes draining, killing and starting again.
func Plugin(t *testing.T, p sdk.Plugin, o PluginOptions) {
	PluginCases(Wrap(t), p, o)
}

// PluginCases is Plugin for any T.
func PluginCases(t T, p sdk.Plugin, o PluginOptions) {
	t.Run("in process", func(t T) {
		(&pluginKit{o: o, half: func(testing.TB) (sdk.Plugin, *host.Process) { return p, nil }}).run(t)
	})
	if o.Package == "" {
		return
	}
	t.Run("binary", func(t T) {
		file := Build(t, o.Package)
		ProcessCases(t, func(t testing.TB) *host.Process { return Start(t, file, host.Options{}) }, p.Name(), o)
		t.Run("same description", func(t T) {
			there := find(t, Start(t, file, host.Options{}), p.Name())
			if d := cmp.Diff(transport.DescriptorOf(p), transport.DescriptorOf(there)); d != "" {
				t.Errorf("the descriptor differs:\n%s", d)
			}
			compareFields(t, "", sdk.Fields(p.Config()), sdk.Fields(there.Config()))
		})
	})
}

// ProcessCases runs the cases against processes alone; start starts one until the end
// of the test that it is given.
func ProcessCases(t T, start func(testing.TB) *host.Process, name string, o PluginOptions) {
	k := &pluginKit{o: o, half: func(t testing.TB) (sdk.Plugin, *host.Process) {
		p := start(t)
		return find(t, p, name), p
	}}
	k.run(t)
	if k.skips("process") {
		return
	}
	for _, c := range []pluginCase{
		{"drain", processDrain},
		{"killed", processKilled},
		{"started again", processAgain},
		{"what it keeps", processKeeps},
	} {
		k.one(t, c)
	}
}

func find(t testing.TB, p *host.Process, name string) sdk.Plugin {
	t.Helper()
	all := p.Plugins()
	n := slices.IndexFunc(all, func(p sdk.Plugin) bool { return p.Name() == name })
	if n < 0 {
		t.Fatalf("the binary has no plugin %q", name)
	}
	return all[n]
}

// compareFields compares what two configurations take. A type that the plugin named
// itself is a text for others.
func compareFields(t testing.TB, at string, here, there []sdk.Field) {
	t.Helper()
	if len(here) != len(there) {
		t.Errorf("%s: %d keys here, %d there", at, len(here), len(there))
		return
	}
	for i, h := range here {
		o := there[i]
		if h.Name != o.Name || h.Default != o.Default || h.Doc != o.Doc || h.Min != o.Min || h.Max != o.Max || h.Required != o.Required || !slices.Equal(h.Enum, o.Enum) {
			t.Errorf("%s.%s differs: %+v and %+v", at, h.Name, h, o)
		}
		compareFields(t, at+"."+h.Name, h.Fields, o.Fields)
	}
}

type pluginCase struct {
	name string
	run  func(T, *pluginKit)
}

// pluginKit makes halves of one plugin.
type pluginKit struct {
	o PluginOptions
	// half gives the plugin, in a process of its own or in this one (nil).
	half func(testing.TB) (sdk.Plugin, *host.Process)
}

func (k *pluginKit) skips(name string) bool { return slices.Contains(k.o.Skip, name) }

func (k *pluginKit) one(t T, c pluginCase) {
	t.Run(c.name, func(t T) {
		if k.skips(c.name) {
			t.Skip("left out")
		}
		c.run(t, k)
	})
}

func (k *pluginKit) run(t T) {
	for _, c := range []pluginCase{
		{"description", pluginDescription},
		{"unknown key", pluginUnknownKey},
		{"transport", pluginTransport},
		{"junk", pluginJunk},
		{"half handshakes", pluginHeld},
		{"probe", pluginProbe},
		{"listener handed over", pluginHandOver},
		{"revoked", pluginRevoked},
		{"registered", pluginRegistered},
		{"replaced", pluginReplaced},
	} {
		k.one(t, c)
	}
}

// config makes a configuration of a half.
func (k *pluginKit) config(t testing.TB, client bool) map[string]any {
	of := k.o.Server
	if client && k.o.Client != nil {
		of = k.o.Client
	}
	if of == nil {
		return map[string]any{}
	}
	return maps.Clone(of(t))
}

func (k *pluginKit) lender(t testing.TB) *Lender {
	l := NewLender(t)
	l.Site = k.o.Cover
	return l
}

func (k *pluginKit) open(t testing.TB, p sdk.Plugin, env sdk.Env, client bool) transport.Opened {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	o, err := transport.Open(ctx, p, env, k.config(t, client))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return o
}

func listen(t testing.TB, o transport.Opened) net.Listener {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ln, err := o.Listen(ctx)
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// warm waits until a transport does not report any more why it is not offered to clients
// yet, as the relay does.
func warm(t testing.TB, env *Lender) {
	t.Helper()
	for until := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		_, reason := env.Health()
		if reason == nil {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("after %v it is still degraded: %v", patience, reason)
		}
	}
}

// serve accepts until the listener ends. In this process handshakes are finished
// beside, as the relay does it.
func serve(ln net.Listener, inProcess bool, accept func(net.Conn)) {
	if inProcess {
		ln = transport.Handshakes(ln)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				accept(c)
				c.Close()
			}()
		}
	}()
}

// guest is a client that has been let in.
type guest struct {
	id   string
	to   transport.Endpoint
	with transport.Dial
	half transport.Opened
}

func (g *guest) dial(ctx context.Context) (net.Conn, error) { return g.half.Dial(ctx, g.to, g.with) }

// invite lets a client in that dials with half.
func (k *pluginKit) invite(t testing.TB, ln net.Listener, half transport.Opened, id string) *guest {
	t.Helper()
	g := &guest{id: id, half: half}
	if k.o.Dial != nil {
		g.with = k.o.Dial(t)
	}
	var public []byte
	if m, ok := half.(transport.KeyMaker); ok && g.with.Key == nil {
		private, p, err := m.NewKey()
		if err == nil {
			g.with.Key, public = private, p
		} else if !errors.Is(err, sdk.Unsupported) {
			t.Fatalf("new key: %v", err)
		}
	}
	if k.o.Endpoint != nil {
		g.to = k.o.Endpoint(t, ln)
		return g
	}
	if s, ok := ln.(transport.Server); ok {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		var err error
		g.to, err = s.Invite(ctx, "127.0.0.1", transport.Guest{ID: id, Public: public, Expires: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatalf("invite: %v", err)
		}
		return g
	}
	at := transport.AddrPort(ln.Addr())
	if !at.IsValid() {
		t.Fatalf("the listener's address %v has no port: say in PluginOptions.Endpoint how it is reached", ln.Addr())
	}
	g.to = transport.Endpoint{Host: "127.0.0.1", Port: at.Port()}
	return g
}

// joinedHalves are a server that accepts and a client that was let in.
type joinedHalves struct {
	server *host.Process // nil in process
	client *host.Process
	opened transport.Opened
	ln     net.Listener
	guest  *guest
}

func (k *pluginKit) join(t testing.TB, env *Lender, accept func(net.Conn)) joinedHalves {
	t.Helper()
	var j joinedHalves
	var p sdk.Plugin
	p, j.server = k.half(t)
	j.opened = k.open(t, p, env, false)
	j.ln = listen(t, j.opened)
	serve(j.ln, j.server == nil, accept)
	warm(t, env)
	p, j.client = k.half(t)
	j.guest = k.invite(t, j.ln, k.open(t, p, nil, true), "conformance")
	return j
}

// pluginTransport runs the cases of Transport on two processes that all of them share.
func pluginTransport(t T, k *pluginKit) {
	server, process := k.half(t)
	client, _ := k.half(t)
	clients := k.o.Clients
	if clients == 0 {
		clients = 1000
	}
	start := func(t testing.TB, accept func(net.Conn)) func(context.Context) (net.Conn, error) {
		env := k.lender(t)
		ln := listen(t, k.open(t, server, env, false))
		serve(ln, process == nil, accept)
		warm(t, env)
		return k.invite(t, ln, k.open(t, client, nil, true), "conformance").dial
	}
	if k.o.Once {
		var now accepter
		dial := start(t, now.accept)
		start = func(_ testing.TB, accept func(net.Conn)) func(context.Context) (net.Conn, error) {
			now.Store(&accept)
			return dial
		}
	}
	TransportCases(t, TransportPair{
		Name: server.Name(), Buffered: k.o.Buffered, Clients: clients, loose: true, whole: !transport.DescriptorOf(server).HalfClose,
		Start: start,
	})
}

// accepter is what the case that runs now does with a session.
type accepter struct{ atomic.Pointer[func(net.Conn)] }

func (a *accepter) accept(c net.Conn) {
	if f := a.Load(); f != nil {
		(*f)(c)
	}
}

// files counts the descriptors of a process, -1 where the system does not say.
func files(pid int) int {
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return -1
	}
	return len(names)
}
