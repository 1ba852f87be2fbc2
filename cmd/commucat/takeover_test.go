package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/commucat/commucat/core/api"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/client"
	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/http2"
)

// invitation asks the running relay for a link.
func (p *process) invitation(t *testing.T, quota int, life time.Duration) string {
	t.Helper()
	cl := api.NewClient(strings.TrimPrefix(p.Admin, "unix:"))
	l, err := cl.CreateLink(t.Context(), api.LinkRequest{Kind: api.InviteLink, Quota: quota, TTLSeconds: int64(life / time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	return l.Text
}

// forged makes a profile from a link, changes it and saves it.
func forged(t *testing.T, text, handle string, change func(*client.Profile)) string {
	t.Helper()
	l, err := link.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	p, err := client.NewProfile(l, handle, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	change(p)
	dir := filepath.Join(t.TempDir(), "profile")
	if err := p.Save(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestTakeover: whoever is not what he says is refused with the stated code and
// exit code 3, and nobody is disturbed by it. What a command line can show stands
// in testdata/script/register.txtar and pair.txtar.
func TestTakeover(t *testing.T) {
	srv, other := relay(t, dataFolder(t, wide)), relay(t, dataFolder(t, wide))
	invite := srv.invitation(t, 50, time.Hour)
	alice := filepath.Join(t.TempDir(), "alice")
	if code, _, notes := commucat(t, "client", "register", "--server", invite, "--handle", "alice", "--profile", alice); code != 0 {
		t.Fatal(notes)
	}
	known, err := client.LoadProfile(alice)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := link.Parse(other.Invite)
	if err != nil {
		t.Fatal(err)
	}
	// Links tell whole seconds: what is made now for one second is over after two.
	// The entry credential is another link's: with its own the relay would not
	// even show that it is one.
	short, err := link.Parse(srv.invitation(t, 5, time.Second))
	if err != nil {
		t.Fatal(err)
	}
	late := forged(t, invite, "late", func(p *client.Profile) { p.Invite = short.Secret[:] })
	expired := time.NewTimer(2 * time.Second)

	for _, c := range []struct {
		name, dir, code string
	}{
		{"known device id with another key", forged(t, invite, "mallory", func(p *client.Profile) { p.DeviceID = known.DeviceID }), ccp.CodeKeyMismatch},
		{"known device id and certificate with another key", forged(t, invite, "mallory", func(p *client.Profile) {
			p.DeviceID, p.UserID, p.Certificate, p.Invite = known.DeviceID, known.UserID, known.Certificate, nil
		}), ccp.CodeKeyMismatch},
		{"handle without a link", forged(t, invite, "alice", func(p *client.Profile) { p.Invite = nil }), ccp.CodeInviteInvalid},
		{"new handle without a link", forged(t, invite, "mallory", func(p *client.Profile) { p.Invite = nil }), ccp.CodeInviteInvalid},
		{"invitation of another relay", forged(t, invite, "mallory", func(p *client.Profile) { p.Invite = foreign.Secret[:] }), ccp.CodeInviteInvalid},
		{"handle of another with a good invitation", forged(t, invite, "alice", func(*client.Profile) {}), ccp.CodeHandleTaken},
		{"pairing code that nobody made", forged(t, invite, "mallory", func(p *client.Profile) {
			p.Pairing, p.Invite, p.Handle = make([]byte, 16), nil, ""
		}), ccp.CodePairingInvalid},
		{"certificate of another device", forged(t, invite, "x", func(p *client.Profile) {
			p.UserID, p.Certificate, p.Invite, p.Handle = known.UserID, known.Certificate, nil, ""
		}), ccp.CodeCertificateInvalid},
		{"expired invitation", late, ccp.CodeInviteInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.dir == late {
				<-expired.C
			}
			code, stdout, notes := commucat(t, "client", "listen", "--profile", c.dir, "--timeout", "20s", "--count", "1")
			if code != exitRefused || stdout != "" || !strings.Contains(notes, "("+c.code+")") {
				t.Errorf("ended with %d, %q; want %d and %s", code, notes, exitRefused, c.code)
			}
		})
	}
	if code, _, notes := commucat(t, "client", "send", "--profile", alice, "--to", "alice", "still here"); code != exitOK && code != exitRefused {
		t.Errorf("the device that all this was about: %d %s", code, notes)
	}
	code, stdout, notes := commucat(t, "client", "devices", "list", "--profile", alice, "--json")
	if code != exitOK || strings.Count(stdout, `"device_id"`) != 1 {
		t.Errorf("devices of the account: %d %s %s", code, stdout, notes)
	}
}

// thief is a dialer that keeps the bearer token of a request.
type thief struct {
	transport.Dialer
	mu    sync.Mutex
	token string
	call  func() (transport.RoundTripCloser, error)
}

func (d *thief) Call(ctx context.Context, to transport.Endpoint, with transport.Dial) (transport.RoundTripCloser, error) {
	again := func() (transport.RoundTripCloser, error) {
		return d.Dialer.(transport.Caller).Call(ctx, to, with)
	}
	trip, err := again()
	d.mu.Lock()
	d.call = again
	d.mu.Unlock()
	return &listening{trip, d}, err
}

type listening struct {
	transport.RoundTripCloser
	d *thief
}

func (l *listening) RoundTrip(r *http.Request) (*http.Response, error) {
	l.d.mu.Lock()
	l.d.token = r.Header.Get("Authorization")
	l.d.mu.Unlock()
	return l.RoundTripCloser.RoundTrip(r)
}

// TestStolenBearer: a bearer token opens nothing once its device is revoked, and
// the live session ends with the stated code.
func TestStolenBearer(t *testing.T) {
	srv := relay(t, dataFolder(t, wide))
	dir := forged(t, srv.Invite, "alice", func(*client.Profile) {})
	p, err := client.LoadProfile(dir)
	if err != nil {
		t.Fatal(err)
	}
	store, err := client.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	d := &thief{Dialer: http2.NewDialer()}
	c, err := client.New(client.Options{Profile: p, Store: store, Dialers: []transport.Dialer{d}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	if err := c.Call(ctx, "GET", "/api/devices", nil, nil); err != nil {
		t.Fatal(err)
	}
	ask := func() (int, string) {
		t.Helper()
		trip, err := d.call()
		if err != nil {
			t.Fatal(err)
		}
		defer trip.Close()
		r := &http.Request{Method: "GET", URL: &url.URL{Path: "/api/devices"}, Header: http.Header{"Authorization": {d.token}}}
		resp, err := trip.RoundTrip(r.WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		var problem struct{ Code string }
		_ = json.Unmarshal(b, &problem) // a list has no code
		return resp.StatusCode, problem.Code
	}
	if !strings.HasPrefix(d.token, "Bearer ") {
		t.Fatalf("no bearer token was seen: %q", d.token)
	}
	if status, code := ask(); status != 200 || code != "" {
		t.Fatalf("while the device is active: %d %s", status, code)
	}
	cl := api.NewClient(strings.TrimPrefix(srv.Admin, "unix:"))
	if err := cl.RevokeDevice(ctx, c.Profile().DeviceID); err != nil {
		t.Fatal(err)
	}
	if status, code := ask(); status/100 != 4 || code != "token_invalid" && code != "revoked" {
		t.Errorf("after revocation: %d %s", status, code)
	}
	err = <-ended
	if code, ok := client.IsRefused(err); !ok || code != ccp.CodeRevoked {
		t.Errorf("the live session ended with %v", err)
	}
	code, _, notes := commucat(t, "client", "devices", "list", "--profile", saved(t, c.Profile()))
	if code != exitRefused || !strings.Contains(notes, "(revoked)") {
		t.Errorf("devices list: %d %s", code, notes)
	}
}

// saved writes a profile into a folder of its own.
func saved(t *testing.T, p *client.Profile) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "copy")
	if err := p.Save(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}
