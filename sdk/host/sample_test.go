package host_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/host"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/transport"
)

const sample = "github.com/commucat/commucat/sdk/host/internal/sample"

// sampled starts the sample and opens it.
func sampled(t *testing.T, env sdk.Env, raw map[string]any) (*host.Process, transport.Opened) {
	t.Helper()
	p := plugintest.Start(t, plugintest.Build(t, sample), host.Options{})
	if raw == nil {
		raw = map[string]any{}
	}
	if raw["table"] == nil {
		raw["table"] = map[string]any{"count": 1}
	}
	o, err := transport.Open(t.Context(), p.Plugins()[0], env, raw)
	if err != nil {
		t.Fatal(err)
	}
	return p, o
}

func listening(t *testing.T, o transport.Opened) net.Listener {
	t.Helper()
	ln, err := o.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// connected connects to a listener and gives both ends.
func connected(t *testing.T, ln net.Listener) (client, server net.Conn) {
	t.Helper()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return client, server
}

func TestDescriptionOfSample(t *testing.T) {
	p := plugintest.Start(t, plugintest.Build(t, sample), host.Options{})
	one := p.Plugins()[0]
	want := transport.Descriptor{
		Name: "sample", Version: "1.2.3", Summary: "uses everything",
		Resistance: transport.Low, Throughput: transport.High, LowLatency: transport.Medium, HalfClose: true, DeviceKeys: true,
		Needs: []transport.Need{{Kind: transport.TCPPort}, {Kind: transport.Program, Value: "x"}},
	}
	if d := cmp.Diff(want, transport.DescriptorOf(one)); d != "" {
		t.Error(d)
	}
	var names []string
	for _, f := range sdk.Fields(one.Config()) {
		names = append(names, f.Name+" "+f.Type)
	}
	if d := cmp.Diff([]string{
		"listen text", "mode text", "web text", "echo text", "size size", "wait duration", "many list of text", "table table",
		"rows list of tables", "names map of text", "file file", "secret secret",
	}, names); d != "" {
		t.Error(d)
	}
	d := p.Description()
	if len(d.Plugins) != 1 || d.Plugins[0].Needs[1].Value != "x" || d.Build.Go == "" || p.PID() == 0 {
		t.Errorf("%+v", d)
	}
}

// Every kind of value arrives as it was, with references resolved on this side.
func TestConfiguration(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	if err := os.WriteFile(name, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := plugintest.NewLender(t)
	_, o := sampled(t, env, map[string]any{
		"size": "64KiB", "wait": sdk.Located{Value: "3s"}, "many": []any{"x", sdk.Located{Value: "y"}}, "file": name,
		"secret": "file:" + name, "names": map[string]any{"k": "v"},
		"table": map[string]any{"number": 2, "on": true, "count": int64(9)}, "rows": []map[string]any{{"count": 3}},
	})
	err := o.Probe(t.Context())
	want := fmt.Sprintf(`probe: {"cover":false,"file":"content","many":["x","y"],"names":{"k":"v"},"path":%q,"rows":"[{1.5 false 3}]",`+
		`"secret":"content","size":"64KiB","state":%q,"table":"{2 true 9}","wait":3000000000}`, name, env.Folder)
	if sdk.KindOf(err) != sdk.Denied || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("%v\nwant %s", err, want)
	}
}

// Mistakes are named with key and place, like those of a plugin in this process.
func TestConfigurationMistakes(t *testing.T) {
	p := plugintest.Start(t, plugintest.Build(t, sample), host.Options{})
	at := func(v any, line int) sdk.Located {
		return sdk.Located{Value: v, Key: sdk.Position{File: "f.toml", Line: line, Column: 1}, At: sdk.Position{File: "f.toml", Line: line, Column: 9}}
	}
	raw := map[string]any{
		"mod": at("bare", 1), "mode": at("bear", 2), "size": at("2MiB", 3), "table": at(map[string]any{"on": at("maybe", 5)}, 4),
		"wait": at(time.Now(), 6), "secret": at("file:/does/not/exist", 7),
	}
	_, err := transport.Open(t.Context(), p.Plugins()[0], nil, raw)
	var mistakes sdk.ConfigErrors
	if !errors.As(err, &mistakes) || len(mistakes) != 1 || mistakes[0].Pos.Line != 7 {
		t.Fatalf("references: %v", err)
	}
	delete(raw, "secret")
	_, err = transport.Open(t.Context(), p.Plugins()[0], nil, raw)
	mistakes = nil
	if !errors.As(err, &mistakes) {
		t.Fatal(err)
	}
	want := "f.toml:1:1: mod: unknown key (did you mean \"mode\"?)\n" +
		"f.toml:2:9: mode: \"bear\" is not one of bare, attached, pumped (did you mean \"bare\"?)\n" +
		"f.toml:3:9: size: must be at most 1MiB\n" +
		"f.toml:4:9: table: count is required\n" +
		"f.toml:5:9: table.on: must be true or false, not \"maybe\"\n" +
		"f.toml:6:9: wait: must be a duration such as \"30s\", not wire.Other"
	if d := cmp.Diff(want, err.Error()); d != "" {
		t.Error(d)
	}
}

// A configuration is checked without opening anything: with what the fields say, what
// the struct's own Check says, and what the server half says.
func TestCheck(t *testing.T) {
	p := plugintest.Start(t, plugintest.Build(t, sample), host.Options{})
	at := func(v any, line int) sdk.Located {
		return sdk.Located{Value: v, Key: sdk.Position{File: "f.toml", Line: line, Column: 1}, At: sdk.Position{File: "f.toml", Line: line, Column: 9}}
	}
	sample := p.Plugins()[0]
	for want, raw := range map[string]map[string]any{
		"": {"mode": at("pumped", 1), "table": at(map[string]any{"count": int64(1)}, 2)},
		"f.toml:1:9: mode: \"bear\" is not one of bare, attached, pumped (did you mean \"bare\"?)": {"mode": at("bear", 1), "table": map[string]any{"count": int64(1)}},
		"f.toml:3:9: echo: \"x\" is no address":                                                    {"echo": at("x", 3), "table": map[string]any{"count": int64(1)}},
		"f.toml:4:9: web: nobody serves on port 1":                                                 {"web": at("127.0.0.1:1", 4), "table": map[string]any{"count": int64(1)}},
	} {
		err := p.Check(t.Context(), sample, raw)
		var mistakes sdk.ConfigErrors
		switch {
		case want == "" && err == nil:
		case err == nil, !errors.As(err, &mistakes), mistakes.Error() != want:
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// A bare socket is handed over itself and outlives the process; a stream that is
// pumped ends with it.
func TestKindsOfStreams(t *testing.T) {
	for _, mode := range []string{"bare", "attached", "pumped"} {
		t.Run(mode, func(t *testing.T) {
			p, o := sampled(t, nil, map[string]any{"mode": mode})
			client, server := connected(t, listening(t, o))
			s := p.Stats()
			if pumped := mode == "pumped"; (s.Pumped == 1) != pumped || (s.Sockets == 1) == pumped {
				t.Errorf("%+v", s)
			}
			if server.RemoteAddr().String() != client.LocalAddr().String() || server.LocalAddr().String() != client.RemoteAddr().String() {
				t.Errorf("addresses %v and %v", server.RemoteAddr(), server.LocalAddr())
			}
			facts := transport.FactsOf(server)
			want := netip.MustParseAddrPort(client.LocalAddr().String())
			if mode == "attached" {
				want = netip.MustParseAddrPort("192.0.2.7:99")
			}
			if facts.Remote != want || facts.Hidden != (mode == "attached") || (facts.Circuit == "circuit 5") != facts.Hidden || (facts.UserAgent == "agent") != facts.Hidden {
				t.Errorf("%+v", facts)
			}
			if _, err := client.Write([]byte("before")); err != nil || mustRead(t, server, make([]byte, 6)) != "before" {
				t.Error(err)
			}
			if err := syscall.Kill(p.PID(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			<-p.Done()
			_ = server.SetReadDeadline(time.Now().Add(patience))
			if mode == "pumped" {
				if _, err := server.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("a pumped stream outlives its process:", err)
				}
				return
			}
			if _, err := server.Write([]byte("after")); err != nil || mustRead(t, client, make([]byte, 5)) != "after" {
				t.Error(err)
			}
			server.Close()
			if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			if s := p.Stats(); s.Sockets != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestEnv(t *testing.T) {
	env := plugintest.NewLender(t)
	var log record
	env.Logger = log.logger()
	_, o := sampled(t, env, map[string]any{"echo": "127.0.0.1:0"})
	ln := listening(t, o)
	if n, err := env.Health(); n == 0 || err != nil && err.Error() != "still warming up" {
		t.Errorf("health is known with the listener: %d reports, %v", n, err)
	}
	until(t, "the log arrives", func() bool { return strings.Contains(log.String(), "msg=listening pid=") })
	until(t, "health arrives", func() bool { n, err := env.Health(); return n > 1 && err == nil })
	udp, err := env.ListenPacket(t.Context(), "udp", "127.0.0.1:0") // the same socket again
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	c, err := net.Dial("udp", udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte("ping")); err != nil || mustRead(t, c, make([]byte, 4)) != "ping" {
		t.Error(err)
	}
	ln.Close()
	for network, address := range map[string]string{"tcp": "192.0.2.1:1", "ip": "127.0.0.1"} {
		_, o := sampled(t, env, map[string]any{"listen": address})
		if network == "tcp" {
			if _, err := o.Listen(t.Context()); err == nil || !strings.Contains(err.Error(), "listen on tcp 192.0.2.1:1") {
				t.Error(err)
			}
		}
		if err := o.Close(); err != nil {
			t.Error(err)
		}
		if _, err := o.Listen(t.Context()); !errors.Is(err, sdk.Closed) {
			t.Error(err)
		}
	}
}

func TestInvitations(t *testing.T) {
	_, o := sampled(t, nil, nil)
	ln := listening(t, o)
	s, ok := ln.(transport.Server)
	if !ok {
		t.Fatalf("%T", ln)
	}
	expires := time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
	e, err := s.Invite(t.Context(), "relay.example", transport.Guest{ID: "g", Public: []byte("pk"), Expires: expires})
	want := transport.Endpoint{Transport: "sample", Host: "relay.example", Port: 4242, Params: map[string]string{
		"guest": "g", "public": "pk", "expires": "2030-01-02T03:04:05.000000006Z",
	}}
	if d := cmp.Diff(want, e); err != nil || d != "" {
		t.Error(err, d)
	}
	if e, err := s.Invite(t.Context(), "h", transport.Guest{}); err != nil || e.Params["expires"] != "0001-01-01T00:00:00Z" {
		t.Error(e, err)
	}
	if _, err := s.Invite(t.Context(), "h", transport.Guest{ID: "nobody"}); !errors.Is(err, sdk.NotFound) {
		t.Error(err)
	}
	if err := s.Revoke(t.Context(), "denied"); !errors.Is(err, sdk.Denied) {
		t.Error(err)
	}
	if err := s.Revoke(t.Context(), "other"); err != nil {
		t.Error(err)
	}
	if err := s.(transport.Replacer).Replaced(t.Context()); !errors.Is(err, sdk.Invalid) {
		t.Error(err)
	}
	if err := s.(transport.Registrar).Register(t.Context(), []transport.Guest{{ID: "a", Public: []byte("1"), Expires: expires}, {ID: "b", Public: []byte("2")}}); err != nil {
		t.Error(err)
	}
	if err := s.(transport.Registrar).Register(t.Context(), make([]transport.Guest, 1)); !errors.Is(err, sdk.Conflict) {
		t.Error(err)
	}
	if err := s.(transport.Registrar).Register(t.Context(), make([]transport.Guest, transport.MaxRegister+1)); !errors.Is(err, sdk.Invalid) {
		t.Error(err)
	}
	if err := s.(transport.Replacer).Replacing(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.(transport.Replacer).Replaced(t.Context()); err != nil {
		t.Error(err)
	}
	if e, err := s.Invite(t.Context(), "h", transport.Guest{ID: "registered"}); err != nil || e.Params["guests"] != "a 1 2030-01-02T03:04:05.000000006Z,b 2 0001-01-01T00:00:00Z,from here,to here" {
		t.Error(e, err)
	}
	private, public, err := transport.NewDialer("x", o).(transport.KeyMaker).NewKey()
	if string(private) != "private" || string(public) != "public" || err != nil {
		t.Error(string(private), string(public), err)
	}
}

// authority makes a root.
func authority(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{Subject: pkix.Name{CommonName: name}, SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
	b, err := x509.CreateCertificate(rand.Reader, about, about, public, private)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(b)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A dial may ask for tokens, tell the time and have its carrier opened here; its
// stream may ask as long as it lives.
func TestDialCallbacks(t *testing.T) {
	p, o := sampled(t, nil, nil)
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	at := server.Addr().(*net.TCPAddr)
	var clock time.Time
	var carriers atomic.Int64
	with := transport.Dial{
		Token:       func(method, path, st string) string { return method + path + st },
		ServerTime:  func(at time.Time) { clock = at },
		Fingerprint: "fp", Key: []byte("key"), Insecure: true, Pins: make([][32]byte, 3),
		DialTCP: func(ctx context.Context, network, address string) (net.Conn, error) {
			carriers.Add(1)
			c, err := new(net.Dialer).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return struct{ net.Conn }{c}, nil // no bare socket: it is pumped here
		},
	}
	with.Trust(authority(t, "first"), authority(t, "second"))
	// All that a dial can say is said here, so that a new field is not forgotten.
	for v, i := reflect.ValueOf(with), 0; i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("nobody looks whether %s crosses to another process", v.Type().Field(i).Name)
		}
	}
	d := transport.NewDialer("sample", o)
	c, err := d.Dial(t.Context(), transport.Endpoint{Host: "127.0.0.1", Port: uint16(at.Port), Params: map[string]string{"p": "param"}}, with)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	_ = peer.SetDeadline(time.Now().Add(patience))
	r := bufio.NewReader(peer)
	if line, err := r.ReadString('\n'); err != nil || line != "GET/connect POST/xup fp key true 3 param first second roots\n" {
		t.Errorf("%q %v", line, err)
	}
	if _, err := fmt.Fprintln(c, "hello"); err != nil {
		t.Error(err)
	}
	if line, err := r.ReadString('\n'); err != nil || line != "POST/later hello\n" {
		t.Errorf("%q %v", line, err)
	}
	if clock.Unix() != 1_700_000_000 || carriers.Load() != 1 {
		t.Error(clock, carriers.Load())
	}
	c.Close()
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	// Errors keep what they are.
	if _, err := d.Dial(t.Context(), transport.Endpoint{Host: "refused"}, with); !errors.Is(err, transport.ErrRefused) {
		t.Error(err)
	}
	wrong := errors.New("no route")
	with.DialTCP = func(context.Context, string, string) (net.Conn, error) { return nil, wrong }
	if _, err := d.Dial(t.Context(), transport.Endpoint{Host: "127.0.0.1", Port: 1}, with); err == nil || !strings.Contains(err.Error(), "no route") {
		t.Error(err)
	}
	with.Roots = x509.NewCertPool() // not what RootCertificates says
	if _, err := d.Dial(t.Context(), transport.Endpoint{}, with); !errors.Is(err, sdk.Unsupported) {
		t.Error(err)
	}
	until(t, "streams are given back", func() bool { return p.Stats() == host.Stats{} })
}
