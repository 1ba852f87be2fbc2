package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/commucat/commucat/core/pluginhost/sandbox"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

type plainConfig struct {
	Listen string     `cfg:"listen" default:"127.0.0.1:0" doc:"TCP address"`
	Words  []string   `cfg:"words" doc:"short words, for mistakes that no field shows"`
	Shut   sdk.Secret `cfg:"shut" doc:"client: why it dials nothing"`
	Carry  bool       `cfg:"carry" doc:"client: its process carries what it dials, to the process's end"`
	Hang   bool       `cfg:"hang" doc:"never be ready"`

	Rotated transport.Moment `cfg:"rotated" doc:"when keys were to be drawn, of which there are none"`
	Overlap time.Duration    `cfg:"overlap" default:"14d" max:"90d" doc:"how long former ones are good"`
}

// Check implements sdk.Checker.
func (c *plainConfig) Check() error {
	for i, w := range c.Words {
		if len(w) > 4 {
			return &sdk.ConfigError{Key: "words[" + strconv.Itoa(i) + "]", Text: strconv.Quote(w) + " has more than four letters", Suggestion: w[:4]}
		}
	}
	return nil
}

// refuses is what the server half alone finds wrong.
func refuses(c plainConfig) error {
	if len(c.Words) == 1 {
		return &sdk.ConfigError{Key: "words", Text: "one word is none"}
	}
	return nil
}

// plainTransport is bare TCP, in the process that this test binary becomes.
func plainTransport() sdk.Plugin {
	return transport.Define(transport.Descriptor{
		Name: "plain", Version: "1.0.0", Summary: "bare TCP", HalfClose: true, Needs: []transport.Need{{Kind: transport.TCPPort}},
	}, transport.Funcs[plainConfig]{
		Check: refuses,
		Listen: func(ctx context.Context, env sdk.Env, c plainConfig) (net.Listener, error) {
			if c.Hang {
				env.Log().Warn("the plugin hangs")
				<-make(chan struct{})
			}
			return env.Listen(ctx, "tcp", c.Listen)
		},
		Dial: func(ctx context.Context, _ sdk.Env, c plainConfig, to transport.Endpoint, _ transport.Dial) (net.Conn, error) {
			if !c.Shut.IsZero() {
				return nil, errors.New(c.Shut.Text())
			}
			dialled, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port))))
			if err == nil && c.Carry {
				dialled = carried{dialled}
			}
			return dialled, err
		},
	})
}

// carried is no socket that could be handed over.
type carried struct{ net.Conn }

func (c carried) CloseWrite() error { return transport.CloseWrite(c.Conn) }

// pluginFolder holds this test binary as the plugin "plain".
func pluginFolder(t *testing.T) (dir, file string) {
	t.Helper()
	if k := sandbox.Probe(); !k.Complete() {
		t.Skipf("this kernel has no %s", k.Missing())
	}
	dir, err := os.MkdirTemp("", "cp-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "commucat-transport-plain")
	if err := os.WriteFile(file, self, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("COMMUCAT_PLUGINS", dir)
	if code, _, notes := commucat(t, "plugin", "add", file); code != exitOK {
		t.Fatalf("add: %d %s", code, notes)
	}
	return dir, file
}

// TestBudgetPluginTransport: a relay with a transport in another process, from the list to
// messages, over kill -9 of the plugin and of the relay, and a changed binary.
func TestBudgetPluginTransport(t *testing.T) {
	if raceDetector {
		t.Skip("a plugin under the race detector needs more memory than it is allowed")
	}
	_, file := pluginFolder(t)
	dir := dataFolder(t, wide+"[transport.door] # comments stay\nplugin = \"plain\"\n")
	srv := relay(t, dir)
	list := func() string {
		t.Helper()
		code, out, notes := commucat(t, "plugin", "list", "--json", "--data", dir)
		if code != exitOK {
			t.Fatalf("list: %d %s", code, notes)
		}
		return out
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not in time: %s\n%s\n%s", what, list(), srv.said())
			}
		}
	}
	until("running", func() bool { return strings.Contains(list(), `"state":"running"`) })
	if code, out, notes := commucat(t, "transport", "test", "door", "--data", dir); code != exitOK {
		t.Errorf("test: %d %s %s", code, out, notes)
	}
	invite := srv.invitation(t, 5, time.Hour)
	alice, bob := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	for handle, profile := range map[string]string{"alice": alice, "bob": bob} {
		if code, out, notes := commucat(t, "client", "register", "--server", invite, "--handle", handle, "--profile", profile, "--transport", "door=plain"); code != exitOK || !strings.Contains(out, "by door") {
			t.Fatalf("register %s: %d %s %s", handle, code, out, notes)
		}
	}
	send := func(text string) {
		t.Helper()
		if code, _, notes := commucat(t, "client", "send", "--profile", alice, "--to", "bob", "--transport", "door=plain", text); code != exitOK {
			t.Fatalf("send: %d %s", code, notes)
		}
	}
	settings := filepath.Join(dir, "commucat.toml")
	sound, err := os.ReadFile(settings)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(settings, []byte("[server]\nlisen = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A mistake in the file does not make what runs stand as stopped.
	code, out, notes := commucat(t, "plugin", "list", "--json", "--data", dir)
	if code != exitOK || !strings.Contains(out, `"state":"running"`) || !strings.Contains(notes, "server.lisen") {
		t.Errorf("list with a broken file: %d %s %s", code, out, notes)
	}
	if err := os.WriteFile(settings, sound, 0o600); err != nil {
		t.Fatal(err)
	}
	send("one")
	pid := func() int {
		_, rest, _ := strings.Cut(list(), `"pid":`)
		n, _ := strconv.Atoi(rest[:strings.IndexAny(rest+",", ",}")])
		return n
	}
	first := pid()
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	send("two") // the socket is the relay's: nobody is refused
	if code, out, notes := commucat(t, "plugin", "upgrade", "door", "--data", dir); code != exitOK {
		t.Errorf("upgrade: %d %s %s", code, out, notes)
	}
	send("three")
	if code, out, notes := commucat(t, "client", "listen", "--profile", bob, "--transport", "door=plain", "--count", "3", "--timeout", "20s"); code != exitOK || !strings.Contains(out, "three") {
		t.Errorf("listen: %d %s %s", code, out, notes)
	}
	// Off and on again, with the comment where it was.
	for _, on := range []string{"disable", "enable"} {
		if code, _, notes := commucat(t, "transport", on, "door", "--data", dir); code != exitOK {
			t.Fatalf("%s: %d %s", on, code, notes)
		}
		until(on, func() bool { return strings.Contains(list(), `"state":"running"`) == (on == "enable") })
	}
	if text, err := os.ReadFile(filepath.Join(dir, "commucat.toml")); err != nil || !strings.Contains(string(text), "[transport.door] # comments stay\nenabled = true\n") {
		t.Errorf("%s %v", text, err)
	}
	// kill -9 of the relay ends its plugins.
	last := pid()
	srv.kill()
	until("the plugin's end", func() bool { return syscall.Kill(last, 0) != nil })
	// One byte changed: not this plugin, but everything else.
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(file, b, 0o755); err != nil {
		t.Fatal(err)
	}
	if code, out, _ := commucat(t, "plugin", "verify"); code != exitFailed || !strings.Contains(out, "is not the file that was added") {
		t.Errorf("verify: %d %s", code, out)
	}
	srv = spawn(t, dir, "--listen", srv.address())
	if err := srv.ready(); err != nil {
		t.Fatal(err)
	}
	until("refused", func() bool { return strings.Contains(list(), `"state":"parked"`) })
	if code, _, notes := commucat(t, "client", "send", "--profile", alice, "--to", "bob", "--transport", "http2", "four"); code != exitOK {
		t.Errorf("by another transport: %d %s", code, notes)
	}
	// Mended, it runs with the next reload, though the configuration is the same.
	b[len(b)-1] ^= 1
	if err := os.WriteFile(file, b, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := srv.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until("mended", func() bool { return strings.Contains(list(), `"state":"running"`) })
	if code := srv.terminate(t); code != exitOK {
		t.Errorf("ended with %d: %s", code, srv.said())
	}
}
