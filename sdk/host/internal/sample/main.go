// Command sample is a transport plugin that uses everything there is to use.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/plugin"
	"github.com/commucat/commucat/sdk/transport"
)

// Config are the keys of both halves.
type Config struct {
	Listen string            `cfg:"listen" default:"127.0.0.1:0" doc:"TCP address to accept on"`
	Mode   string            `cfg:"mode" default:"bare" enum:"bare,attached,pumped" doc:"how streams are handed over"`
	Web    string            `cfg:"web" doc:"TCP address of the cover site"`
	Echo   string            `cfg:"echo" doc:"UDP address that echoes"`
	Size   sdk.Size          `cfg:"size" default:"4KiB" min:"1KiB" max:"1MiB" doc:"a size"`
	Wait   time.Duration     `cfg:"wait" default:"1s" doc:"a duration"`
	Many   []string          `cfg:"many" default:"a,b" max:"4" doc:"a list"`
	Table  Table             `cfg:"table" doc:"a table"`
	Rows   []Table           `cfg:"rows" doc:"tables"`
	Names  map[string]string `cfg:"names" doc:"a map"`
	File   sdk.File          `cfg:"file" doc:"a file"`
	Secret sdk.Secret        `cfg:"secret" doc:"a secret"`
}

// Check implements sdk.Checker.
func (c *Config) Check() error {
	if c.Echo == "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(c.Echo); err != nil {
		return &sdk.ConfigError{Key: "echo", Text: fmt.Sprintf("%q is no address", c.Echo)}
	}
	return nil
}

// Table is a table inside.
type Table struct {
	Number float64 `cfg:"number" default:"1.5" doc:"a number"`
	On     bool    `cfg:"on" doc:"a switch"`
	Count  uint16  `cfg:"count" required:"true" doc:"a count"`
}

func main() {
	plugin.Serve(transport.Define(transport.Descriptor{
		Name: "sample", Version: "1.2.3", Summary: "uses everything",
		Resistance: transport.Low, Throughput: transport.High, LowLatency: transport.Medium, HalfClose: true,
		Needs: []transport.Need{{Kind: transport.TCPPort}, {Kind: transport.Program, Value: "x"}},
	}, transport.Funcs[Config]{
		Listen: listen, Dial: dial, Probe: probe,
		Check: func(c Config) error {
			if strings.HasSuffix(c.Web, ":1") {
				return &sdk.ConfigError{Key: "web", Text: "nobody serves on port 1"}
			}
			return nil
		},
		NewKey: func() ([]byte, []byte, error) { return []byte("private"), []byte("public"), nil },
	}))
}

// probe answers what the configuration was.
func probe(_ context.Context, env sdk.Env, c Config) error {
	b, err := json.Marshal(map[string]any{
		"size": c.Size, "wait": c.Wait, "many": c.Many, "table": fmt.Sprint(c.Table), "rows": fmt.Sprint(c.Rows), "names": c.Names,
		"file": string(c.File.Bytes()), "path": c.File.Path(), "secret": c.Secret.Text(), "state": env.State(), "cover": env.Cover() != nil,
	})
	if err != nil {
		return err
	}
	return &sdk.Error{Kind: sdk.Denied, Op: "probe", Text: string(b)}
}

type listener struct {
	net.Listener
	mode string
	web  *http.Server
	udp  net.PacketConn

	mu     sync.Mutex
	guests []string
}

// Register implements transport.Registrar.
func (l *listener) Register(_ context.Context, guests []transport.Guest) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, g := range guests {
		if g.Public == nil {
			return &sdk.Error{Kind: sdk.Conflict, Text: "no key"}
		}
		l.guests = append(l.guests, fmt.Sprint(g.ID, " ", string(g.Public), " ", g.Expires.Format(time.RFC3339Nano)))
	}
	return nil
}

// Replacing implements transport.Replacer.
func (l *listener) Replacing(context.Context) error { return l.mark("from here") }

// Replaced implements transport.Replacer.
func (l *listener) Replaced(context.Context) error { return l.mark("to here") }

func (l *listener) mark(text string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.guests) == 0 {
		return &sdk.Error{Kind: sdk.Invalid, Text: "nobody came"}
	}
	l.guests = append(l.guests, text)
	return nil
}

func listen(ctx context.Context, env sdk.Env, c Config) (net.Listener, error) {
	ln, err := env.Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return nil, err
	}
	l := &listener{Listener: ln, mode: c.Mode}
	if c.Web != "" {
		if err := l.serve(ctx, env, c.Web); err != nil {
			return nil, err
		}
	}
	if c.Echo != "" {
		if l.udp, err = env.ListenPacket(ctx, "udp", c.Echo); err != nil {
			return nil, err
		}
		go echo(l.udp)
	}
	env.Log().Info("listening", "address", ln.Addr())
	env.Degraded(errors.New("still warming up"))
	time.AfterFunc(50*time.Millisecond, func() { env.Degraded(nil) })
	return l, nil
}

func (l *listener) serve(ctx context.Context, env sdk.Env, address string) error {
	ln, err := env.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	l.web = &http.Server{Handler: env.Cover(), Protocols: p}
	go func() { _ = l.web.Serve(ln) }()
	return nil
}

func echo(c net.PacketConn) {
	var b [1500]byte
	for {
		n, from, err := c.ReadFrom(b[:])
		if err != nil {
			return
		}
		_, _ = c.WriteTo(b[:n], from)
	}
}

// wrapped is a conn that is no bare socket.
type wrapped struct{ *net.TCPConn }

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	switch l.mode {
	case "attached":
		return transport.Attach(c, transport.Facts{
			Transport: "sample", Remote: netip.MustParseAddrPort("192.0.2.7:99"), Circuit: "circuit 5", Hidden: true, UserAgent: "agent",
		}), nil
	case "pumped":
		return wrapped{c.(*net.TCPConn)}, nil
	}
	return c, nil
}

func (l *listener) Close() error {
	if l.web != nil {
		l.web.Close()
	}
	if l.udp != nil {
		l.udp.Close()
	}
	return l.Listener.Close()
}

// Invite implements transport.Server.
func (l *listener) Invite(_ context.Context, host string, g transport.Guest) (transport.Endpoint, error) {
	if g.ID == "nobody" {
		return transport.Endpoint{}, &sdk.Error{Kind: sdk.NotFound, Text: "no such guest"}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if g.ID == "registered" {
		return transport.Endpoint{Params: map[string]string{"guests": strings.Join(l.guests, ",")}}, nil
	}
	return transport.Endpoint{Transport: "sample", Host: host, Port: 4242, Params: map[string]string{
		"guest": g.ID, "public": string(g.Public), "expires": g.Expires.Format(time.RFC3339Nano),
	}}, nil
}

// Revoke implements transport.Server.
func (l *listener) Revoke(_ context.Context, id string) error {
	if id == "denied" {
		return &sdk.Error{Kind: sdk.Denied, Text: "not this one"}
	}
	return nil
}

// dial asks everything it may ask and says what it heard.
func dial(ctx context.Context, _ sdk.Env, _ Config, to transport.Endpoint, with transport.Dial) (net.Conn, error) {
	if to.Host == "refused" {
		return nil, transport.ErrRefused
	}
	connect := with.DialTCP
	if connect == nil {
		connect = new(net.Dialer).DialContext
	}
	c, err := connect(ctx, "tcp", net.JoinHostPort(to.Host, fmt.Sprint(to.Port)))
	if err != nil {
		return nil, err
	}
	if with.ServerTime != nil {
		with.ServerTime(time.Unix(1_700_000_000, 0))
	}
	if with.Token == nil {
		return c, nil
	}
	said := []string{with.Token("GET", "/connect", ""), with.Token("POST", "/x", "up"), with.Fingerprint, string(with.Key), fmt.Sprint(with.Insecure), fmt.Sprint(len(with.Pins)), to.Params["p"]}
	for _, c := range with.RootCertificates {
		said = append(said, c.Subject.CommonName)
	}
	if with.Roots != nil {
		said = append(said, "roots")
	}
	if _, err := fmt.Fprintln(c, strings.Join(said, " ")); err != nil {
		return nil, err
	}
	return &asking{Conn: c, with: with}, nil
}

// asking is a conn that has another question with each write.
type asking struct {
	net.Conn
	with transport.Dial
}

func (a *asking) Write(p []byte) (int, error) {
	if _, err := fmt.Fprint(a.Conn, a.with.Token("POST", "/later", "")+" "); err != nil {
		return 0, err
	}
	return a.Conn.Write(p)
}
