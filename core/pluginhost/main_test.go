package pluginhost

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/core/pluginhost/sandbox"
	"github.com/commucat/commucat/core/pluginhost/sandbox/sandboxtest"
	"github.com/commucat/commucat/plugins/ledger/file"
	"github.com/commucat/commucat/plugins/storage/sqlite"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/plugin"
	"github.com/commucat/commucat/sdk/storage"
	"github.com/commucat/commucat/sdk/transport"
)

// TestMain lets the test binary be the trampoline and the plugins as well.
func TestMain(m *testing.M) {
	if sandbox.Requested(os.Args) {
		if raceDetector { // it makes every process wait for a second when it ends
			os.Setenv("GORACE", "atexit_sleep_ms=10")
		}
		os.Exit(sandbox.Main(os.Args, os.Stderr))
	}
	if os.Getenv("COMMUCAT_PLUGIN") != "" || len(os.Args) == 2 && os.Args[1] == "describe" {
		beginning(os.Args[0])
		plugin.Serve(plain("1.0.0"), packets(), sqlite.Plugin(), noop(), file.Plugin)
	}
	os.Exit(m.Run())
}

// beginning is how hostile plugins misbehave before they are spoken to; the name of
// the configured plugin says how.
func beginning(name string) {
	switch strings.TrimPrefix(name, "transport ") {
	case "early-exit":
		os.Exit(3)
	case "early-panic":
		panic("at once")
	case "silent":
		time.Sleep(time.Hour)
	case "half-line":
		fmt.Print("1|1|unix|/tmp/x")
		time.Sleep(time.Hour)
	case "chatter":
		fmt.Println(strings.Repeat("x", 1<<16))
		time.Sleep(time.Hour)
	case "liar":
		plugin.Serve(plain("6.6.6"))
	}
}

// plainConfig is the test transport's.
type plainConfig struct {
	Listen string `cfg:"listen" default:"127.0.0.1:0" doc:"TCP address"`
	// Behave says what it does that it should not.
	Behave string `cfg:"behave" doc:"misbehaviour"`
	Pump   bool   `cfg:"pump" doc:"keep the streams in the process"`
	Guard  bool   `cfg:"guard" doc:"clients need an invitation"`
	World  string `cfg:"world" doc:"what the sandbox's attempts aim at, JSON"`
}

// plain is a transport without any disguise.
func plain(version string) sdk.Plugin {
	return transport.Define(transport.Descriptor{
		Name: "plain", Version: version, Summary: "bare TCP", HalfClose: true,
		Needs: []transport.Need{{Kind: transport.TCPPort}, {Kind: transport.StateFolder}},
	}, transport.Funcs[plainConfig]{
		Listen: func(ctx context.Context, env sdk.Env, c plainConfig) (net.Listener, error) {
			ln, err := env.Listen(ctx, "tcp", c.Listen)
			if err != nil {
				return nil, err
			}
			go misbehave(env, c)
			l := &plainListener{Listener: ln, pump: c.Pump}
			if c.Guard {
				return &guarded{plainListener: l, guests: map[string]bool{}}, nil
			}
			return l, nil
		},
		Dial: func(ctx context.Context, _ sdk.Env, _ plainConfig, to transport.Endpoint, _ transport.Dial) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(to.Host, fmt.Sprint(to.Port)))
		},
		Probe: func(_ context.Context, env sdk.Env, c plainConfig) error {
			if c.World == "" {
				return nil
			}
			return attempt(env, c.World)
		},
	})
}

// attempt makes the forbidden attempts and answers what was possible.
func attempt(env sdk.Env, world string) error {
	var w sandboxtest.World
	if err := json.Unmarshal([]byte(world), &w); err != nil {
		return err
	}
	w.Parent, w.State = os.Getppid(), env.State()
	var possible []string
	denied := 0
	for _, set := range [][]sandboxtest.Attempt{sandboxtest.Always(), sandboxtest.Closed(), sandboxtest.Quiet(), sandboxtest.Stored(), sandboxtest.Foreign()} {
		for _, r := range sandboxtest.Try(set, w) {
			env.Log().Info("attempt", "denied", r.Denied, "what", r.Name, "why", r.Error)
			if !r.Denied {
				possible = append(possible, r.Name)
				continue
			}
			denied++
		}
	}
	for _, r := range sandboxtest.Try(sandboxtest.Granted(), w) {
		if r.Denied {
			possible = append(possible, "not "+r.Name+": "+r.Error)
		}
	}
	return fmt.Errorf("denied %d, possible %q", denied, possible)
}

// packets is a transport over datagrams that are neither repeated nor put in order:
// each address is a stream.
func packets() sdk.Plugin {
	type config struct {
		Listen string `cfg:"listen" default:"127.0.0.1:0" doc:"UDP address"`
	}
	return transport.Define(transport.Descriptor{
		Name: "packets", Version: "1.0.0", Summary: "bare UDP", Needs: []transport.Need{{Kind: transport.UDPPort}},
	}, transport.Funcs[config]{
		Listen: func(ctx context.Context, env sdk.Env, c config) (net.Listener, error) {
			socket, err := env.ListenPacket(ctx, "udp", c.Listen)
			if err != nil {
				return nil, err
			}
			l := &packetListener{socket: socket, streams: map[string]net.Conn{}, fresh: make(chan net.Conn)}
			go l.read()
			return l, nil
		},
	})
}

type packetListener struct {
	socket  net.PacketConn
	streams map[string]net.Conn // of read alone
	fresh   chan net.Conn
}

func (l *packetListener) Accept() (net.Conn, error) {
	if c, ok := <-l.fresh; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (l *packetListener) Close() error   { return l.socket.Close() }
func (l *packetListener) Addr() net.Addr { return l.socket.LocalAddr() }

func (l *packetListener) read() {
	defer close(l.fresh)
	buf := make([]byte, 2048)
	for {
		n, from, err := l.socket.ReadFrom(buf)
		if err != nil {
			for _, c := range l.streams {
				c.Close()
			}
			return
		}
		c := l.streams[from.String()]
		if c == nil {
			var far net.Conn
			c, far = net.Pipe()
			l.streams[from.String()] = c
			go func() {
				b := make([]byte, 2048)
				for {
					n, err := c.Read(b)
					if err != nil {
						return
					}
					_, _ = l.socket.WriteTo(b[:n], from)
				}
			}()
			l.fresh <- far
		}
		_, _ = c.Write(buf[:n])
	}
}

// noop is a storage that says yes and keeps nothing: what is left is the call.
func noop() sdk.Plugin {
	return storage.Define(storage.Descriptor{
		Name: "noop", Version: "1.0.0", Summary: "keeps nothing", Traits: storage.Traits{Batch: 512, Lanes: 4},
	}, func(_ context.Context, _ sdk.Env, c noopConfig) (storage.Store, error) {
		if c.Hang {
			_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		}
		return storage.Store{Queues: keepsNothing{}}, nil
	})
}

type noopConfig struct {
	Hang bool `cfg:"hang" doc:"halts while it is opened"`
}

// keepsNothing has what a benchmark calls.
type keepsNothing struct{ storage.Queues }

func (keepsNothing) Append(_ context.Context, _ time.Time, b storage.Batch) ([]storage.Appended, error) {
	out := make([]storage.Appended, len(b.Rows))
	for i := range out {
		out[i].Position = uint64(i) + 1
	}
	return out, nil
}

// plainListener hides the sockets of its conns if they shall be pumped.
type plainListener struct {
	net.Listener
	pump bool
}

func (l *plainListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil || !l.pump {
		return c, err
	}
	return struct {
		net.Conn
		transport.CloseWriter
	}{c, c.(*net.TCPConn)}, nil
}

// guarded counts who was invited.
type guarded struct {
	*plainListener
	mu     sync.Mutex
	guests map[string]bool
}

func (g *guarded) Invite(_ context.Context, host string, who transport.Guest) (transport.Endpoint, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.guests[who.ID] = true
	return transport.Endpoint{Transport: "made-up", Host: host, Port: transport.AddrPort(g.Addr()).Port(), Params: map[string]string{"for": who.ID, "guests": fmt.Sprint(len(g.guests))}}, nil
}

func (g *guarded) Revoke(_ context.Context, id string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.guests, id)
	return nil
}

// misbehave does what a hostile plugin does once it runs.
func misbehave(env sdk.Env, c plainConfig) {
	switch c.Behave {
	case "panic":
		panic("on purpose")
	case "exit":
		os.Exit(9)
	case "hang":
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	case "flood":
		line := append(bytes.Repeat([]byte("flood "), 100), '\n')
		for {
			_, _ = os.Stderr.Write(line)
		}
	case "half":
		for {
			_, _ = os.Stderr.Write(bytes.Repeat([]byte("x"), 4096)) // a line that never ends
			time.Sleep(time.Millisecond)
		}
	case "json":
		_, _ = os.Stderr.WriteString(`{"@message":1}` + "\n" + `{"msg":{"a":[1,2]},"level":7}` + "\n" + "{\n\x1b[31m\n")
	case "foreign":
		foreign()
	case "memory":
		debug.SetGCPercent(-1)
		var hold [][]byte
		for {
			b := make([]byte, 16<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			hold = append(hold, b)
			runtime.KeepAlive(hold)
		}
	case "degraded":
		env.Degraded(errors.New("no bridge found"))
	}
}

// foreign sends what is no connected stream over the hand-off sockets that this
// process has.
func foreign() {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return
	}
	for range 20 {
		for fd := 3; fd < 32; fd++ {
			if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err == nil && kind == unix.SOCK_SEQPACKET {
				for kind := range byte(8) { // among them "a client has come"
					_ = unix.Sendmsg(fd, []byte{1, kind}, unix.UnixRights(int(null.Fd())), nil, unix.MSG_DONTWAIT)
				}
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// notes collects the log.
type notes struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (n *notes) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.Write(p)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.String()
}

// stand is a Host with a folder of plugins that the test binary provides.
type stand struct {
	*Host
	notes   *notes
	metrics *metrics.Set
	folder  string
	events  chan Reachable
}

// binary is the test binary in a plugin folder, made once for all tests.
func binary(t testing.TB, dir string) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	to := filepath.Join(dir, "commucat-transport-plain")
	if os.Link(self, to) != nil {
		in, err := os.Open(self)
		must(t, err)
		defer in.Close()
		out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
		must(t, err)
		_, err = io.Copy(out, in)
		must(t, errors.Join(err, out.Close()))
	}
	all := []Described{
		{Kind: sdk.Transport, Name: "plain", Version: "1.0.0", Protocols: []int{1}, Needs: []transport.Need{{Kind: transport.TCPPort}, {Kind: transport.StateFolder}}},
		{Kind: sdk.Transport, Name: "packets", Version: "1.0.0", Protocols: []int{1}, Needs: []transport.Need{{Kind: transport.UDPPort}}},
		{Kind: sdk.Storage, Name: "sqlite", Version: sqlite.Plugin().Version(), Protocols: []int{1}},
		{Kind: sdk.Storage, Name: "noop", Version: "1.0.0", Protocols: []int{1}},
		{Kind: sdk.Ledger, Name: "file", Version: file.Plugin.Version(), Protocols: []int{1}},
	}
	_, err = Add(t.Context(), to, AddOptions{Describe: says(all...)})
	must(t, err)
}

// newStand makes a Host; change may alter its options.
func newStand(t testing.TB, change func(*Options)) *stand {
	t.Helper()
	if k := sandbox.Probe(); !k.Complete() {
		t.Skipf("this kernel has no %s", k.Missing())
	}
	// Short, for sockets, and with every parent open to the plugins' users.
	dir, err := os.MkdirTemp("", "ph-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &stand{notes: new(notes), folder: filepath.Join(dir, "plugins"), metrics: metrics.New(metrics.Options{}), events: make(chan Reachable, 1024)}
	for _, d := range []string{dir, s.folder, filepath.Join(dir, "state")} {
		must(t, errors.Join(os.MkdirAll(d, 0o755), os.Chmod(d, 0o755)))
	}
	binary(t, s.folder)
	opt := Options{
		Catalog: NewCatalog(s.folder), State: filepath.Join(dir, "state"), Drain: 2 * time.Second, CallWait: 20 * time.Second,
		Log: slog.New(slog.NewTextHandler(s.notes, &slog.HandlerOptions{Level: slog.LevelDebug})), Metrics: s.metrics,
		Accept:  func(c *Conn) { defer c.Close(); _, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) },
		Changed: func(r Reachable) { s.events <- r },
	}
	if change != nil {
		change(&opt)
	}
	s.Host = New(opt)
	t.Cleanup(func() {
		s.Close()
		if t.Failed() {
			t.Logf("log:\n%s", s.notes)
		}
	})
	s.Serve()
	return s
}

// transport starts "plain" under a name.
func (s *stand) plain(t testing.TB, name string, raw map[string]any) *Transport {
	t.Helper()
	tr, err := s.Transport(spec(name, raw))
	must(t, err)
	return tr
}

func spec(name string, raw map[string]any) TransportSpec {
	return TransportSpec{Spec: Spec{Name: name, Plugin: "plain", Raw: raw, Settings: Settings{Memory: uint64(memoryLimit)}}}
}

// serving is plain that must come up.
func (s *stand) serving(t testing.TB, name string, raw map[string]any) *Transport {
	t.Helper()
	tr := s.plain(t, name, raw)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, tr.Wait(ctx))
	return tr
}

// patience bounds what must happen.
const patience = 30 * time.Second

// eventually waits until ok says so; states are looked at, since nothing announces
// them.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// echoes says whether a client gets its bytes back.
func echoes(address string) error {
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		return fmt.Errorf("%q, %w", b, err)
	}
	return nil
}
