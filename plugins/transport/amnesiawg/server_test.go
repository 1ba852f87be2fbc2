package amnesiawg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/conf"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// relay is a server half that echoes, on 127.0.0.1 with a state folder.
func relay(t testing.TB, folder string, raw map[string]any) transport.Server {
	t.Helper()
	if raw == nil {
		raw = map[string]any{}
	}
	if raw["listen"] == nil {
		raw["listen"] = []any{"127.0.0.1:0"}
	}
	o, err := transport.Open(t.Context(), Plugin(), sdk.NewEnv(sdk.EnvOptions{State: folder}), raw)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := o.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, struct{ io.Reader }{c})
				_ = c.Close()
			}()
		}
	}()
	return ln.(transport.Server)
}

// dialer is a client half of its own.
func dialer(t testing.TB, raw map[string]any) transport.Opened {
	t.Helper()
	o, err := transport.Open(t.Context(), Plugin(), nil, raw)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// shut closes a relay whose clients have gone.
func shut(t testing.TB, s transport.Server, conns ...net.Conn) {
	t.Helper()
	for _, c := range conns {
		_ = c.Close()
	}
	srv := s.(*server)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		srv.mu.Lock()
		open := 0
		for _, p := range srv.peers {
			open += len(p.conns)
		}
		srv.mu.Unlock()
		if open == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("streams stay")
		}
	}
	_ = s.Close()
}

func invite(t testing.TB, s transport.Server, g transport.Guest) transport.Endpoint {
	t.Helper()
	e, err := s.Invite(t.Context(), "127.0.0.1", g)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// echoes dials and sends a word to and fro.
func echoes(t testing.TB, o transport.Opened, to transport.Endpoint, key []byte) net.Conn {
	t.Helper()
	c, err := o.Dial(t.Context(), to, transport.Dial{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLink(t *testing.T) {
	s := relay(t, t.TempDir(), nil)
	to := invite(t, s, transport.Guest{ID: "link"})
	again := invite(t, s, transport.Guest{ID: "link"})
	if to.Params["s"] == "" || to.Params["s"] != again.Params["s"] {
		t.Error("the link's secret changed")
	}
	e, err := conf.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	if n := e.Size(); n > 220 {
		t.Errorf("%d bytes of a link's 1,024", n)
	}
	// Two people come by one link at the same time.
	echoes(t, dialer(t, nil), to, nil)
	other := dialer(t, nil)
	for {
		if c, err := other.Dial(t.Context(), to, transport.Dial{}); err == nil {
			_ = c.Close()
			break
		}
	}
	// What is the same for all carries no secret, and lets nobody in.
	if open := invite(t, s, transport.Guest{}); open.Params["s"] != "" {
		t.Error("a secret for nobody in particular")
	} else if _, err := dialer(t, nil).Dial(t.Context(), open, transport.Dial{}); sdk.KindOf(err) != sdk.Denied {
		t.Errorf("without a key: %v", err)
	}
}

func TestDevices(t *testing.T) {
	folder := t.TempDir()
	s := relay(t, folder, map[string]any{"guests": 2})
	private, public, err := conf.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	to := invite(t, s, transport.Guest{ID: "device", Public: public})
	c := echoes(t, dialer(t, nil), to, private)
	for name, g := range map[string]transport.Guest{
		"another's key": {ID: "thief", Public: public},
		"short key":     {ID: "x", Public: public[:31]},
		"long id":       {ID: strings.Repeat("x", 257)},
	} {
		if _, err := s.Invite(t.Context(), "h", g); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	invite(t, s, transport.Guest{ID: "second"})
	if _, err := s.Invite(t.Context(), "h", transport.Guest{ID: "third"}); sdk.KindOf(err) != sdk.Full {
		t.Errorf("a third guest of two: %v", err)
	}

	// A relay that was started anew knows its key, its port and its guests.
	addr := s.Addr().String()
	shut(t, s, c)
	s = relay(t, folder, map[string]any{"guests": 2})
	if s.Addr().String() != addr {
		t.Errorf("%v, then %v", addr, s.Addr())
	}
	echoes(t, dialer(t, nil), to, private)
	for _, name := range []string{identityFile, guestsFile} {
		if info, err := os.Stat(filepath.Join(folder, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

func TestRevoke(t *testing.T) {
	folder := t.TempDir()
	s := relay(t, folder, nil)
	to := invite(t, s, transport.Guest{ID: "out"})
	stays := invite(t, s, transport.Guest{ID: "in"})
	o := dialer(t, nil)
	out, in := echoes(t, o, to, nil), echoes(t, o, stays, nil)
	began := time.Now()
	if err := s.Revoke(t.Context(), "out"); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	t.Logf("the stream ended after %v", time.Since(began))
	srv := s.(*server)
	srv.mu.Lock()
	peers := len(srv.peers)
	srv.mu.Unlock()
	if peers != 1 {
		t.Errorf("%d peers", peers)
	}
	if _, err := in.Write([]byte("x")); err != nil {
		t.Errorf("the other guest: %v", err)
	}
	if err := s.Revoke(t.Context(), "nobody"); err != nil {
		t.Errorf("unknown: %v", err)
	}
	shut(t, s, in, out)
	if s = relay(t, folder, nil); s.(*server).guests.byID["out"] != nil {
		t.Error("a revoked guest is back")
	}
}

// An id that comes with another key loses the one before.
func TestNewKeyReplaces(t *testing.T) {
	s := relay(t, t.TempDir(), nil)
	o := dialer(t, nil)
	private, public, _ := conf.NewKey()
	c := echoes(t, o, invite(t, s, transport.Guest{ID: "d", Public: public}), private)
	next, nextPublic, _ := conf.NewKey()
	to := invite(t, s, transport.Guest{ID: "d", Public: nextPublic})
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the old key's stream goes on")
	}
	echoes(t, o, to, next)
}

// The client says what is wrong.
func TestVerdicts(t *testing.T) {
	s := relay(t, t.TempDir(), nil)
	good := invite(t, s, transport.Guest{ID: "link"})
	e, err := conf.Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*conf.Endpoint)) transport.Endpoint {
		c := e
		change(&c)
		return c.Transport()
	}
	dead, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	port := func(c net.PacketConn) uint16 { return c.LocalAddr().(*net.UDPAddr).AddrPort().Port() }
	refused, dropped := port(dead), port(silent)
	dead.Close()
	for name, tt := range map[string]struct {
		to   transport.Endpoint
		kind sdk.ErrorKind
		text string
	}{
		"wrong key":        {with(func(c *conf.Endpoint) { c.Secret = &[32]byte{1} }), sdk.Denied, "key: "},
		"wrong parameters": {with(func(c *conf.Endpoint) { c.Wire = obfs.Draw(obfs.V2) }), sdk.Invalid, "parameters: "},
		"refused UDP":      {with(func(c *conf.Endpoint) { c.Ports = []uint16{refused} }), sdk.Unavailable, "udp: the network refuses"},
		"blocked UDP":      {with(func(c *conf.Endpoint) { c.Ports = []uint16{dropped} }), sdk.Unavailable, "udp: no answer"},
		"wrong server key": {with(func(c *conf.Endpoint) { c.Server[0] ^= 1 }), sdk.Unavailable, "udp: no answer"},
		"damaged":          {transport.Endpoint{Host: "h", Port: 1, Params: map[string]string{"k": "x"}}, sdk.Invalid, "endpoint: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			c, err := dialer(t, nil).Dial(ctx, tt.to, transport.Dial{})
			if err == nil {
				_ = c.Close()
				t.Fatal("it came through")
			}
			if sdk.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%v (%v), want %s (%v)", err, sdk.KindOf(err), tt.text, tt.kind)
			}
			t.Logf("after %v: %v", time.Since(began).Round(10*time.Millisecond), err)
		})
	}
}

// A relay that was started anew has forgotten its sessions; the client makes a new one.
func TestSessionLost(t *testing.T) {
	folder := t.TempDir()
	s := relay(t, folder, nil)
	to := invite(t, s, transport.Guest{ID: "link"})
	o := dialer(t, nil)
	echoes(t, o, to, nil)
	srv := s.(*server)
	srv.mu.Lock()
	var peers []*peer
	for _, p := range srv.peers {
		peers = append(peers, p)
	}
	srv.mu.Unlock()
	for _, p := range peers {
		srv.remove(p) // as idle, without a word
	}
	echoes(t, o, to, nil)
}

func TestIdleAndExpired(t *testing.T) {
	s := relay(t, t.TempDir(), nil)
	srv := s.(*server)
	count := func() int {
		srv.mu.Lock()
		defer srv.mu.Unlock()
		return len(srv.peers)
	}
	o := dialer(t, nil)
	c := echoes(t, o, invite(t, s, transport.Guest{ID: "a", Expires: time.Now().Add(time.Hour)}), nil)
	srv.sweepAt(time.Now().Add(srv.cfg.Idle + time.Minute))
	if count() != 1 {
		t.Error("a device with a stream was dropped")
	}
	srv.sweepAt(time.Now().Add(2 * time.Hour))
	if count() != 0 {
		t.Error("an expired device stays")
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("its stream goes on")
	}
	idle := echoes(t, o, invite(t, s, transport.Guest{ID: "b"}), nil)
	_ = idle.Close()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		srv.sweepAt(time.Now().Add(srv.cfg.Idle + time.Minute))
		if count() == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("an idle device stays")
		}
	}
}

func TestSeveralPorts(t *testing.T) {
	s := relay(t, t.TempDir(), map[string]any{
		"listen": []any{"127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"},
		"more":   []any{map[string]any{"name": "old", "listen": []any{"127.0.0.1:0"}, "offered": false}},
	})
	device := func(id string) (conf.Endpoint, []byte) {
		private, public, err := conf.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		e, err := conf.Parse(invite(t, s, transport.Guest{ID: id, Public: public}))
		if err != nil || len(e.Ports) != 3 {
			t.Fatalf("%v, %v", e.Ports, err)
		}
		return e, private
	}
	for n := range 3 {
		e, key := device(fmt.Sprint("port ", n))
		e.Ports = e.Ports[n : n+1]
		echoes(t, dialer(t, nil), e.Transport(), key)
	}
	// A listener that is not offered serves the links that name it.
	e, key := device("old")
	srv := s.(*server)
	old := srv.outlets[1]
	e.Ports, e.Wire = old.ports, old.wire
	echoes(t, dialer(t, nil), e.Transport(), key)
	// A stream outlives a change of the port.
	e, key = device("hop")
	c := echoes(t, dialer(t, map[string]any{"hop": "10ms"}), e.Transport(), key)
	for range 200 {
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestMain waits for tunnels, which stay for a while when their last stream has ended.
func TestMain(m *testing.M) {
	code := m.Run()
	var left error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if left = goleak.Find(); left == nil {
			break
		}
	}
	if code == 0 && left != nil {
		fmt.Fprintln(os.Stderr, left)
		code = 1
	}
	os.Exit(code)
}

// A relay that was killed turns to its devices when it is there again, and their
// streams end at once.
func TestRecall(t *testing.T) {
	folder := t.TempDir()
	s := relay(t, folder, nil)
	private, public, err := conf.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	to := invite(t, s, transport.Guest{ID: "d", Public: public})
	o := dialer(t, nil)
	c := echoes(t, o, to, private)
	diary, err := os.ReadFile(filepath.Join(folder, diaryFile))
	if err != nil || len(diary) == 0 {
		t.Fatalf("nothing was noted: %v", err)
	}
	// As after a kill: WireGuard and the stack are gone without a word.
	srv := s.(*server)
	srv.net.Mute()
	_ = srv.Close()
	srv.dev.Close()
	for _, c := range srv.closers {
		_ = c.Close()
	}
	if err := os.WriteFile(filepath.Join(folder, diaryFile), diary, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.cut([][32]byte{[32]byte(public)}) })
	began := time.Now()
	relay(t, folder, nil)
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the stream goes on: %v", err)
	}
	t.Logf("the stream ended %v after the relay was back", time.Since(began))
	echoes(t, o, to, private)
}

// Where a device is now is known after a kill as well, not only where its last handshake
// came from.
func TestWhereabouts(t *testing.T) {
	s := relay(t, t.TempDir(), nil)
	srv := s.(*server)
	private, public, err := conf.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	echoes(t, dialer(t, nil), invite(t, s, transport.Guest{ID: "d", Public: public}), private)
	srv.diary.mu.Lock()
	was := srv.diary.notes[[32]byte(public)]
	srv.diary.notes[[32]byte(public)] = note{at: "0/192.0.2.1:1", when: was.when}
	srv.diary.mu.Unlock()
	srv.whereabouts(time.Now())
	srv.diary.mu.Lock()
	is := srv.diary.notes[[32]byte(public)]
	srv.diary.mu.Unlock()
	if is.at != was.at {
		t.Errorf("%q, want %q", is.at, was.at)
	}
}

// A device that is just coming by itself gets no handshake of ours as well: registering
// another one at that moment undid its own.
func TestRecallLeavesWhoCameAlone(t *testing.T) {
	s := relay(t, t.TempDir(), nil)
	srv := s.(*server)
	var keys [2][32]byte
	for i := range keys {
		_, public, err := conf.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = [32]byte(public)
		invite(t, s, transport.Guest{ID: fmt.Sprint("d", i), Public: public})
	}
	now := time.Now()
	coming, away := keys[0], keys[1]
	for _, k := range keys {
		srv.diary.add(k, "0/127.0.0.1:9", now)
	}
	srv.diary.mu.Lock()
	n := srv.diary.notes[away]
	n.before = true
	srv.diary.notes[away] = n
	srv.diary.mu.Unlock()
	for range 2 { // the second finds nobody
		srv.recall()
	}
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.peers[coming] != nil || srv.peers[away] == nil {
		t.Errorf("recalled: %v who came, %v who was away", srv.peers[coming] != nil, srv.peers[away] != nil)
	}
	if left := srv.diary.waiting(now); len(left) > 0 {
		t.Errorf("%d still wait", len(left))
	}
}
