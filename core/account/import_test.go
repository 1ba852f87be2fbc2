package account_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/sdk/identity"
)

func publicKey(t testing.TB, seed string) [32]byte {
	t.Helper()
	d, err := identity.DeriveDevice([]byte(strings.Repeat(seed, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return d.Public()
}

// judged is one word for each outcome.
func judged(o account.Outcome) string {
	switch {
	case o.Conflict:
		return "conflict: " + o.Reason
	case o.Reason != "":
		return o.Reason
	case o.Present:
		return "present"
	case o.Note != "":
		return "stored, " + o.Note
	}
	return "stored"
}

func TestImport(t *testing.T) {
	w := newWorld(t, account.Options{})
	at := time.Unix(1_700_000_000, 123_000).UTC()
	key := publicKey(t, "k")
	user := func(id, handle string, devices ...account.ForeignDevice) account.Foreign {
		return account.Foreign{User: account.User{ID: id, Handle: handle, Created: at}, Devices: devices}
	}
	device := func(id string) account.ForeignDevice {
		return account.ForeignDevice{ID: id, Public: key, Created: at}
	}
	revoked := func(id string) account.ForeignDevice {
		return account.ForeignDevice{ID: id, Public: key, Created: at, Revoked: true}
	}
	const (
		twin  = "conflict: its handle, or a near-duplicate of it, is taken"
		other = "conflict: its id or handle is an id of something else"
		taken = "conflict: its id is the id or handle of another account"
		gone  = "its account is left out"
	)
	// In this order, into one store.
	for _, c := range []struct {
		name    string
		in      account.Foreign
		user    string
		devices string
	}{
		{"first", user("u1", "ann", device("d1"), revoked("d0")), "stored", "stored, stored"},
		{"again", user("u1", "ann", device("d1"), revoked("d0")), "present", "present, present"},
		{"more devices", user("u1", "ann", device("d1"), device("d2")), "present", "present, stored"},
		{"revoked since", user("u1", "ann", revoked("d2")), "present", "stored, was there and is revoked now"},
		{"alive there, revoked here", user("u1", "ann", device("d2")), "present", "present"},
		{"another key", user("u1", "ann", account.ForeignDevice{ID: "d1", Public: publicKey(t, "l")}), "present", "conflict: this relay has a device with its id and another key"},
		{"another handle", user("u1", "bea", device("d9")), "conflict: this relay has another account with its id", gone},
		{"near-duplicate", user("u2", "A.nn", device("d9")), "stored", "stored"},
		{"like it", user("u3", "a-NN"), twin, ""},
		{"device of another", user("u4", "cora", device("d1"), device("u1"), device("ann"), device("dora")), "stored", "conflict: this relay has a device with its id, of another account, " + taken + ", " + taken + ", stored"},
		{"handle is a device", user("u5", "dora"), other, ""},
		{"id is a device", user("dora", "fay"), other, ""},
		{"bad key", user("u6", "gil", account.ForeignDevice{ID: "g1", Public: [32]byte{1}}, account.ForeignDevice{ID: "g 2", Public: key}), "stored",
			"its key is no acceptable Ed25519 key (not canonical, of small order, or no point), its id is not 1 to 64 of A-Z a-z 0-9 - _ and dot"},
		{"bad handle", user("u7", "a/b"), "its handle breaks the rules", ""},
		{"no id", user("", "hal"), "its id is not 1 to 255 bytes of text", ""},
		{"bad name", account.Foreign{User: account.User{ID: "u8", Handle: "ida", DisplayName: "a\nb", AvatarURL: "javascript:x", Created: at}}, "stored, without display name and avatar, which break the rules", ""},
	} {
		out, err := w.Import(t.Context(), []account.Foreign{c.in})
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		var devices []string
		for _, d := range out[0].Devices {
			devices = append(devices, judged(d))
		}
		if got := judged(out[0].User); got != c.user || strings.Join(devices, ", ") != c.devices {
			t.Errorf("%s: user %q, devices %q, want %q, %q", c.name, got, devices, c.user, c.devices)
		}
	}
	u, err := w.UserByHandle(t.Context(), "ann")
	if err != nil || u.ID != "u1" || !u.Created.Equal(at) {
		t.Errorf("%+v, %v", u, err)
	}
	for id, status := range map[string]account.Status{"d0": account.Revoked, "d1": account.Active, "d2": account.Revoked} {
		if d, err := w.Device(t.Context(), id); err != nil || d.Status != status || d.User != "u1" || d.Public != key {
			t.Errorf("%s: %+v, %v", id, d, err)
		}
	}
	if len(w.changes) != 0 {
		t.Errorf("told: %+v", w.changes)
	}
}

// TestImportIsOne: what is alike within one call is seen, and a list is bounded.
func TestImportIsOne(t *testing.T) {
	w := newWorld(t, account.Options{})
	a := account.Foreign{User: account.User{ID: "u1", Handle: "ann"}}
	for i := range 70 {
		a.Devices = append(a.Devices, account.ForeignDevice{ID: fmt.Sprint("d", i), Public: publicKey(t, "k"), Revoked: i < 10})
	}
	out, err := w.Import(t.Context(), []account.Foreign{a, {User: account.User{ID: "u2", Handle: "Ann"}}, {User: account.User{ID: "u3", Handle: "d69"}}})
	if err != nil || out[1].User.Holder != "u1" || !out[2].User.Conflict {
		t.Fatalf("%+v, %v", out[1:], err)
	}
	devices, err := w.Devices(t.Context(), "u1")
	active := 0
	for _, d := range devices {
		if d.Status == account.Active {
			active++
		}
	}
	if err != nil || len(devices) > 64 || active != 60 {
		t.Errorf("%d devices, %d active, %v", len(devices), active, err)
	}
	if d, err := w.Device(t.Context(), "d0"); err != nil || d.Status != account.Revoked {
		t.Errorf("a revoked id is forgotten: %+v, %v", d, err)
	}
}

func TestImportHistory(t *testing.T) {
	w := newWorld(t, account.Options{})
	key := publicKey(t, "k")
	if _, err := w.Import(t.Context(), []account.Foreign{{User: account.User{ID: "u1", Handle: "ann"}, Devices: []account.ForeignDevice{{ID: "d1", Public: key}}}}); err != nil {
		t.Fatal(err)
	}
	old := [32]byte{9}
	keys := []account.ForeignKey{
		{Device: "d1", Public: old, Retired: true, At: w.now()},
		{Device: "d1", Public: old, At: w.now().Add(-time.Hour)},
		{Device: "d1", Public: old, At: w.now().Add(-500 * 24 * time.Hour)},
		{Device: "none", Public: old, At: w.now()},
	}
	for _, want := range []string{"stored", "present"} {
		out, err := w.ImportKeys(t.Context(), keys)
		if err != nil || judged(out[0]) != want || judged(out[1]) != want || judged(out[2]) != "it is older than 400 days, or of the future" || judged(out[3]) != "its device is not here" {
			t.Errorf("%+v, %v", out, err)
		}
	}
	events, err := w.KeyEvents(t.Context(), "d1")
	if err != nil || len(events) != 1 || events[0].Action != "import" || events[0].Public != old {
		t.Errorf("%+v, %v", events, err)
	}
	lists := [][]account.Friend{{{User: "b"}, {User: "u1"}, {User: "b"}, {User: ""}, {User: "c", Alias: "x\ny"}}, {{User: "x"}}}
	for _, want := range []string{"stored, without entries that break the rules", "present"} {
		out, err := w.ImportFriends(t.Context(), []string{"u1", "none"}, lists)
		if err != nil || judged(out[0]) != want || judged(out[1]) != "its account is not here" {
			t.Errorf("%+v, %v", out, err)
		}
	}
	friends, err := w.Friends(t.Context(), "u1")
	if err != nil || fmt.Sprint(friends) != "[{b } {c }]" {
		t.Errorf("%v, %v", friends, err)
	}
}
