package reality

import (
	"context"
	"errors"
	"io"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/transport"
)

// TestGuests: a guest's short id works until it is revoked or expires, over a restart,
// and its connections go with it.
func TestGuests(t *testing.T) {
	r := startServer(t, baseConfig(t, goCover(t)))
	r.echoAll()
	ctx := context.Background()
	e, err := r.ln.Invite(ctx, "127.0.0.1", transport.Guest{ID: "link-1"})
	if err != nil {
		t.Fatal(err)
	}
	same, err := r.ln.Invite(ctx, "127.0.0.1", transport.Guest{ID: "link-1"})
	if err != nil || same.Params[ParamShortID] != e.Params[ParamShortID] || e.Params[ParamShortID] == r.endpoint().Params[ParamShortID] {
		t.Errorf("short ids: %v, %v, everybody's %v", e.Params, same.Params, r.endpoint().Params)
	}
	if err := checkEcho(e, "", 100); err != nil {
		t.Fatal(err)
	}
	r.restart()
	r.echoAll()
	e.Port = transport.AddrPort(r.ln.Addr()).Port()
	c, err := dialRig(ctx, e, "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.ln.Revoke(ctx, "link-1"), r.ln.Revoke(ctx, "nobody")); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("revoked, and the connection lives: %v", err)
	}
	if err := checkEcho(e, "", 10); !errors.Is(err, transport.ErrRefused) {
		t.Errorf("revoked: %v", err)
	}
	short, err := r.ln.Invite(ctx, "127.0.0.1", transport.Guest{ID: "link-2", Expires: time.Now().Add(-time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	if err := checkEcho(short, "", 10); !errors.Is(err, transport.ErrRefused) {
		t.Errorf("expired: %v", err)
	}
}

// TestDevices: a device has a short id that it has drawn itself, which nobody else can take.
func TestDevices(t *testing.T) {
	r := startServer(t, baseConfig(t, coverSelf))
	r.echoAll()
	ctx := t.Context()
	private, public, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	e, err := r.ln.Invite(ctx, "127.0.0.1", transport.Guest{ID: "device", Public: public})
	if err != nil || e.Params[ParamShortID] != "" {
		t.Fatalf("%v %v", e, err)
	}
	try := func(key []byte) error {
		c, err := (&dialer{now: time.Now}).dial(ctx, e, transport.Dial{Roots: testAuthority().roots, Key: key})
		if err != nil {
			return err
		}
		defer c.Close()
		return echoOver(c, 100)
	}
	if err := errors.Join(try(private), r.ln.Register(ctx, []transport.Guest{{ID: "device", Public: public}}), try(private)); err != nil {
		t.Error(err)
	}
	_, other, _ := newKey()
	everybody := mustID(r.endpoint().Params[ParamShortID])
	for name, g := range map[string]transport.Guest{
		"taken": {ID: "thief", Public: public}, "everybody's": {ID: "thief", Public: everybody[:]}, "short": {ID: "thief", Public: []byte{1}},
	} {
		if err := r.ln.Register(ctx, []transport.Guest{g}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if err := r.ln.Register(ctx, []transport.Guest{{ID: "thief", Public: public}, {ID: "next", Public: other}}); err == nil || try(other) != nil {
		t.Errorf("one that cannot be let in keeps another out: %v", err)
	}
	r.restart()
	r.echoAll()
	e.Port = transport.AddrPort(r.ln.Addr()).Port()
	if err := errors.Join(try(private), try(other), r.ln.Revoke(ctx, "device"), try(other)); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if err := try(private); !errors.Is(err, transport.ErrRefused) {
		t.Errorf("revoked: %v", err)
	}
}

// TestRotation: links with the former key work beside new ones, and stop working when
// it is taken out.
func TestRotation(t *testing.T) {
	raw := baseConfig(t, goCover(t))
	r := startServer(t, raw)
	r.echoAll()
	before := r.endpoint()
	old := raw["private_key"]
	raw["private_key"], raw["old_private_keys"] = strings.TrimSpace(string(newDraft(t).PrivateKey)), []any{old}
	raw["listen"] = r.addr
	r.restart()
	r.echoAll()
	if before.Params[ParamPublicKey] == r.endpoint().Params[ParamPublicKey] {
		t.Error("the link has the former key")
	}
	if err := errors.Join(checkEcho(before, "", 100), checkEcho(r.endpoint(), "", 100)); err != nil {
		t.Error(err)
	}
	delete(raw, "old_private_keys")
	r.restart()
	r.echoAll()
	if err := checkEcho(before, "", 100); !errors.Is(err, transport.ErrRefused) {
		t.Errorf("without the former key: %v", err)
	}
}

// TestRotationDrawn: new links have a new drawn key and id at once, former links work until
// the overlap ends, whatever is restarted meanwhile, and guests keep their own id.
func TestRotationDrawn(t *testing.T) {
	raw := baseConfig(t, coverSelf)
	delete(raw, "private_key")
	delete(raw, "short_ids")
	r := newRig(t, raw)
	restart := func() {
		t.Helper()
		r.restart()
		r.echoAll()
		raw["listen"] = r.addr
	}
	r.start()
	r.awaitHealth(nil)
	r.echoAll()
	raw["listen"] = r.addr
	before := r.endpoint()
	guest, err := r.ln.Invite(t.Context(), "127.0.0.1", transport.Guest{ID: "g"})
	if err != nil {
		t.Fatal(err)
	}
	raw["rotated"], raw["overlap"] = time.Now().UTC().Format(time.RFC3339), "1h"
	restart()
	after := r.endpoint()
	again, err := r.ln.Invite(t.Context(), "127.0.0.1", transport.Guest{ID: "g"})
	if err != nil {
		t.Fatal(err)
	}
	if after.Params[ParamPublicKey] == before.Params[ParamPublicKey] || after.Params[ParamShortID] == before.Params[ParamShortID] {
		t.Error("the link has the former key or id")
	}
	if again.Params[ParamShortID] != guest.Params[ParamShortID] || again.Params[ParamPublicKey] != after.Params[ParamPublicKey] {
		t.Error("a guest has another id, or the former key")
	}
	check := func(when string, formerGood bool) {
		t.Helper()
		if err := errors.Join(checkEcho(after, "", 100), checkEcho(again, "", 100)); err != nil {
			t.Errorf("%s: new links: %v", when, err)
		}
		for name, e := range map[string]transport.Endpoint{"link": before, "guest": guest} {
			switch err := checkEcho(e, "", 100); {
			case formerGood && err != nil:
				t.Errorf("%s: the former %s: %v", when, name, err)
			case !formerGood && (!errors.Is(err, transport.ErrRefused) || !strings.Contains(err.Error(), "ask for a new link")):
				t.Errorf("%s: the former %s: %v", when, name, err)
			}
		}
		mixed := after
		mixed.Params = maps.Clone(after.Params)
		mixed.Params[ParamShortID] = before.Params[ParamShortID]
		if err := checkEcho(mixed, "", 100); !errors.Is(err, transport.ErrRefused) {
			t.Errorf("%s: the former id with the new key: %v", when, err)
		}
	}
	check("within the overlap", true)
	if n := r.ln.figures.former.Load(); n != 2 {
		t.Errorf("%d by former keys, want 2", n)
	}
	restart()
	check("after a restart", true)
	raw["overlap"] = "0s"
	restart()
	check("ended", false)
}
