package pt

import (
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/transport/internal/agent"
	"github.com/commucat/commucat/plugins/transport/pt/managed"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/transport"
)

// have fails where a program that .ci/deps installs is missing.
func have(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Fatalf("%s is not installed: run 'make deps'", program)
	}
}

// open opens the plugin until the end of the test.
func open(t *testing.T, env sdk.Env, raw map[string]any) transport.Opened {
	t.Helper()
	if raw["dial_limit"] == nil { // a busy machine starts a child slowly
		raw = maps.Clone(raw)
		if raw == nil {
			raw = map[string]any{}
		}
		raw["dial_limit"] = "2m"
	}
	o, err := transport.Open(t.Context(), Plugin(), env, raw)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return o
}

func listenOn(t *testing.T, env sdk.Env, raw map[string]any) *server {
	t.Helper()
	ln, err := open(t, env, raw).Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	s := ln.(*server)
	well(t, s)
	return s
}

// well waits for the child of a listener.
func well(t *testing.T, s *server) {
	t.Helper()
	for until := time.Now().Add(2 * time.Minute); s.Health() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal(s.Health())
		}
	}
}

// started starts the child of a dialler, so that a short limit is for the dial alone.
func started(t *testing.T, o transport.Opened, method string) {
	t.Helper()
	if _, err := o.(*agent.Opened).Client.(*clients).child(t.Context(), method); err != nil {
		t.Fatal(err)
	}
}

func invite(t *testing.T, s *server) transport.Endpoint {
	t.Helper()
	to, err := s.Invite(t.Context(), "127.0.0.1", transport.Guest{})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// both dials, and gives the two ends of the stream until the end of the test.
func both(t *testing.T, o transport.Opened, ln net.Listener, to transport.Endpoint) (c, got net.Conn) {
	t.Helper()
	c, err := o.Dial(t.Context(), to, transport.Dial{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if got, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { got.Close() })
	return c, got
}

var local = map[string]any{"listen": "127.0.0.1:0"}

// Many dials, one after the other: none is lost on its way.
func TestObfs4ManyDials(t *testing.T) {
	have(t, "obfs4proxy")
	s := listenOn(t, plugintest.NewLender(t), local)
	to := invite(t, s)
	go func() {
		for {
			c, err := s.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	o := open(t, sdk.NewEnv(sdk.EnvOptions{}), nil)
	n := 100
	if os.Getenv("COMMUCAT_SOAK") != "" {
		n = 2000
	}
	for i := range n {
		c, err := o.Dial(t.Context(), to, transport.Dial{})
		if err != nil {
			t.Fatalf("dial %d: %v", i, err)
		}
		c.Close()
	}
}

func TestObfs4TellsTheClientsAddress(t *testing.T) {
	have(t, "obfs4proxy")
	s := listenOn(t, plugintest.NewLender(t), local)
	to := invite(t, s)
	if to.Params[paramMethod] != "obfs4" || !strings.Contains(to.Params[paramArgs], "cert=") || to.Port == 0 {
		t.Fatalf("%+v", to)
	}
	// A carrier of our own, whose address is known.
	o := open(t, sdk.NewEnv(sdk.EnvOptions{}), nil)
	c, got := both(t, o, s, to)
	f := transport.FactsOf(got)
	if f.Hidden || f.Remote.Addr().String() != "127.0.0.1" || f.Remote.Port() == 0 {
		t.Errorf("%+v", f)
	}
	// Not the child's connection to us, which comes from the same machine.
	if near := transport.AddrPort(got.RemoteAddr()); near == f.Remote {
		t.Errorf("%v is the child's own address", near)
	}
	for _, c := range []net.Conn{c, got} {
		if a, ok := c.(transport.Attached); !ok {
			t.Errorf("a stream is a %T, which cannot be handed over", c)
		} else if _, ok := a.Attached().(*net.TCPConn); !ok {
			t.Errorf("a stream is a %T, which cannot be handed over", a.Attached())
		}
		if err := transport.CloseWrite(c); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("half-close: %v", err)
		}
	}
}

func TestObfs4WrongCertificate(t *testing.T) {
	have(t, "obfs4proxy")
	to := invite(t, listenOn(t, plugintest.NewLender(t), local))
	other := invite(t, listenOn(t, plugintest.NewLender(t), local))
	to.Params[paramArgs] = other.Params[paramArgs]
	o := open(t, sdk.NewEnv(sdk.EnvOptions{}), map[string]any{"dial_limit": "1s"})
	started(t, o, "obfs4")
	c, err := o.Dial(t.Context(), to, transport.Dial{})
	if err == nil {
		c.Close()
		t.Fatal("connected with another relay's certificate")
	}
	if !errors.Is(err, sdk.Unavailable) || !strings.Contains(err.Error(), "within 1s") {
		t.Error(err)
	}
	var usual Config
	sdk.Defaults(&usual)
	if usual.Limit != 15*time.Second {
		t.Errorf("a dial may take %v", usual.Limit)
	}
}

// The child is killed: the transport says so, another one comes, the same links go on.
func TestObfs4ChildIsReplaced(t *testing.T) {
	have(t, "obfs4proxy")
	env := plugintest.NewLender(t)
	s := listenOn(t, env, local)
	to := invite(t, s)
	o := open(t, sdk.NewEnv(sdk.EnvOptions{}), nil)
	dial := func() error {
		c, err := o.Dial(t.Context(), to, transport.Dial{})
		if err != nil {
			return err
		}
		defer c.Close()
		got, err := s.Accept()
		if err != nil {
			return err
		}
		return got.Close()
	}
	if err := dial(); err != nil {
		t.Fatal(err)
	}
	before, _ := env.Health()
	pid := childOf(t, s.folder)
	p, err := os.FindProcess(pid)
	if err == nil {
		err = p.Kill()
	}
	if err != nil {
		t.Fatal(err)
	}
	// Degraded and well again.
	for until := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if n, reason := env.Health(); n >= before+2 && reason == nil {
			break
		}
		if time.Now().After(until) {
			t.Fatal("no child came back")
		}
	}
	if now := childOf(t, s.folder); now == pid {
		t.Errorf("still process %d", now)
	}
	if again := invite(t, s); again.Port != to.Port || again.Params[paramArgs] != to.Params[paramArgs] {
		t.Errorf("links have changed: %+v and %+v", to, again)
	}
	if err := dial(); err != nil {
		t.Error(err)
	}
}

// childOf finds the process whose working folder is the child's.
func childOf(t *testing.T, folder string) int {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range all {
		if to, err := os.Readlink(link); err == nil && to == folder {
			var pid int
			for _, c := range strings.Split(link, "/")[2] {
				pid = pid*10 + int(c-'0')
			}
			return pid
		}
	}
	t.Fatal("the child was not found")
	return 0
}

// Links outlive the process: certificate and port are kept.
func TestObfs4StateIsKept(t *testing.T) {
	have(t, "obfs4proxy")
	env := plugintest.NewLender(t)
	first := listenOn(t, env, local)
	to := invite(t, first)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if again := invite(t, listenOn(t, env, local)); again.Port != to.Port || again.Params[paramArgs] != to.Params[paramArgs] {
		t.Errorf("links have changed: %+v and %+v", to, again)
	}
}

// While another process has the port, the transport waits for it: so an upgrade goes.
func TestObfs4WaitsForThePort(t *testing.T) {
	have(t, "obfs4proxy")
	env := plugintest.NewLender(t)
	first := listenOn(t, env, local)
	at := first.Addr().String()
	reports, _ := env.Health()
	next := make(chan *server, 1)
	go func() {
		ln, err := open(t, env, map[string]any{"listen": at}).Listen(t.Context())
		if err != nil {
			t.Error(err)
			next <- nil
			return
		}
		next <- ln.(*server)
	}()
	for until := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if n, reason := env.Health(); n > reports && reason != nil {
			break
		}
		if time.Now().After(until) {
			t.Fatal("it did not say that the port is taken")
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	s := <-next
	if s == nil {
		return
	}
	t.Cleanup(func() { _ = s.Close() })
	well(t, s)
}

// Strangers at the ExtORPort are let go, and a client comes through.
func TestStrangersAtTheExtendedPort(t *testing.T) {
	have(t, "obfs4proxy")
	s := listenOn(t, plugintest.NewLender(t), local)
	for _, words := range []string{"", "\x01", "GET / HTTP/1.1\r\n\r\n" + strings.Repeat("x", 100)} {
		c, err := net.Dial("tcp", s.local.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte(words)); err != nil {
			t.Fatal(err)
		}
	}
	o := open(t, sdk.NewEnv(sdk.EnvOptions{}), nil)
	c, err := o.Dial(t.Context(), invite(t, s), transport.Dial{})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// snowflake grants a stream before it has found a peer; that is no connection.
func TestSnowflakeWithoutAPeer(t *testing.T) {
	have(t, "snowflake-client")
	// Nobody listens there, and nothing leaves this machine.
	args := managed.Args{{Key: "url", Value: "http://127.0.0.1:9/"}, {Key: "ice", Value: "stun:127.0.0.1:9"}, {Key: "fingerprint", Value: "2B280B23E1107BB62ABFC40DDCC8824814F80A72"}}
	o := open(t, sdk.NewEnv(sdk.EnvOptions{}), map[string]any{"dial_limit": "2s"})
	started(t, o, "snowflake")
	c, err := o.Dial(t.Context(), transport.Endpoint{Host: "192.0.2.3", Port: 80, Params: map[string]string{
		paramMethod: "snowflake", paramArgs: args.Encode(managed.Semicolon), paramReady: "1",
	}}, transport.Dial{})
	if err == nil {
		c.Close()
		t.Fatal("a grant was taken for a connection")
	}
	if !strings.Contains(err.Error(), "within 2s") {
		t.Errorf("it did not load, or said more than a grant: %v", err)
	}
}

func TestMissingPrograms(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for name, tt := range map[string]struct {
		raw  map[string]any
		want string
	}{
		"nothing installed": {nil, "install the package obfs4proxy"},
		"not there":         {map[string]any{"command": "/nonexistent/obfs4proxy"}, "there is no program /nonexistent/obfs4proxy"},
		"unknown method":    {map[string]any{"method": "later"}, "name it by command"},
	} {
		_, err := open(t, plugintest.NewLender(t), tt.raw).Listen(t.Context())
		if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, sdk.NotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	o := open(t, sdk.NewEnv(sdk.EnvOptions{}), nil)
	_, err := o.Dial(t.Context(), transport.Endpoint{Host: "h", Port: 1, Params: map[string]string{paramMethod: "webtunnel"}}, transport.Dial{})
	if err == nil || !strings.Contains(err.Error(), "webtunnel-client or lyrebird is not installed") {
		t.Error(err)
	}
}

func TestConfigMistakes(t *testing.T) {
	for key, raw := range map[string]map[string]any{
		"method":         {"command": "/usr/bin/something"},
		"listen":         {"listen": "example.org:1"},
		"advertise":      {"advertise": "example.org"},
		"proxy":          {"proxy": "ftp://example.org"},
		"client_options": {"client_options": map[string]any{"a": "x\ny"}},
	} {
		_, err := transport.Open(t.Context(), Plugin(), nil, raw)
		var mistakes sdk.ConfigErrors
		if !errors.As(err, &mistakes) || len(mistakes) != 1 || mistakes[0].Key != key {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// Clients that are not ours get the stream from its first byte, and programs without
// ExtORPort an own port, behind which nobody has an address.
func TestPlainORPort(t *testing.T) {
	have(t, "obfs4proxy")
	s := listenOn(t, plugintest.NewLender(t), map[string]any{"listen": "127.0.0.1:0", "extended": false, "ready": false, "advertise": "relay.example:443"})
	to := invite(t, s)
	if to.Host != "relay.example" || to.Port != 443 || to.Params[paramReady] != "" {
		t.Errorf("%+v", to)
	}
	to.Host, to.Port = "127.0.0.1", transport.AddrPort(s.Addr()).Port()
	o := open(t, sdk.NewEnv(sdk.EnvOptions{}), nil)
	c, got := both(t, o, s, to)
	if f := transport.FactsOf(got); !f.Hidden || f.Remote.IsValid() {
		t.Errorf("%+v", f)
	}
	if _, err := got.Write([]byte("!")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := io.ReadFull(c, b); err != nil || b[0] != '!' {
		t.Errorf("%q, %v", b, err)
	}
}
