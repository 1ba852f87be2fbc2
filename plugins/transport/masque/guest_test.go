package masque

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// echo sends back what comes.
func echo(c net.Conn) { _, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) }

// works says whether a stream carries bytes both ways.
func works(c net.Conn, words string) error {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	defer c.SetDeadline(time.Time{})
	if _, err := io.WriteString(c, words); err != nil {
		return err
	}
	got := make([]byte, len(words))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != words {
		return errors.New("other bytes came back")
	}
	return nil
}

func dialled(t testing.TB, o transport.Opened, e transport.Endpoint, with transport.Dial) (net.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := o.Dial(ctx, e, with)
	if err == nil {
		t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

// TestWhoGetsIn: links and devices do; keys that are wrong, over or revoked are
// answered as strangers, over QUIC and TCP alike.
func TestWhoGetsIn(t *testing.T) {
	r := start(t, nil, echo)
	o := opened(t, nil)
	private, public, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	invite := func(g transport.Guest) transport.Endpoint {
		t.Helper()
		e, err := r.server.Invite(t.Context(), "127.0.0.1", g)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	soon := time.Now().Add(time.Hour)
	link, device := invite(transport.Guest{ID: "link", Expires: soon}), invite(transport.Guest{ID: "device", Public: public})
	over, revoked := invite(transport.Guest{ID: "over", Expires: time.Now().Add(-time.Second)}), invite(transport.Guest{ID: "revoked"})
	if err := r.server.Revoke(t.Context(), "revoked"); err != nil {
		t.Fatal(err)
	}
	if device.Params[paramKey] != "" || device.Params[paramKeyID] == "" || link.Params[paramKey] == "" {
		t.Error("a device's endpoint carries no private key, a link's does")
	}
	// A link's key with another link's id.
	mixed := invite(transport.Guest{ID: "link"})
	mixed.Params[paramKey] = link.Params[paramKey]
	foreign := start(t, nil, echo)
	stranger := foreign.endpoint(t, "link")
	stranger.Port, stranger.Params[paramPin] = link.Port, link.Params[paramPin]
	for _, c := range []struct {
		name string
		to   transport.Endpoint
		with transport.Dial
		ok   bool
	}{
		{"link", link, transport.Dial{}, true},
		{"link invited again after a revocation", invite(transport.Guest{ID: "revoked"}), transport.Dial{}, true},
		{"device", device, transport.Dial{Key: private}, true},
		{"device with another key", device, transport.Dial{Key: other}, false},
		{"expired", over, transport.Dial{}, false},
		{"revoked", revoked, transport.Dial{}, false},
		{"another link's id", mixed, transport.Dial{}, false},
		{"another relay's link", stranger, transport.Dial{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, only := range []string{"quic", "tcp"} {
				var conn net.Conn
				var err error
				if only == "quic" {
					c.to.Params[paramTCP] = ""
					conn, err = dialled(t, o, c.to, c.with)
				} else {
					inv, ierr := readInvitation(c.to, c.with)
					if ierr != nil {
						t.Fatal(ierr)
					}
					conn, err = (&dialer{to: c.to, inv: inv}).overTCP(t.Context())
					if err == nil {
						defer conn.Close()
					}
				}
				if c.ok {
					if err == nil {
						err = works(conn, "hello "+only)
					}
					if err != nil {
						t.Errorf("%s: %v", only, err)
					}
				} else if !errors.Is(err, transport.ErrRefused) {
					t.Errorf("%s: %v", only, err)
				}
			}
		})
	}
}

// TestRevokeEnds: a revocation ends the guest's streams at once and nobody else's,
// and holds after a restart.
func TestRevokeEnds(t *testing.T) {
	state := t.TempDir()
	r := startIn(t, state, nil, echo)
	o := opened(t, nil)
	mine, theirs := r.endpoint(t, "mine"), r.endpoint(t, "theirs")
	a, err := dialled(t, o, mine, transport.Dial{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := dialled(t, o, theirs, transport.Dial{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{a, b} {
		if err := works(c, "hello"); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.server.Revoke(t.Context(), "mine"); err != nil {
		t.Fatal(err)
	}
	_ = a.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := a.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the revoked guest's stream: %v", err)
	}
	if err := works(b, "still here"); err != nil {
		t.Errorf("the other guest's stream: %v", err)
	}
	_ = r.server.Close()

	again := startIn(t, state, nil, echo)
	mine.Params[paramTCP], theirs.Params[paramTCP] = "", ""
	mine.Port, theirs.Port = transport.AddrPort(again.server.Addr()).Port(), transport.AddrPort(again.server.Addr()).Port()
	if _, err := dialled(t, o, mine, transport.Dial{}); !errors.Is(err, transport.ErrRefused) {
		t.Errorf("revoked before the restart: %v", err)
	}
	c, err := dialled(t, o, theirs, transport.Dial{})
	if err != nil {
		t.Fatalf("a link after the restart: %v", err)
	}
	if err := works(c, "after the restart"); err != nil {
		t.Error(err)
	}
}

// TestExpiryEnds: a stream ends with what allowed it. The clock stands, so that the
// dial comes in time however slow it is.
func TestExpiryEnds(t *testing.T) {
	at := time.Now()
	s := proxying(t, func() time.Time { return at })
	go func() {
		if c, err := s.Accept(); err == nil {
			echo(c)
			_ = c.Close()
		}
	}()
	e, err := s.Invite(t.Context(), "127.0.0.1", transport.Guest{ID: "short", Expires: at.Add(2 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	c, err := dialled(t, opened(t, nil), e, transport.Dial{})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after its end: %v", err)
	}
}

// TestQuota: streams and bytes of one guest are bounded, another's are not.
func TestQuota(t *testing.T) {
	r := start(t, map[string]any{"guest_sessions": 2, "guest_bytes": "100KiB"}, echo)
	o := opened(t, nil)
	e, other := r.endpoint(t, "one"), r.endpoint(t, "other")
	first, err := dialled(t, o, e, transport.Dial{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dialled(t, o, e, transport.Dial{}); err != nil {
		t.Fatal(err)
	}
	if _, err := dialled(t, o, e, transport.Dial{}); !errors.Is(err, sdk.Full) {
		t.Errorf("a third stream: %v", err)
	}
	if err := works(first, strings.Repeat("x", 40<<10)); err != nil {
		t.Errorf("80 KiB: %v", err)
	}
	if err := works(first, strings.Repeat("x", 40<<10)); err == nil {
		t.Error("160 KiB passed")
	}
	c, err := dialled(t, o, other, transport.Dial{})
	if err != nil {
		t.Fatal(err)
	}
	if err := works(c, "hello"); err != nil {
		t.Errorf("another guest: %v", err)
	}
}

// TestBearer: a token instead of a proof, only where the relay allows it.
func TestBearerOverTheWire(t *testing.T) {
	for _, allowed := range []bool{true, false} {
		r := start(t, map[string]any{"bearer": allowed}, echo)
		e := r.endpoint(t, "guest")
		if (e.Params[paramBearer] != "") != allowed {
			t.Errorf("allowed %v: token %q", allowed, e.Params[paramBearer])
		}
		if !allowed {
			var err error
			if e.Params[paramBearer], err = r.server.(*server).secrets.bearerToken(grant{guest: "guest"}); err != nil {
				t.Fatal(err)
			}
		}
		delete(e.Params, paramKey)
		delete(e.Params, paramKeyID)
		c, err := dialled(t, opened(t, nil), e, transport.Dial{})
		if allowed && err == nil {
			err = works(c, "hello")
		}
		if allowed && err != nil || !allowed && !errors.Is(err, transport.ErrRefused) {
			t.Errorf("allowed %v: %v", allowed, err)
		}
	}
}

// TestTrust: the pin of the invitation, the dial's pins and roots, and the name.
func TestTrust(t *testing.T) {
	r := start(t, nil, echo)
	o := opened(t, nil)
	pin := *r.server.(*server).pin
	for _, c := range []struct {
		name   string
		change func(*transport.Endpoint, *transport.Dial)
		ok     bool
	}{
		{"as invited", func(*transport.Endpoint, *transport.Dial) {}, true},
		{"the invitation's pin counts", func(_ *transport.Endpoint, d *transport.Dial) { d.Pins = [][32]byte{{1}} }, true},
		{"another pin", func(e *transport.Endpoint, _ *transport.Dial) {
			e.Params[paramPin] = encode(bytes.Repeat([]byte{1}, 32))
		}, false},
		{"the dial's pin", func(e *transport.Endpoint, d *transport.Dial) {
			delete(e.Params, paramPin)
			d.Pins = [][32]byte{{1}, pin}
		}, true},
		{"system roots", func(e *transport.Endpoint, _ *transport.Dial) { e.Params[paramPin] = pinWeb }, false},
		{"web roots despite pins", func(e *transport.Endpoint, d *transport.Dial) {
			e.Params[paramPin] = pinWeb
			d.Pins = [][32]byte{pin}
		}, false},
		{"insecure", func(e *transport.Endpoint, d *transport.Dial) { e.Params[paramPin], d.Insecure = pinWeb, true }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, tcp := range []string{"", "1"} {
				e, with := r.endpoint(t, "guest"), transport.Dial{}
				e.Params[paramTCP] = tcp
				c.change(&e, &with)
				conn, err := dialled(t, o, e, with)
				if err == nil {
					err = works(conn, "hello")
				}
				if (err == nil) != c.ok {
					t.Errorf("tcp %q: %v", tcp, err)
				}
			}
		})
	}
}

// TestInvitations: what must be refused before anything is sent.
func TestInvitations(t *testing.T) {
	r := start(t, nil, echo)
	for name, change := range map[string]func(map[string]string){
		"no guest":     func(p map[string]string) { delete(p, paramKey) },
		"no key id":    func(p map[string]string) { delete(p, paramKeyID) },
		"bad key":      func(p map[string]string) { p[paramKey] = "AAAA" },
		"no base64":    func(p map[string]string) { p[paramKey] = "!" },
		"bad key id":   func(p map[string]string) { p[paramKeyID] = "=" },
		"long key id":  func(p map[string]string) { p[paramKeyID] = strings.Repeat("A", 400) },
		"bad pin":      func(p map[string]string) { p[paramPin] = "AAAA" },
		"bad port":     func(p map[string]string) { p[paramChained] = "0" },
		"no such port": func(p map[string]string) { p[paramChained] = "65536" },
	} {
		e := r.endpoint(t, "guest")
		change(e.Params)
		if _, err := dialled(t, opened(t, nil), e, transport.Dial{}); !errors.Is(err, sdk.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, g := range map[string]transport.Guest{
		"long id": {ID: strings.Repeat("x", maxGuest+1)}, "short key": {ID: "x", Public: []byte{1}},
	} {
		if _, err := r.server.Invite(t.Context(), "relay.example", g); !errors.Is(err, sdk.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	nobody, err := r.server.Invite(t.Context(), "relay.example", transport.Guest{})
	if err != nil || nobody.Host != "relay.example" || nobody.Transport != Name || nobody.Params[paramKey] != "" || nobody.Params[paramPin] == "" {
		t.Errorf("%+v %v", nobody, err)
	}
}
