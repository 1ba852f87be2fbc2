package pt

import (
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/transport/pt/managed"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/host"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/transport"
)

// BenchmarkEcho is the round trip of 100 bytes through obfs4, both programs running all
// the time: with a bare echo behind the server's program, and with the relay's side in
// between, that is a plugin process which has handed its socket on. They take turns of
// turn round trips, so that what else the machine does meets both alike, and there are
// several of each, since each pair of programs has luck of its own with the scheduler.
// ns/op is the mean of all; the medians stand beside it.
func BenchmarkEcho(b *testing.B) {
	const turn, each = 32, 4
	ways := []struct {
		unit  string
		open  func(*testing.B) net.Conn
		conns []net.Conn
		took  []time.Duration
	}{{unit: "alone-ns/trip", open: programsAlone}, {unit: "relay-ns/trip", open: throughProcess}}
	for range each {
		for i := range ways {
			ways[i].conns = append(ways[i].conns, ways[i].open(b))
		}
	}
	p := make([]byte, 100)
	for i := 0; b.Loop(); i++ {
		n := i / turn
		way := &ways[n%len(ways)]
		c := way.conns[n/len(ways)%each]
		began := time.Now()
		if _, err := c.Write(p); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, p); err != nil {
			b.Fatal(err)
		}
		way.took = append(way.took, time.Since(began))
	}
	var medians []float64
	for _, way := range ways {
		if len(way.took) == 0 {
			return
		}
		slices.Sort(way.took)
		medians = append(medians, float64(way.took[len(way.took)/2]))
		b.ReportMetric(medians[len(medians)-1], way.unit)
	}
	b.ReportMetric(medians[1]/medians[0], "relay/alone")
}

func echoOne(c net.Conn) {
	_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	c.Close()
}

func programsAlone(b *testing.B) net.Conn {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ln.Close() })
	path := filepath.Join(b.TempDir(), "cookie")
	cookie, err := managed.NewCookie(path)
	if err != nil {
		b.Fatal(err)
	}
	command, err := new(Config).find("obfs4", true)
	if err != nil {
		b.Fatal(err)
	}
	at := netip.MustParseAddrPort(ln.Addr().String())
	side := func(o managed.Options) *managed.Process {
		o.Command, o.State, o.Method = command, b.TempDir(), "obfs4"
		p, err := managed.Start(b.Context(), o)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(p.Stop)
		return p
	}
	server := side(managed.Options{Server: &managed.Server{Bind: netip.MustParseAddrPort("127.0.0.1:0"), ORPort: at, Extended: at, Cookie: path}})
	client := side(managed.Options{})
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		if _, err := managed.AcceptExtOR(c, cookie); err == nil {
			echoOne(c)
		}
	}()
	c, err := net.Dial("tcp", client.Method().Addr.String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	if err := managed.Connect(b.Context(), c, server.Method().Addr.String(), server.Method().Args); err != nil {
		b.Fatal(err)
	}
	return c
}

func throughProcess(b *testing.B) net.Conn {
	p := plugintest.Start(b, plugintest.Build(b, "github.com/commucat/commucat/cmd/commucat-transport-pt"), host.Options{})
	o, err := transport.Open(b.Context(), p.Plugins()[0], plugintest.NewLender(b), map[string]any{"listen": "127.0.0.1:0"})
	if err != nil {
		b.Fatal(err)
	}
	ln, err := o.Listen(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ln.Close() })
	to, err := ln.(transport.Server).Invite(b.Context(), "127.0.0.1", transport.Guest{})
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		if c, err := ln.Accept(); err == nil {
			echoOne(c)
		}
	}()
	client, err := transport.Open(b.Context(), Plugin(), sdk.NewEnv(sdk.EnvOptions{}), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = client.Close() })
	c, err := client.Dial(b.Context(), to, transport.Dial{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}
