package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/commucat/commucat/core/pluginhost/sandbox"
	"github.com/commucat/commucat/sdk/client"
	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/transport"
)

// road is what lies between a client and the relay: UDP and TCP on one port of its own. It
// can give the client's packets another source, and swallow them.
type road struct {
	in      *net.UDPConn
	tcp     net.Listener
	to      atomic.Pointer[string]
	blocked atomic.Bool
	streams atomic.Int64 // TCP connections that came

	mu   sync.Mutex
	outs map[netip.AddrPort]net.Conn // by the client's socket
}

func newRoad(t *testing.T) *road {
	t.Helper()
	for range 16 {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(tcp.Addr().(*net.TCPAddr).AddrPort()))
		if err != nil {
			_ = tcp.Close()
			continue
		}
		r := &road{in: udp, tcp: tcp, outs: map[netip.AddrPort]net.Conn{}}
		go r.packets()
		go r.connections()
		t.Cleanup(func() {
			_, _ = udp.Close(), tcp.Close()
			r.move()
		})
		return r
	}
	t.Fatal("no port is free for both")
	return nil
}

func (r *road) packets() {
	b := make([]byte, 2048)
	for {
		n, from, err := r.in.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		if r.blocked.Load() {
			continue
		}
		r.mu.Lock()
		out := r.outs[from]
		if out == nil {
			if out, err = net.Dial("udp", *r.to.Load()); err == nil {
				r.outs[from] = out
				go r.back(out, from)
			}
		}
		r.mu.Unlock()
		if err == nil {
			_, _ = out.Write(b[:n])
		}
	}
}

func (r *road) back(out net.Conn, to netip.AddrPort) {
	b := make([]byte, 2048)
	for {
		n, err := out.Read(b)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err == nil && !r.blocked.Load():
			_, _ = r.in.WriteToUDPAddrPort(b[:n], to)
		}
	}
}

// move changes the address that the relay sees.
func (r *road) move() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for from, out := range r.outs {
		_ = out.Close()
		delete(r.outs, from)
	}
}

func (r *road) connections() {
	for {
		c, err := r.tcp.Accept()
		if err != nil {
			return
		}
		r.streams.Add(1)
		go func() {
			defer c.Close()
			out, err := net.Dial("tcp", *r.to.Load())
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(out, c)
				_ = out.Close()
			}()
			_, _ = io.Copy(c, out)
		}()
	}
}

// detour dials along a road.
type detour struct {
	transport.Dialer
	transport.KeyMaker
	road *road
}

func (d detour) Dial(ctx context.Context, to transport.Endpoint, with transport.Dial) (net.Conn, error) {
	target := net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port)))
	d.road.to.Store(&target)
	to.Host, to.Port = "127.0.0.1", uint16(d.road.tcp.Addr().(*net.TCPAddr).Port)
	return d.Dialer.Dial(ctx, to, with)
}

// travel is a client that comes along a road.
type travel struct {
	*party
	road      *road
	connected atomic.Int64
	resumed   atomic.Int64
}

// depart registers a device that comes by masque alone.
func depart(t *testing.T, ctx context.Context, f *flow, index int, invite string, r *road) *travel {
	t.Helper()
	l, err := link.Parse(invite)
	if err != nil {
		t.Fatal(err)
	}
	profile, err := client.NewProfile(l, "traveller-"+strconv.Itoa(index), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	d, err := namedDialer(pluginDialers(), "masque")
	if err != nil {
		t.Fatal(err)
	}
	v := &travel{road: r, party: &party{flow: f, index: index, next: map[int]uint64{}}}
	v.client, err = client.New(client.Options{
		Profile: profile, Store: client.NewMemoryStore([8]byte{byte(index)}), Handle: v.handle,
		Dialers: []transport.Dialer{detour{d, d.(transport.KeyMaker), r}},
		OnEvent: func(e client.Event) {
			if e.Name == "connected" {
				v.connected.Add(1)
				if e.Resumed {
					v.resumed.Add(1)
				}
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- v.client.Run(run) }()
	t.Cleanup(func() {
		stop()
		<-ended
		_ = v.client.Close()
	})
	if _, err := v.client.Connected(ctx); err != nil {
		t.Fatal(err)
	}
	return v
}

// masquePlugin makes the plugin's binary the only one that is listed.
func masquePlugin(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "cp-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // others' processes run it
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "commucat-transport-masque")
	if err := os.Rename(buildPlugin(t, filepath.Base(file)), file); err != nil {
		t.Fatal(err)
	}
	t.Setenv("COMMUCAT_PLUGINS", dir)
	if code, _, notes := commucat(t, "plugin", "add", file); code != exitOK {
		t.Fatalf("add: %d %s", code, notes)
	}
}

// TestLoadMasqueOnTheRoad: while messages flow through the plugin's own processes, the
// clients' addresses change, the plugin is killed, and UDP is blocked. Sessions go on or
// are resumed, and no message is lost or shown twice.
func TestLoadMasqueOnTheRoad(t *testing.T) {
	if raceDetector {
		t.Skip("a plugin under the race detector needs more memory than it is allowed")
	}
	if k := sandbox.Probe(); !k.Complete() {
		t.Skipf("this kernel has no %s", k.Missing())
	}
	masquePlugin(t)
	dir := dataFolder(t, wide+"[transport.masque]\nlisten = \"127.0.0.1:0\"\n")
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil { // its process has another user
		t.Fatal(err)
	}
	srv := relay(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	running := func() string {
		t.Helper()
		for {
			_, out, _ := commucat(t, "plugin", "list", "--json", "--data", dir)
			for line := range strings.Lines(out) {
				if strings.Contains(line, `"masque"`) && strings.Contains(line, `"state":"running"`) {
					return line
				}
			}
			select {
			case <-ctx.Done():
				t.Fatalf("it does not run: %s\n%s", out, srv.said())
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	running()
	invite := srv.invitation(t, 5, time.Hour)
	f := &flow{changed: make(chan struct{}, 1), wrong: make(chan error, 1)}
	alice, bob := depart(t, ctx, f, 0, invite, newRoad(t)), depart(t, ctx, f, 1, invite, newRoad(t))

	// One round of messages both ways, with something in the middle.
	var rounds uint64
	const each = 500
	round := func(what string, event func()) {
		t.Helper()
		at := f.acked.Load()
		var sending sync.WaitGroup
		for _, v := range []struct{ from, to *travel }{{alice, bob}, {bob, alice}} {
			sending.Go(func() {
				if err := v.from.sendFrom(ctx, v.to.party, rounds*each, each); err != nil {
					f.fail(fmt.Errorf("%s: %w", what, err))
				}
			})
		}
		if err := f.reach(ctx, &f.acked, at+each); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		event()
		began, seen := time.Now(), f.acked.Load()
		if err := f.reach(ctx, &f.acked, min(seen+130, at+2*each)); err != nil { // more than were on their way
			t.Fatalf("%s: %v", what, err)
		}
		t.Logf("%s: messages went on after %v", what, time.Since(began))
		sending.Wait()
		rounds++
		if err := f.reach(ctx, &f.shown, int64(rounds)*2*each); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	both := func(do func(*travel)) func() { return func() { do(alice); do(bob) } }
	for range 3 {
		round("another address", both(func(v *travel) { v.road.move() }))
	}
	if a, b := alice.connected.Load(), bob.connected.Load(); a != 1 || b != 1 {
		t.Errorf("a change of address made connections: %d and %d", a, b)
	}
	_, rest, _ := strings.Cut(running(), `"pid":`)
	pid, err := strconv.Atoi(rest[:strings.IndexAny(rest+",", ",}")])
	if err != nil {
		t.Fatal(err)
	}
	round("kill -9 of the plugin", func() {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	})
	round("UDP blocked in the middle", both(func(v *travel) { v.road.blocked.Store(true) }))
	for _, v := range []*travel{alice, bob} {
		if v.connected.Load() < 2 || v.resumed.Load() != v.connected.Load()-1 {
			t.Errorf("client %d: %d connections, %d of them resumed the session", v.index, v.connected.Load(), v.resumed.Load())
		}
		if v.road.streams.Load() == 0 {
			t.Errorf("client %d did not come over TCP", v.index)
		}
	}
	shut := newRoad(t)
	shut.blocked.Store(true)
	began := time.Now()
	carol := depart(t, ctx, f, 2, invite, shut)
	t.Logf("UDP blocked from the start: connected after %v", time.Since(began))
	if err := carol.send(ctx, bob.party, each); err != nil {
		t.Fatal(err)
	}
	if err := f.reach(ctx, &f.shown, int64(rounds)*2*each+each); err != nil {
		t.Fatal(err)
	}
	if code := srv.terminate(t); code != exitOK {
		t.Errorf("ended with %d: %s", code, srv.said())
	}
}
