package child

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/commucat/commucat/plugins/transport/pt/managed"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plain is a transport without any disguise.
func plain() sdk.Plugin {
	type config struct {
		Listen string   `cfg:"listen" doc:"address"`
		Count  int      `cfg:"count" doc:"a number"`
		Names  []string `cfg:"names" doc:"a list"`
	}
	return transport.Define(transport.Descriptor{Name: "plain", Version: "1.0.0", Summary: "bytes as they are"}, transport.Funcs[config]{
		Listen: func(ctx context.Context, env sdk.Env, c config) (net.Listener, error) {
			ln, err := env.Listen(ctx, "tcp", c.Listen)
			return inviting{ln, c.Names}, err
		},
		Dial: func(ctx context.Context, _ sdk.Env, _ config, to transport.Endpoint, _ transport.Dial) (net.Conn, error) {
			if to.Params["names"] != "a+b" {
				return nil, io.ErrUnexpectedEOF
			}
			return new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port))))
		},
	})
}

type inviting struct {
	net.Listener
	names []string
}

func (i inviting) Invite(context.Context, string, transport.Guest) (transport.Endpoint, error) {
	return transport.Endpoint{Params: map[string]string{"names": strings.Join(i.names, "+")}}, nil
}

func (inviting) Revoke(context.Context, string) error { return nil }

// run runs a child in this process until the test ends, and gives its lines.
func run(t *testing.T, env map[string]string, methods ...Method) *managed.Lines {
	t.Helper()
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		_ = Run(ctx, func(k string) string { return env[k] }, w, methods...)
		w.Close()
	})
	t.Cleanup(func() {
		cancel()
		r.Close()
		group.Wait()
	})
	return managed.NewLines(bufio.NewReader(r))
}

func next(t *testing.T, l *managed.Lines) managed.Line {
	t.Helper()
	text, err := l.Next()
	if err != nil {
		t.Fatal(err)
	}
	line, err := managed.ParseLine(text)
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// Both sides, a parent at each end: what the client says arrives with its address.
func TestBothSides(t *testing.T) {
	dir := t.TempDir()
	cookie, err := managed.NewCookie(filepath.Join(dir, "cookie"))
	if err != nil {
		t.Fatal(err)
	}
	bridge, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer bridge.Close()
	method := Method{Name: "plain", Plugin: plain(), Prepare: func(_ string, table map[string]any) error {
		if table["count"] != int64(7) {
			t.Errorf("options are %v", table)
		}
		return nil
	}}
	server := run(t, map[string]string{
		"TOR_PT_MANAGED_TRANSPORT_VER": "1,2", "TOR_PT_STATE_LOCATION": dir, "TOR_PT_SERVER_TRANSPORTS": "plain,other",
		"TOR_PT_SERVER_BINDADDR": "plain-127.0.0.1:0", "TOR_PT_SERVER_TRANSPORT_OPTIONS": "plain:count=7;plain:names=a,b;other:x=y",
		"TOR_PT_EXTENDED_SERVER_PORT": bridge.Addr().String(), "TOR_PT_AUTH_COOKIE_FILE": filepath.Join(dir, "cookie"), "TOR_PT_ORPORT": "127.0.0.1:9",
	}, method)
	if l := next(t, server); l.Word != managed.Version {
		t.Fatalf("%+v", l)
	}
	s := next(t, server)
	if s.Word != managed.SMethod || s.Args.Get("names") != "a+b" || s.Addr.Port() == 0 {
		t.Fatalf("%+v", s)
	}
	if l := next(t, server); l.Word != managed.SMethodError || l.Method != "other" {
		t.Errorf("%+v", l)
	}
	if l := next(t, server); l.Word != managed.SMethodsDone {
		t.Errorf("%+v", l)
	}
	b, err := os.ReadFile(filepath.Join(dir, "plain", bridgeLine))
	if err != nil || !strings.HasPrefix(string(b), "Bridge plain <ADDRESS>:"+strconv.Itoa(int(s.Addr.Port()))+" <FINGERPRINT> names=a+b") {
		t.Errorf("%q, %v", b, err)
	}
	client := run(t, map[string]string{"TOR_PT_MANAGED_TRANSPORT_VER": "1", "TOR_PT_STATE_LOCATION": dir, "TOR_PT_CLIENT_TRANSPORTS": "plain"}, Method{Name: "plain", Plugin: plain()})
	next(t, client)
	c := next(t, client)
	if c.Word != managed.CMethod || c.Protocol != "socks5" {
		t.Fatalf("%+v", c)
	}
	if l := next(t, client); l.Word != managed.CMethodsDone {
		t.Errorf("%+v", l)
	}
	out, err := net.Dial("tcp", c.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := managed.Connect(t.Context(), out, s.Addr.String(), s.Args); err != nil {
		t.Fatal(err)
	}
	in, err := bridge.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	arrival, err := managed.AcceptExtOR(in, cookie)
	if err != nil || arrival.Method != "plain" || !arrival.Client.IsValid() {
		t.Errorf("%+v, %v", arrival, err)
	}
	if _, err := out.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	if err := out.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(in); err != nil || string(b) != "question" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := in.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if b, err := io.ReadAll(out); err != nil || string(b) != "answer" {
		t.Errorf("%q, %v", b, err)
	}
	// Without the arguments of the bridge line there is no stream.
	other, err := net.Dial("tcp", c.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	said := make(chan string, 1)
	go func() {
		text, _ := client.Next()
		said <- text
	}()
	if err := managed.Connect(ctx, other, s.Addr.String(), nil); err == nil {
		t.Error("connected without arguments")
	}
	if text := <-said; !strings.HasPrefix(text, "LOG SEVERITY=") {
		t.Errorf("the reason is not told: %q", text)
	}
}

// The parent's log learns the reason, not who the bridge is.
func TestReasonsAreScrubbed(t *testing.T) {
	to := transport.Endpoint{Host: "bridge.example", Params: map[string]string{"pbk": "AbCdEf", "n": "1"}}
	for text, want := range map[string]string{
		"dial tcp 192.0.2.7:443: connection refused":            "dial tcp [scrubbed]: connection refused",
		"read tcp 10.1.2.3:4->[2001:db8::7]:443: i/o timeout":   "read tcp [scrubbed]->[scrubbed]: i/o timeout",
		"lookup bridge.example on [::1]:53: no such host":       "lookup [scrubbed] on [scrubbed]: no such host",
		`pbk "AbCdEf" is no key; TLS 1.3 is wanted, error 1`:    `pbk "[scrubbed]" is no key; TLS 1.3 is wanted, error 1`,
		"the server did not answer within 1m0s [HTTP/2, frame]": "the server did not answer within 1m0s [HTTP/2, frame]",
	} {
		if got := scrubbed(text, to); got != want {
			t.Errorf("%q became %q", text, got)
		}
	}
}

func TestParentsThatAreWrong(t *testing.T) {
	good := map[string]string{"TOR_PT_MANAGED_TRANSPORT_VER": "1", "TOR_PT_STATE_LOCATION": t.TempDir(), "TOR_PT_CLIENT_TRANSPORTS": "plain"}
	for name, tt := range map[string]struct {
		key, value, want string
	}{
		"version":   {"TOR_PT_MANAGED_TRANSPORT_VER", "2", managed.VersionError},
		"no state":  {"TOR_PT_STATE_LOCATION", "", managed.EnvError},
		"neither":   {"TOR_PT_CLIENT_TRANSPORTS", "", managed.EnvError},
		"both":      {"TOR_PT_SERVER_TRANSPORTS", "plain", managed.EnvError},
		"has proxy": {"TOR_PT_PROXY", "socks5://127.0.0.1:9", managed.ProxyError},
	} {
		env := map[string]string{}
		for k, v := range good {
			env[k] = v
		}
		env[tt.key] = tt.value
		l := run(t, env, Method{Name: "plain", Plugin: plain()})
		line := next(t, l)
		if line.Word == managed.Version {
			line = next(t, l)
		}
		if line.Word != tt.want {
			t.Errorf("%s: %+v", name, line)
		}
	}
}
