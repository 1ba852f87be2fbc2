package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
)

// serveAdmin runs an Admin on its socket and gives a client of it.
func serveAdmin(t *testing.T, w *world, change func(*AdminOptions)) (*Client, string) {
	t.Helper()
	opt := AdminOptions{
		Accounts: w.accounts, Codes: w.codes, Version: "1.2.3", Metrics: w.metrics, Clock: func() time.Time { return w.now },
		Link: func(_ context.Context, l LinkTerms) (string, error) {
			if slices.Contains(l.Transports, "none") {
				return "", NoWay("none")
			}
			return fmt.Sprintf("commucat://%s-%x", l.Kind, l.Secret[:2]), nil
		},
	}
	if change != nil {
		change(&opt)
	}
	a, err := NewAdmin(opt)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "admin.sock")
	l, err := ListenUnix(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: a, ReadHeaderTimeout: time.Second}
	done := make(chan struct{})
	go func() { _ = s.Serve(l); close(done) }()
	t.Cleanup(func() { s.Close(); <-done })
	return NewClient(path), path
}

func TestAdminOverTheSocket(t *testing.T) {
	w := newWorld(t, nil)
	var recorded []string
	c, path := serveAdmin(t, w, func(o *AdminOptions) {
		o.Record = func(_ context.Context, action, _ string) { recorded = append(recorded, action) }
		o.Keys = func() any { return []string{"root"} }
		o.RotateKeys = func(context.Context) error { return nil }
		o.TransportKey = func(ctx context.Context, device, name string, public []byte) (ccp.Endpoint, error) {
			return ccp.Endpoint{}, w.accounts.SetTransportKey(ctx, device, ccp.TransportKey{Transport: name, Public: public})
		}
	})
	ctx := context.Background()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	l, err := c.CreateLink(ctx, LinkRequest{Kind: InviteLink, Quota: 3, TTLSeconds: 3600})
	if err != nil || l.Quota != 3 || !l.Expires.Equal(w.now.Add(time.Hour)) || !strings.HasPrefix(l.Text, "commucat://invite-") {
		t.Fatalf("%+v %v", l, err)
	}
	page, err := c.Links(ctx, "", 0)
	if err != nil || len(page.Items) != 1 || page.Items[0].ID != l.ID || page.Items[0].Text != "" {
		t.Errorf("%+v %v", page, err)
	}
	if err := c.RevokeLink(ctx, l.ID); err != nil {
		t.Error(err)
	}
	var p *Problem
	if err := c.RevokeLink(ctx, l.ID); !errors.As(err, &p) || p.Status != 404 || p.Code != "not_found" {
		t.Errorf("second: %v", err)
	}
	if l, err := c.CreateLink(ctx, LinkRequest{Kind: AddressLink}); err != nil || l.Text != "commucat://address-0000" {
		t.Errorf("%+v %v", l, err)
	}
	before, err := c.Links(ctx, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateLink(ctx, LinkRequest{Kind: InviteLink, Transports: []string{"none"}}); !errors.As(err, &p) || p.Status != 409 || p.Code != "no_way" {
		t.Errorf("a link over a transport that is not there: %v", err)
	}
	if _, err := c.CreateLink(ctx, LinkRequest{Kind: InviteLink, Transports: make([]string, 9)}); !errors.As(err, &p) || p.Status != 400 {
		t.Errorf("a link over nine transports: %v", err)
	}
	if after, err := c.Links(ctx, "", 0); err != nil || len(after.Items) != len(before.Items) {
		t.Errorf("a refused link left an invitation: %v, %v", after, err)
	}
	if _, err := c.CreateLink(ctx, LinkRequest{Kind: InviteLink, TTLSeconds: -1}); !errors.As(err, &p) || p.Status != 400 {
		t.Errorf("%v", err)
	}
	users, err := c.Users(ctx, "", 10)
	if err != nil || len(users.Items) != 1 || users.Items[0].Handle != "alice" {
		t.Errorf("%+v %v", users, err)
	}
	u, err := c.User(ctx, "alice")
	if err != nil || len(u.Devices) != 1 || u.Devices[0].ID != w.device {
		t.Errorf("%+v %v", u, err)
	}
	if l, err := c.PairUser(ctx, "alice", time.Minute); err != nil || l.Kind != PairingLink {
		t.Errorf("%+v %v", l, err)
	}
	if _, err := c.SetTransportKey(ctx, "bob", "door", []byte{1}); !errors.As(err, &p) || p.Status != 404 || !strings.Contains(p.Detail, `no device with the id "bob"`) {
		t.Errorf("%v", err)
	}
	if err := c.RevokeDevice(ctx, w.device); err != nil {
		t.Error(err)
	}
	if d, err := c.Device(ctx, w.device); err != nil || d.Status != "revoked" {
		t.Errorf("%+v %v", d, err)
	}
	if k, err := c.RotateKeys(ctx); err != nil || string(k) != `["root"]` {
		t.Errorf("%s %v", k, err)
	}
	if err := c.Reload(ctx); !errors.As(err, &p) || p.Status != 404 {
		t.Errorf("%v", err)
	}
	if got := strings.Join(recorded, " "); got != "link.create link.revoke pair.create device.revoke keys.rotate" {
		t.Errorf("recorded %s", got)
	}
	if s, err := c.Status(ctx); err != nil || !strings.Contains(string(s), `"version":"1.2.3"`) {
		t.Errorf("%s %v", s, err)
	}
}

func TestPages(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 4 {
		w.establish(t, fmt.Sprintf("user%d", i), nil)
	}
	c, _ := serveAdmin(t, w, nil)
	seen, after := map[string]bool{}, ""
	for range 10 {
		p, err := c.Users(context.Background(), after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range p.Items {
			seen[u.ID] = true
		}
		if after = p.Next; after == "" {
			break
		}
	}
	if len(seen) != 5 {
		t.Errorf("%d users", len(seen))
	}
	var p *Problem
	if _, err := c.Users(context.Background(), "", 100000); !errors.As(err, &p) || p.Status != 400 {
		t.Errorf("%v", err)
	}
}

// TestW32HealthAndToken is W-32 and W-04 of the API sheet as well: the configured token
// alone opens the interface over TCP.
func TestW32HealthAndToken(t *testing.T) {
	w := newWorld(t, nil)
	var broken error
	a, _ := NewAdmin(AdminOptions{
		Accounts: w.accounts, Metrics: w.metrics, Version: "1", Token: "secret-token-of-the-operator",
		Checks: map[string]func(context.Context) error{"storage": func(context.Context) error { return broken }},
	})
	get := func(h http.Handler, path string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", path, nil)
		r.Host = "localhost:9180"
		for i := 0; i+1 < len(header); i += 2 {
			if header[i] == "Host" {
				r.Host = header[i+1]
				continue
			}
			r.Header.Set(header[i], header[i+1])
		}
		out := httptest.NewRecorder()
		h.ServeHTTP(out, r)
		return out
	}
	if r := get(a, "/readyz"); r.Code != 200 || r.Body.String() != "ready\n" {
		t.Errorf("%d %s", r.Code, r.Body)
	}
	// Who may operate the relay learns why, a stranger does not.
	broken = errors.New("no disk\nat all")
	if r := get(a, "/readyz"); r.Code != 503 || r.Body.String() != "degraded\nstorage: no disk at all\n" {
		t.Errorf("%d %s", r.Code, r.Body)
	}
	if r := get(a.Public(), "/readyz"); r.Code != 503 || r.Body.String() != "degraded\n" {
		t.Errorf("%d %s", r.Code, r.Body)
	}
	if r := get(a, "/healthz"); r.Code != 200 || decode(t, r)["status"] != "healthy" {
		t.Errorf("%d", r.Code)
	}
	if r := get(a, "/metrics"); !strings.Contains(r.Body.String(), "commucat_frames_ingress 0") {
		t.Errorf("%d %s", r.Code, r.Body)
	}

	// W-32: over TCP only the configured token opens, and W-04: nothing is public.
	const right = "Bearer secret-token-of-the-operator"
	for _, tc := range []struct {
		name   string
		h      http.Handler
		path   string
		header []string
		status int
	}{
		{"right", a.OverTCP(), "/metrics", []string{"Authorization", right}, 200},
		{"no token", a.OverTCP(), "/healthz", nil, 401},
		{"wrong token", a.OverTCP(), "/metrics", []string{"Authorization", "Bearer x"}, 401},
		{"other host", a.OverTCP(), "/metrics", []string{"Authorization", right, "Host", "evil.example:9180"}, 403},
		{"loopback by number", a.OverTCP(), "/metrics", []string{"Authorization", right, "Host", "[::1]:9180"}, 200},
		{"web page", a.OverTCP(), "/metrics", []string{"Authorization", right, "Origin", "https://evil.example"}, 403},
		{"public metrics without token", a.Public(), "/metrics", nil, 401},
		{"public health", a.Public(), "/healthz", nil, 200},
		{"public users", a.Public(), "/v1/users", []string{"Authorization", right}, 404},
	} {
		if r := get(tc.h, tc.path, tc.header...); r.Code != tc.status {
			t.Errorf("%s: %d, want %d", tc.name, r.Code, tc.status)
		}
	}
	none, _ := NewAdmin(AdminOptions{Accounts: w.accounts})
	if r := get(none.OverTCP(), "/healthz", "Authorization", "Bearer "); r.Code != 401 {
		t.Errorf("without a configured token: %d", r.Code)
	}
}

func TestSocketFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "admin.sock")
	l, err := ListenUnix(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ListenUnix(path, nil); !errors.Is(err, ErrInUse) {
		t.Errorf("second listener: %v", err)
	}
	l.(*unixListener).UnixListener.Close() // as a crash leaves it
	l2, err := ListenUnix(path, nil)
	if err != nil {
		t.Fatalf("after a crash: %v", err)
	}
	l2.Close()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket left: %v", err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenUnix(path, nil); err == nil {
		t.Error("replaced a file")
	}
	if _, err := ListenUnix(filepath.Join(dir, strings.Repeat("x", 120)), nil); err == nil {
		t.Error("too long a path")
	}
	left, _ := filepath.Glob(filepath.Join(dir, ".s-*"))
	if len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	if err := NewClient(filepath.Join(dir, "none")).Reload(context.Background()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("%v", err)
	}
	for _, address := range []string{"0.0.0.0:1", "192.0.2.1:9180", "localhost:1", ":9180", "x"} {
		if l, err := ListenTCP(context.Background(), address); err == nil {
			l.Close()
			t.Errorf("%s accepted", address)
		}
	}
	tcp, err := ListenTCP(context.Background(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp.Close()
}

// TestRefusedProcess: a process of this user is let in or not as it is judged.
func TestRefusedProcess(t *testing.T) {
	for _, refused := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "s")
		asked := 0
		l, err := ListenUnix(path, func(pid int) bool { asked = pid; return refused })
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if c, err := l.Accept(); err == nil {
				_, _ = c.Write([]byte("x"))
				c.Close()
			}
		}()
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(c)
		if c.Close(); (len(b) == 0) != refused {
			t.Errorf("refused %v: %q", refused, b)
		}
		l.Close()
		if <-done; asked != os.Getpid() && runtime.GOOS == "linux" {
			t.Errorf("asked for %d", asked)
		}
	}
}

// TestPeer: the kernel's word is asked for.
func TestPeer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if uid, pid, err := peer(s.(*net.UnixConn)); err != nil || int(uid) != os.Geteuid() || pid != os.Getpid() && runtime.GOOS == "linux" {
		t.Errorf("%d %d %v", uid, pid, err)
	}
}
