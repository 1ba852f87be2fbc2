package pluginhost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/commucat/commucat/core/pluginhost/sandbox"
	"github.com/commucat/commucat/core/pluginhost/sandbox/sandboxtest"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

func TestTransportServes(t *testing.T) {
	for _, pump := range []bool{false, true} {
		s := newStand(t, nil)
		tr := s.serving(t, "front-door", map[string]any{"pump": pump})
		if err := echoes(tr.Addr().String()); err != nil {
			t.Errorf("pump %v: %v", pump, err)
		}
		e := <-s.events
		if e.Transport != "front-door" || e.Address != tr.Addr().String() {
			t.Errorf("%+v", e)
		}
		st := s.States()
		if len(st) != 1 || st[0].State != Running || st[0].PID == 0 || st[0].Version != "1.0.0" || len(st[0].Sandbox) == 0 || st[0].Address == "" {
			t.Errorf("%+v", st)
		}
		for _, i := range st[0].Sandbox {
			if !i.On && i.Name != sandbox.ItemMemory && (i.Name != sandbox.ItemUser || os.Geteuid() == 0) {
				t.Errorf("%+v", i)
			}
		}
		invited, err := tr.Invite(t.Context(), "relay.example", transport.Guest{})
		if err != nil || invited.Transport != "front-door" || invited.Host != "relay.example" || invited.Port != transport.AddrPort(tr.Addr()).Port() {
			t.Errorf("%+v, %v", invited, err)
		}
		pid := st[0].PID
		tr.Stop()
		if e := <-s.events; e.Address != "" {
			t.Errorf("%+v", e)
		}
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d: %v", pid, err)
		}
		if len(s.States()) != 0 {
			t.Error("it is still listed")
		}
	}
}

// TestFacts: the relay's own name, and no claim that only the relay can make.
func TestFacts(t *testing.T) {
	got := make(chan *Conn, 1)
	s := newStand(t, func(o *Options) { o.Accept = func(c *Conn) { got <- c } })
	tr := s.serving(t, "side-door", map[string]any{"pump": true})
	c, err := net.Dial("tcp", tr.Addr().String())
	must(t, err)
	defer c.Close()
	in := <-got
	defer in.Close()
	type key struct{}
	in.SetContext(context.WithValue(t.Context(), key{}, 1))
	f := transport.FactsOf(in)
	if f.Transport != "side-door" || f.Entered || f.Compat || f.Remote != transport.AddrPort(c.LocalAddr()) || f.Context.Value(key{}) != 1 {
		t.Errorf("%+v", f)
	}
	if in.bare() {
		t.Error("a pumped stream counts as bare")
	}
	must(t, in.CloseWrite())
	if b, err := io.ReadAll(c); err != nil || len(b) != 0 {
		t.Errorf("%q, %v", b, err)
	}
}

// TestRestart: after kill -9 another process serves on the same address, and clients
// are never refused.
func TestRestart(t *testing.T) {
	s := newStand(t, nil)
	tr := s.serving(t, "x", map[string]any{"pump": true})
	at, first := tr.Addr().String(), s.States()[0].PID
	open, err := net.Dial("tcp", at)
	must(t, err)
	defer open.Close()
	must(t, open.SetDeadline(time.Now().Add(patience)))
	if _, err := open.Write([]byte("x")); err != nil { // it has been accepted once the echo is here
		t.Fatal(err)
	}
	if _, err := open.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	must(t, syscall.Kill(first, syscall.SIGKILL))
	if err := echoes(at); err != nil { // it waits in the kernel's queue
		t.Errorf("after the end: %v", err)
	}
	if _, err := open.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a stream of the process that ended: %v", err)
	}
	st := s.States()[0]
	if st.PID == first || st.Restarts != 1 || !strings.Contains(st.Error, "killed") {
		t.Errorf("%+v", st)
	}
}

// TestGuests: invitations come from the plugin, under the configured name.
func TestGuests(t *testing.T) {
	s := newStand(t, nil)
	tr := s.serving(t, "club", map[string]any{"guard": true})
	for want, id := range map[string]string{"1": "a"} {
		e, err := tr.Invite(t.Context(), "relay.example", transport.Guest{ID: id})
		if err != nil || e.Transport != "club" || e.Params["for"] != id || e.Params["guests"] != want {
			t.Errorf("%+v, %v", e, err)
		}
	}
	must(t, tr.Revoke(t.Context(), "a"))
	if e, err := tr.Invite(t.Context(), "relay.example", transport.Guest{ID: "b"}); err != nil || e.Params["guests"] != "1" {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestDegradedIsNotOffered(t *testing.T) {
	s := newStand(t, nil)
	tr := s.plain(t, "x", map[string]any{"behave": "degraded"})
	eventually(t, "degraded", func() bool { return s.States()[0].Degraded != "" })
	if st := s.States()[0]; st.State != Running || st.Degraded != "no bridge found" {
		t.Errorf("%+v", st)
	}
	if _, err := tr.Invite(t.Context(), "h", transport.Guest{}); sdk.KindOf(err) != sdk.Unavailable {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tr.Wait(ctx); err == nil || !strings.Contains(err.Error(), "no bridge found") {
		t.Errorf("%v", err)
	}
}

// TestSandboxOfARunningPlugin: what a plugin tries from inside, by the same list as
// the sandbox's own tests.
func TestSandboxOfARunningPlugin(t *testing.T) {
	s := newStand(t, nil)
	dir := t.TempDir()
	w := sandboxtest.World{Key: filepath.Join(dir, "key"), Folder: dir, Outside: dir, Writable: filepath.Join(dir, "file"), Unix: filepath.Join(dir, "socket"), Abstract: "commucat-pluginhost-test"}
	put(t, w.Key, "secret", 0o644)
	put(t, w.Writable, "x", 0o666)
	for _, l := range [][2]string{{"tcp", "127.0.0.1:0"}, {"unix", w.Unix}, {"unix", "@" + w.Abstract}} {
		ln, err := net.Listen(l[0], l[1])
		must(t, err)
		defer ln.Close()
		if l[0] == "tcp" {
			w.TCP = ln.Addr().String()
		}
	}
	text, err := json.Marshal(w)
	must(t, err)
	tr := s.serving(t, "prisoner", map[string]any{"world": string(text)})
	err = tr.Probe(t.Context())
	if err == nil || !strings.HasSuffix(err.Error(), "possible []") || strings.Contains(err.Error(), "denied 0") {
		t.Errorf("%v", err)
	}
	t.Log(err)
}

// TestForeignSockets: the relay binds with its own rights what a plugin asks for, so
// that only what the operator has configured counts.
func TestForeignSockets(t *testing.T) {
	type config struct {
		Listen  string   `cfg:"listen"`
		More    []string `cfg:"more"`
		Port    int      `cfg:"port"`
		private string
		Table   struct {
			At string `cfg:"at"`
		} `cfg:"table"`
	}
	cfg := &config{Listen: ":8443", More: []string{"[::1]:9000"}, Port: 51820, private: ":1"}
	cfg.Table.At = "0.0.0.0:7000"
	c := claimsOf([]string{"tcp-port", "udp-port"}, cfg)
	for address, ok := range map[string]bool{
		":8443": true, "127.0.0.1:8443": true, "[::1]:9000": true, ":51820": true, ":7000": true, "127.0.0.1:0": true, "[::1]:0": true, "localhost:0": true,
		":0": false, "0.0.0.0:0": false, ":22": false, ":1": false, ":8444": false, "192.0.2.1:0": false, "x": false, ":http": false,
	} {
		for _, network := range []string{"tcp", "udp"} {
			if err := c.check(network, address); (err == nil) != ok {
				t.Errorf("%s %s: %v", network, address, err)
			}
		}
	}
	for written, want := range map[string]map[string]bool{
		"127.0.0.1:0":  {"127.0.0.1:40000": true, "[::1]:1024": true, "127.0.0.1:1023": false, ":40000": false, "192.0.2.1:40000": false, "192.0.2.1:0": false},
		":0":           {":42832": true, "[::]:0": true, "192.0.2.1:42832": true, "127.0.0.1:40000": true, ":443": false, ":1023": false},
		"0.0.0.0:0":    {":42832": true, "0.0.0.0:0": true, "0.0.0.0:53": false},
		"192.0.2.1:0":  {"192.0.2.1:42832": true, "192.0.2.1:0": true, ":42832": false, "192.0.2.2:42832": false, "127.0.0.1:40000": false, "127.0.0.1:0": true},
		"[::1]:9000":   {":9000": true, ":42832": false, ":0": false, "127.0.0.1:40000": false},
		"no address 0": {":42832": false, "127.0.0.1:40000": false},
	} {
		// An integer that is 0, such as the absent port here, is no port 0.
		free := claimsOf([]string{"udp-port"}, &config{Listen: written})
		for address, ok := range want {
			if err := free.check("udp", address); (err == nil) != ok {
				t.Errorf("%q written, %s: %v", written, address, err)
			}
		}
	}
	if err := claimsOf([]string{"udp-port"}, cfg).check("tcp", ":8443"); sdk.KindOf(err) != sdk.Denied {
		t.Errorf("without the need: %v", err)
	}
	l := newSockets().lend(c)
	for _, network := range []string{"unix", "udp", "sctp"} {
		if _, err := l.listen(t.Context(), network, ":8443"); sdk.KindOf(err) != sdk.Denied {
			t.Errorf("%s: %v", network, err)
		}
	}
	s := newStand(t, nil)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	tr := s.plain(t, "x", map[string]any{"listen": taken.Addr().String()})
	eventually(t, "backoff", func() bool { return s.States()[0].State == Backoff })
	if st := s.States()[0]; !strings.Contains(st.Error, "another program, or another part of the relay, has it") {
		t.Errorf("%+v", st)
	}
	taken.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, tr.Wait(ctx))
}

// TestUpgradeUnderConnects: clients that connect all the time are never refused, and a
// session of another transport notices nothing. With COMMUCAT_SOAK=1 a thousand come
// each second.
func TestUpgradeUnderConnects(t *testing.T) {
	upgrades, every := 5, time.Duration(0)
	if os.Getenv("COMMUCAT_SOAK") != "" {
		upgrades, every = 100, 4*time.Millisecond
	}
	s := newStand(t, nil)
	other := s.serving(t, "other", map[string]any{"pump": true})
	session, err := net.Dial("tcp", other.Addr().String())
	must(t, err)
	defer session.Close()
	tr := s.serving(t, "x", nil)
	at, first := tr.Addr().String(), s.States()[1].PID
	stop, failed, done := make(chan struct{}), make(chan error, 4), make(chan int, 4)
	began := time.Now()
	for range 4 {
		go func() {
			n := 0
			defer func() { done <- n }()
			for {
				// What was late is made up for.
				wait := time.NewTimer(time.Until(began.Add(time.Duration(n) * every)))
				select {
				case <-stop:
					wait.Stop()
					return
				case <-wait.C:
				}
				if err := echoes(at); err != nil {
					failed <- err
					return
				}
				n++
			}
		}()
	}
	for i := range upgrades {
		if err := tr.Upgrade(t.Context(), tr.Spec()); err != nil {
			t.Errorf("upgrade %d: %v", i, err)
		}
		_, err := session.Write([]byte{1, byte(i)})
		var b [2]byte
		if err == nil {
			_, err = io.ReadFull(session, b[:])
		}
		if err != nil || b != [2]byte{1, byte(i)} {
			t.Fatalf("the other transport's session: %v %v", b, err)
		}
	}
	took := time.Since(began)
	close(stop)
	total := 0
	for range 4 {
		total += <-done
	}
	select {
	case err := <-failed:
		t.Errorf("after %d connections: %v", total, err)
	default:
	}
	if st := s.States()[1]; st.PID == first || st.Restarts != 0 || total == 0 {
		t.Errorf("%+v after %d connections", st, total)
	}
	t.Logf("%d connections during %d upgrades, %.0f a second", total, upgrades, float64(total)/took.Seconds())
	eventually(t, "the earlier ones have gone", func() bool { return s.States()[1].Leaving == 0 })
}

// TestUpgradeOfPackets: two processes cannot read one UDP socket. The next one gets it
// when the last one has gone, on the same port, and clients go on after a pause.
func TestUpgradeOfPackets(t *testing.T) {
	s := newStand(t, nil)
	tr, err := s.Transport(TransportSpec{Spec: Spec{Name: "x", Plugin: "packets", Settings: Settings{Memory: memoryLimit}}})
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, tr.Wait(ctx))
	at, pids := tr.Addr().String(), map[int]bool{s.States()[0].PID: true}
	c, err := net.Dial("udp", at)
	must(t, err)
	defer c.Close()
	// answered sends until the answer is there, as whoever uses datagrams must.
	answered := func(text string) {
		t.Helper()
		b := make([]byte, 64)
		eventually(t, "an answer", func() bool {
			_, _ = c.Write([]byte(text)) // refused while nobody reads
			_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			n, err := c.Read(b)
			return err == nil && string(b[:n]) == text
		})
	}
	answered("first")
	for i := range 3 {
		must(t, tr.Upgrade(t.Context(), tr.Spec()))
		must(t, tr.Wait(ctx))
		st := s.States()[0]
		if pids[st.PID] || st.Restarts != 0 || tr.Addr().String() != at {
			t.Errorf("%+v at %v, was at %s", st, tr.Addr(), at)
		}
		pids[st.PID] = true
		answered(fmt.Sprint("after ", i))
	}
	eventually(t, "the earlier ones have gone", func() bool { return s.States()[0].Leaving == 0 })
	if err := tr.Upgrade(t.Context(), TransportSpec{Spec: Spec{Name: "x", Plugin: "packets", Raw: map[string]any{"lisen": ":1"}}}); sdk.KindOf(err) != sdk.Invalid {
		t.Errorf("wrong key: %v", err)
	}
	answered("at last")
}

// TestUpgradeThatFails leaves what runs alone.
func TestUpgradeThatFails(t *testing.T) {
	s := newStand(t, nil)
	tr := s.serving(t, "x", nil)
	first := s.States()[0].PID
	var many sdk.ConfigErrors
	if err := tr.Upgrade(t.Context(), spec("x", map[string]any{"lisen": ":1"})); !errors.As(err, &many) || many[0].Suggestion != "listen" {
		t.Errorf("wrong key: %v", err)
	}
	put(t, filepath.Join(s.folder, "new"), "something else", 0o755)
	must(t, os.Rename(filepath.Join(s.folder, "new"), filepath.Join(s.folder, "commucat-transport-plain")))
	if err := tr.Upgrade(t.Context(), tr.Spec()); !errors.Is(err, sdk.Denied) {
		t.Errorf("changed binary: %v", err)
	}
	// The running version is pinned: it comes back after an end, though another file
	// lies under its name.
	must(t, syscall.Kill(first, syscall.SIGKILL))
	if err := echoes(tr.held()); err != nil {
		t.Error(err)
	}
}

// held is the address, whether the transport is ready or not.
func (t *Transport) held() string {
	t.sockets.mu.Lock()
	defer t.sockets.mu.Unlock()
	for _, s := range t.sockets.held {
		return s.tcp.Addr().String()
	}
	return ""
}
