package account_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/sdk/ccp"
)

func key(transport, public string) ccp.TransportKey {
	return ccp.TransportKey{Transport: transport, Public: []byte(public)}
}

// keysOf are all keys that the directory has.
func (w *world) keysOf(t *testing.T) map[string][]ccp.TransportKey {
	t.Helper()
	out := map[string][]ccp.TransportKey{}
	for after, more := "", true; more; {
		page, next, err := w.TransportKeys(context.Background(), after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range page {
			out[d.Device] = d.Keys
		}
		after, more = next, next != ""
	}
	return out
}

// last is the last change that was told, and how many there were.
func (w *world) last() (account.Change, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changes[len(w.changes)-1], len(w.changes)
}

func TestTransportKeys(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, account.Options{})
	request := account.Request{
		Device: "dev-a", Public: newKey(t), User: account.Hint{Handle: "alice"}, Invite: w.invite(t, 1),
		Capabilities: ccp.AllCapabilities, Session: "s", Keys: []ccp.TransportKey{key("one", "1"), key("two", "2")},
	}
	g, err := w.Establish(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	// They come with the device, in one transaction and one change.
	if c, n := w.last(); n != 1 || c.Kind != account.DeviceAdded || len(c.Came) != 2 || len(c.Gone) != 0 {
		t.Errorf("%d changes, %+v", n, c)
	}
	w.join(t, "bob", "dev-b")
	w.join(t, "carol", "dev-c")
	if d := cmp.Diff(map[string][]ccp.TransportKey{"dev-a": {key("one", "1"), key("two", "2")}}, w.keysOf(t)); d != "" {
		t.Error(d)
	}
	request.Invite, request.User = nil, account.Hint{}
	for _, step := range []struct {
		name       string
		keys       []ccp.TransportKey
		came, gone []ccp.TransportKey
		left       []ccp.TransportKey
	}{
		{"none named", nil, nil, nil, []ccp.TransportKey{key("one", "1"), key("two", "2")}},
		{"the same", []ccp.TransportKey{key("one", "1")}, nil, nil, []ccp.TransportKey{key("one", "1"), key("two", "2")}},
		{"another", []ccp.TransportKey{key("one", "3")}, []ccp.TransportKey{key("one", "3")}, []ccp.TransportKey{key("one", "1")}, []ccp.TransportKey{key("one", "3"), key("two", "2")}},
	} {
		request.Keys = step.keys
		_, before := w.last()
		if _, err := w.Establish(ctx, request); err != nil {
			t.Fatal(step.name, err)
		}
		c, n := w.last()
		if told := len(step.came)+len(step.gone) > 0; told != (n > before) {
			t.Errorf("%s: %d changes, then %d", step.name, before, n)
		} else if told && (c.Kind != account.KeysChanged || cmp.Diff(step.came, c.Came) != "" || cmp.Diff(step.gone, c.Gone) != "") {
			t.Errorf("%s: %+v", step.name, c)
		}
		if d := cmp.Diff(step.left, w.keysOf(t)["dev-a"]); d != "" {
			t.Error(step.name, d)
		}
	}

	// The operator's key stands beside the device's own.
	if err := w.SetTransportKey(ctx, "dev-a", key(account.ExportSlot("one"), "9")); err != nil {
		t.Fatal(err)
	}
	if err := w.SetTransportKey(ctx, "nobody", key("one", "9")); err == nil {
		t.Error("a key for nobody")
	}

	// Who pairs the device anew has none of the keys of whoever had it before, but
	// those that it announces.
	request.Public, request.Pair, request.Keys = newKey(t), w.code(t, g.User.ID, "dev-a"), []ccp.TransportKey{key("two", "2")}
	if _, err := w.Establish(ctx, request); err != nil {
		t.Fatal(err)
	}
	c, _ := w.last()
	if d := cmp.Diff([]ccp.TransportKey{key("one", "3"), key(account.ExportSlot("one"), "9")}, c.Gone); d != "" || c.Kind != account.DeviceRotated {
		t.Error(d, c.Kind)
	}
	if d := cmp.Diff([]ccp.TransportKey{key("two", "2")}, w.keysOf(t)["dev-a"]); d != "" {
		t.Error(d)
	}

	// Revocation ends them all.
	if err := w.RevokeDevice(ctx, "", "dev-a"); err != nil {
		t.Fatal(err)
	}
	if c, _ := w.last(); len(c.Gone) != 1 || len(w.keysOf(t)) != 0 {
		t.Errorf("%+v, %v", c, w.keysOf(t))
	}
	if err := w.SetTransportKey(ctx, "dev-a", key("one", "9")); err != account.ErrRevoked {
		t.Error(err)
	}
}

// A record does not grow without end.
func TestTransportKeysAreBounded(t *testing.T) {
	w := newWorld(t, account.Options{})
	_, public := w.join(t, "alice", "dev-a")
	for i := range 5 {
		var keys []ccp.TransportKey
		for j := range ccp.MaxTransportKeys {
			keys = append(keys, key(fmt.Sprintf("t-%d-%d", i, j), "k"))
		}
		if _, err := w.Establish(context.Background(), account.Request{Device: "dev-a", Public: public, Session: "s", Keys: keys}); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Second)
	}
	if left := w.keysOf(t)["dev-a"]; len(left) != 2*ccp.MaxTransportKeys {
		t.Errorf("%d keys", len(left))
	}
}

// What a transport refuses goes alone, and not if it has been replaced.
func TestDropTransportKey(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, account.Options{})
	_, public := w.join(t, "alice", "dev-a")
	request := account.Request{Device: "dev-a", Public: public, Session: "s", Keys: []ccp.TransportKey{key("one", "1"), key("two", "2")}}
	if _, err := w.Establish(ctx, request); err != nil {
		t.Fatal(err)
	}
	has := func(k ccp.TransportKey) bool {
		t.Helper()
		ok, err := w.HasTransportKey(ctx, "dev-a", k)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if !has(key("one", "1")) || has(key("one", "2")) || has(key("three", "")) {
		t.Error("what the device has")
	}
	_, before := w.last()
	if err := w.DropTransportKey(ctx, "dev-a", key("one", "of before")); err != nil {
		t.Error(err)
	}
	if _, n := w.last(); n != before {
		t.Error("nothing changed, and it was told")
	}
	if err := w.DropTransportKey(ctx, "dev-a", key("one", "1")); err != nil {
		t.Error(err)
	}
	if c, n := w.last(); n != before+1 || c.Kind != account.KeysChanged || c.Device != "dev-a" || cmp.Diff([]ccp.TransportKey{key("one", "1")}, c.Gone) != "" {
		t.Errorf("%+v", c)
	}
	if has(key("one", "1")) || !has(key("two", "2")) {
		t.Error("not that key alone is gone")
	}
	if err := w.RevokeDevice(ctx, "", "dev-a"); err != nil {
		t.Fatal(err)
	}
	if has(key("two", "2")) {
		t.Error("a revoked device has a key")
	}
	if ok, err := w.HasTransportKey(ctx, "nobody", key("two", "2")); ok || err != nil {
		t.Error(ok, err)
	}
}

func TestGuestID(t *testing.T) {
	seen := map[string]bool{}
	for _, id := range []string{
		account.GuestID("a", []byte("b")), account.GuestID("ab", nil), account.GuestID("", []byte("ab")), account.GuestID("a", []byte("c")),
	} {
		if seen[id] || len(id) > 64 {
			t.Error(id)
		}
		seen[id] = true
	}
	if account.SlotTransport(account.ExportSlot("one")) != "one" || account.SlotTransport("one") != "one" {
		t.Error("slots")
	}
}
