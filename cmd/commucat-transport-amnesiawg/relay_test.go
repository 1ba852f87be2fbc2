package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/commucat/commucat/core/api"
	"github.com/commucat/commucat/core/config"
	"github.com/commucat/commucat/core/pluginhost"
	"github.com/commucat/commucat/core/pluginhost/sandbox"
	"github.com/commucat/commucat/core/server"
	"github.com/commucat/commucat/plugins/ledger/null"
	"github.com/commucat/commucat/plugins/storage/memory"
	"github.com/commucat/commucat/plugins/storage/sqlite"
	"github.com/commucat/commucat/plugins/transport/amnesiawg"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/client"
	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/cover"
	"github.com/commucat/commucat/transports/http2"
)

// patience is for what a slow machine may take.
const patience = 40 * time.Second

// TestMain is the plugin where a relay starts this binary as one.
func TestMain(m *testing.M) {
	if os.Getenv("COMMUCAT_PLUGIN") != "" {
		main()
	}
	os.Exit(m.Run())
}

// relay is a whole relay of this process, with the transport in a process of its own
// and http2 beside it.
type relay struct {
	api  *api.Client
	data string
}

func newRelay(t *testing.T) *relay {
	t.Helper()
	if k := sandbox.Probe(); !k.Complete() {
		t.Skipf("this kernel has no %s", k.Missing())
	}
	// Short, for sockets, and open to the plugin's user.
	dir, err := os.MkdirTemp("", "aw-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	folder, data := filepath.Join(dir, "plugins"), filepath.Join(dir, "data")
	for _, d := range []string{dir, folder} {
		if err := errors.Join(os.MkdirAll(d, 0o755), os.Chmod(d, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(folder, "commucat-transport-amnesiawg")
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	catalog := pluginhost.NewCatalog(folder)
	if _, err := pluginhost.Add(t.Context(), program, pluginhost.AddOptions{
		Describe: pluginhost.New(pluginhost.Options{Catalog: catalog}).Describe,
	}); err != nil {
		t.Fatal(err)
	}
	env := config.Env{Plugins: []config.Known{
		{Plugin: sqlite.Plugin(), Kind: sdk.Storage, Name: "sqlite"}, {Plugin: memory.Plugin(), Kind: sdk.Storage, Name: "memory"},
		{Plugin: null.Plugin, Kind: sdk.Ledger, Name: "null"},
		{Kind: sdk.Transport, Name: http2.Name}, {Plugin: amnesiawg.Plugin(), Kind: sdk.Transport, Name: amnesiawg.Name, UDP: true},
	}}
	cfg, err := config.Parse("test.toml", []byte(`[server]
listen = ["127.0.0.1:0"]
drain = "1s"
[limits]
handshake_rate = 60000
handshake_burst = 1000
[storage]
backend = "sqlite"
[ledger]
backends = ["null"]
[transport.amnesiawg]
listen = "127.0.0.1:0"
[plugin.amnesiawg]
memory = "1GiB"
`), env)
	if err != nil {
		t.Fatal(err)
	}
	notes := new(notes)
	s, err := server.New(t.Context(), server.Options{
		Config: cfg, Environment: env, Data: data, Plugins: []sdk.Plugin{sqlite.Plugin(), memory.Plugin(), null.Plugin}, BuiltIn: []string{http2.Name},
		Catalog: catalog, Log: slog.New(slog.NewTextHandler(notes, nil)),
		Webs: func(o server.WebOptions) []transport.Web {
			return []transport.Web{http2.New(http2.Options{Path: o.Path, Cookie: o.Cookie, Verify: o.Verify, Cover: o.Cover})}
		},
		Cover: func(o server.CoverOptions) (http.Handler, error) {
			return cover.New(cover.Options{Cookie: o.Cookie, Domain: o.Domain, Log: o.Log})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(run) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the relay's log:\n%s", notes)
		}
	})
	return &relay{api.NewClient(strings.TrimPrefix(s.Ready().Admin, "unix:")), data}
}

// notes is a log that may be read while it is written.
type notes struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (n *notes) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.buf.Write(b)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.buf.String()
}

// invite makes an invitation that names the transport.
func (r *relay) invite(t *testing.T) (l link.Link, id string) {
	t.Helper()
	until(t, "the transport is in links", func() bool {
		made, err := r.api.CreateLink(t.Context(), api.LinkRequest{Kind: api.InviteLink, Quota: 4})
		if err != nil {
			t.Fatal(err)
		}
		if l, err = link.Parse(made.Text); err != nil {
			t.Fatal(err)
		}
		id = made.ID
		for _, e := range l.Endpoints {
			if e.Transport == amnesiawg.Name {
				return true
			}
		}
		return false
	})
	return l, id
}

// process is the plugin's process.
func (r *relay) process(t *testing.T) (pid int, running bool) {
	t.Helper()
	answer, err := r.api.Plugins(t.Context())
	if err != nil || len(answer.Items) != 1 {
		t.Fatalf("%v, %v", answer, err)
	}
	var s pluginhost.State
	if err := json.Unmarshal(answer.Items[0], &s); err != nil {
		t.Fatal(err)
	}
	return s.PID, s.State == pluginhost.Running
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// device is a client of a relay.
type device struct {
	*client.Client
	events chan client.Event
	got    chan string
}

// owns waits until the relay knows the device's own key for the transport, and gives
// the key and where it is good.
func (d *device) owns(t *testing.T) (private []byte, at transport.Endpoint) {
	t.Helper()
	until(t, "the relay knows the device's own key", func() bool {
		p := d.Profile()
		for _, e := range p.Relay.Endpoints {
			if e.Transport == amnesiawg.Name && e.Own && len(p.Keys) == 1 && !p.Keys[0].Confirmed.IsZero() {
				private = p.Keys[0].Private
				at = transport.Endpoint{Transport: e.Transport, Host: e.Host, Port: e.Port, Params: e.Params}
				return true
			}
		}
		return false
	})
	// The event comes a moment before there is something to be disconnected.
	if _, err := d.Connected(t.Context()); err != nil {
		t.Fatal(err)
	}
	return private, at
}

// newDevice makes a device that comes by the dialers given, in this order.
func newDevice(t *testing.T, l link.Link, ds ...transport.Dialer) *device {
	t.Helper()
	return newDeviceBy(t, l, nil, ds...)
}

// newDeviceBy is newDevice with a carrier of its own.
func newDeviceBy(t *testing.T, l link.Link, tcp func(ctx context.Context, network, address string) (net.Conn, error), ds ...transport.Dialer) *device {
	t.Helper()
	p, err := client.NewProfile(l, "d"+strings.ToLower(rand.Text()[:10]), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	d := &device{events: make(chan client.Event, 1000), got: make(chan string, 1000)}
	d.Client, err = client.New(client.Options{
		Profile: p, Store: client.NewMemoryStore([8]byte([]byte(rand.Text()))), Dialers: ds, DialTCP: tcp,
		OnEvent: func(e client.Event) { d.events <- e },
		Handle:  func(m client.Message) error { d.got <- string(m.Body); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = d.Run(run) }() // what it cannot do shows in its events
	t.Cleanup(func() {
		stop()
		<-ended
		_ = d.Close()
	})
	return d
}

// event waits for an event by its name.
func (d *device) event(t *testing.T, name string) client.Event {
	t.Helper()
	limit := time.After(patience)
	var others []string
	for {
		select {
		case e := <-d.events:
			if e.Name == name {
				return e
			}
			others = append(others, fmt.Sprint(e.Name, " ", e.Err))
		case <-limit:
			t.Fatalf("no event %q, but %q", name, others)
		}
	}
}

// says sends a text to another device and waits until it is there.
func (d *device) says(t *testing.T, to *device, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ticket, err := d.Send(client.Draft{To: []string{to.Profile().Handle}, Body: []byte(text)})
	if err == nil {
		_, err = ticket.Wait(ctx)
	}
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	select {
	case got := <-to.got:
		if got != text {
			t.Errorf("%q, want %q", got, text)
		}
	case <-ctx.Done():
		t.Fatalf("%q did not arrive", text)
	}
}

// dialer is the transport's client half; change alters the endpoints that it is given.
func dialer(t *testing.T, raw map[string]any, change func(*transport.Endpoint)) transport.Dialer {
	t.Helper()
	o, err := transport.Open(t.Context(), amnesiawg.Plugin(), nil, raw)
	if err != nil {
		t.Fatal(err)
	}
	return changed{transport.NewDialer(amnesiawg.Name, o), change}
}

type changed struct {
	transport.Dialer
	change func(*transport.Endpoint)
}

// NewKey implements transport.KeyMaker.
func (c changed) NewKey() (private, public []byte, err error) {
	return c.Dialer.(transport.KeyMaker).NewKey()
}

func (c changed) Dial(ctx context.Context, to transport.Endpoint, with transport.Dial) (net.Conn, error) {
	if c.change != nil {
		params := map[string]string{}
		for k, v := range to.Params {
			params[k] = v
		}
		to.Params = params
		c.change(&to)
	}
	return c.Dialer.Dial(ctx, to, with)
}
