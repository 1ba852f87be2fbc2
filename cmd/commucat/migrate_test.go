package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/commucat/commucat/core/reference"
	"github.com/commucat/commucat/plugins/storage/postgres/pgserver"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/client"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/link"
)

// referenceDevice is a device as the reference's client makes one: one secret for both
// of its keys.
func referenceDevice(t *testing.T, seed string) identity.Device {
	t.Helper()
	d, err := identity.DeriveDevice([]byte(strings.Repeat(seed, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// referenceProfile is such a device with what it needs to know of this relay.
func referenceProfile(t *testing.T, invite string, d identity.Device, id, user, handle string) string {
	t.Helper()
	l, err := link.Parse(invite)
	if err != nil {
		t.Fatal(err)
	}
	p, err := client.NewProfile(l, "any", strings.NewReader(strings.Repeat("r", 1024)))
	if err != nil {
		t.Fatal(err)
	}
	p.DeviceID, p.Device, p.Static, p.UserID, p.Handle, p.Invite = id, d.Private, d.Private, user, handle, nil
	dir := filepath.Join(t.TempDir(), id)
	if err := p.Save(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// referenceRows are SQL values of what the reference kept: two accounts that talk to
// each other, and rows in which something is wrong.
func referenceRows(t *testing.T, alice, bob identity.Device) string {
	t.Helper()
	var b strings.Builder
	user := func(id, handle, domain string) {
		fmt.Fprintf(&b, "INSERT INTO app_user VALUES ('%s', '%s', 'Name of %s', NULL, '2025-10-01 10:00:00+00', now(), '%s');\n", id, handle, handle, domain)
	}
	device := func(id, user, key, status string) {
		fmt.Fprintf(&b, "INSERT INTO user_device VALUES ('%s', '%s', '\\x%s', '%s', '2025-10-02 10:00:00+00');\n", id, user, key, status)
	}
	user("u-alice", "alice", "local")
	user("u-bob", "bob", "localhost")
	user("u-carol", "Alice", "local") // like another
	user("u-dave", "da/ve", "local")
	user("u-erin", "erin", "far.example")
	user("u-mallory", "mallory", "local")
	a, c := alice.Public(), bob.Public()
	device("alice-1", "u-alice", hex.EncodeToString(a[:]), "active")
	device("alice-0", "u-alice", strings.Repeat("11", 32), "revoked")
	device("bob-1", "u-bob", hex.EncodeToString(c[:]), "active")
	device("carol-1", "u-carol", hex.EncodeToString(c[:]), "active")
	device("small", "u-mallory", "01"+strings.Repeat("00", 31), "active")
	device("wide", "u-mallory", "ee"+strings.Repeat("ff", 30)+"7f", "active") // y = p + 1
	device("short", "u-mallory", "0102", "active")
	device("odd id", "u-mallory", hex.EncodeToString(a[:]), "active")
	device("diagnose", "u-mallory", strings.Repeat("00", 32), "diagnostic")
	message := func(id, inbox string, typ ccp.Type, channel uint32, body, expires string) {
		f, err := ccp.Append(nil, ccp.Frame{Type: typ, Channel: channel, Sequence: 9, Payload: []byte(body)})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "INSERT INTO relay_queue VALUES ('%s', '%s', '\\x%x', now() - interval '1 hour' + interval '1 ms' * %d, %s);\n", id, inbox, f, b.Len(), expires)
	}
	const tomorrow = "now() + interval '1 day'"
	for i := range 200 {
		message(fmt.Sprint("m", 999-i), "inbox:bob-1", ccp.TypeMsg, 7, fmt.Sprint("text ", i), tomorrow)
	}
	message("typing", "inbox:bob-1", ccp.TypeTyping, 7, `{"device":"alice-1"}`, tomorrow)
	message("voice", "inbox:bob-1", ccp.TypeVoiceFrame, 7, "x", tomorrow)
	message("hello", "inbox:bob-1", ccp.TypeHello, 7, "{}", tomorrow)
	message("old", "inbox:bob-1", ccp.TypeMsg, 7, "late", "now() - interval '1 s'")
	message("nobody", "inbox:carol-1", ccp.TypeMsg, 7, "x", tomorrow)
	message("far", "inbox:bob-1@far.example", ccp.TypeMsg, 7, "x", tomorrow)
	message("channel", "7", ccp.TypeMsg, 7, "x", tomorrow)
	b.WriteString(`
		INSERT INTO relay_queue VALUES ('cut', 'inbox:bob-1', '\x0505', now(), now() + interval '1 day'), ('long', 'inbox:` + strings.Repeat("x", 300) + `', '', now(), now());
		INSERT INTO session VALUES ('tell-nobody', 'u-alice', 'alice-1', '', now(), 60);
		INSERT INTO device_pairing (pair_code, user_id, issuer_device_id, issued_at, expires_at) VALUES ('TELL-NONE', 'u-alice', 'alice-1', now(), now());
		INSERT INTO server_secret (name, version, secret, valid_after, rotates_at, expires_at) VALUES ('admin-token', 1, 'tell-noone', now(), now(), now());
		INSERT INTO user_blob VALUES ('u-alice', 'friends', '[{"id":"u-bob","handle":"bob"},{"user_id":"u-erin","alias":"E"},{"user_id":"u-bob"}]', now()), ('u-bob', 'friends', 'none', now()), ('u-bob', 'theme', '[]', now());
		INSERT INTO chat_group VALUES ('g', 'alice-1', now()), ('h', 'carol-1', now());
		INSERT INTO group_member VALUES ('g', 'alice-1', 'owner', now()), ('g', 'bob-1', 'admin', now()), ('g', 'small', 'member', now()), ('h', 'carol-1', 'owner', now()), ('h', 'bob-1', 'member', now());
		INSERT INTO device_key_event VALUES ('k1', 'alice-1', '\x` + strings.Repeat("22", 32) + `', now()), ('k2', 'alice-1', '\x22', now()), ('k3', 'carol-1', '\x` + strings.Repeat("22", 32) + `', now());
		INSERT INTO device_rotation_audit (rotation_id, device_id, old_public_key, new_public_key, signature, proof_expires_at, applied_at) VALUES ('r1', 'alice-1', '\x` + strings.Repeat("22", 32) + `', '\x00', '', now(), now());
		INSERT INTO friend_requests (id, from_user_id, to_user_id) VALUES ('f1', 'u-dave', 'u-bob');
		INSERT INTO federation_peer VALUES ('far.example', 'https://far.example', '', 'active', now());
	`)
	return b.String()
}

// TestLoadImportReference moves from the reference to this relay, by the programs: whoever
// had a device there is known here by its key, and gets what waited for it, once.
func TestLoadImportReference(t *testing.T) {
	if raceDetector {
		t.Skip("a plugin under the race detector needs more memory than it is allowed")
	}
	alice, bob := referenceDevice(t, "a"), referenceDevice(t, "b")
	pg := pgserver.Start(t)
	pg.Reference(referenceRows(t, alice, bob))
	pg.Guard("reader", "hidden-word")
	pg.SQL("commucat", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
	added(t, "commucat-storage-reference", "commucat-storage-postgres")
	config := wide + fmt.Sprintf("[plugin.reference]\naddress = [\"127.0.0.1:%d\"]\nuser = \"reader\"\npassword = \"hidden-word\"\n", pg.Port)
	dir := openFolder(t, config)
	srv := relay(t, dir)
	invite, address := srv.Invite, srv.address()
	try := func(args ...string) (code int, rep reference.Report, all string) {
		t.Helper()
		code, out, notes := commucat(t, append([]string{"migrate", "import-reference", "--data", dir, "--json"}, args...)...)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &rep); err != nil && code == exitOK {
			t.Fatalf("%q: %v", out, err)
		}
		return code, rep, out + notes
	}
	if code, _, all := try(); code != exitFailed || !strings.Contains(all, "is used by another relay") {
		t.Fatalf("beside a running relay: %d %s", code, all)
	}
	if code := srv.terminate(t); code != exitOK {
		t.Fatalf("the relay ended with %d", code)
	}
	before := pg.SQL("commucat", "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables WHERE schemaname = 'public'")

	code, rep, all := try("--dry-run")
	if code != exitOK || !rep.DryRun {
		t.Fatalf("dry run: %d %s", code, all)
	}
	importedWell(t, &rep)
	code, rep, all = try()
	if code != exitOK || rep.DryRun {
		t.Fatalf("import: %d %s", code, all)
	}
	importedWell(t, &rep)
	for _, secret := range []string{"tell-", "TELL-", "hidden-word"} {
		if strings.Contains(all, secret) {
			t.Errorf("a secret is told: %s", all)
		}
	}
	code, rep, all = try()
	if code != exitOK || len(rep.Carried()) > 0 {
		t.Fatalf("again: %d %v %s", code, rep.Carried(), all)
	}
	if after := pg.SQL("commucat", "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables WHERE schemaname = 'public'"); after != before {
		t.Errorf("%s rows were written in the source, before %s", after, before)
	}

	importShared(t, config, pg.Port)
	srv = spawn(t, dir, "--listen", address)
	if err := srv.ready(); err != nil {
		t.Fatal(err)
	}
	at := referenceProfile(t, invite, bob, "bob-1", "u-bob", "bob")
	code, out, notes := commucat(t, "client", "listen", "--profile", at, "--count", "200", "--timeout", "30s", "--json")
	if code != exitOK {
		t.Fatalf("listen: %d %s %s", code, out, notes)
	}
	for i, line := range strings.Split(strings.TrimSpace(out), "\n") {
		var m struct {
			Text    string `json:"text"`
			From    string `json:"from"`
			Channel uint32 `json:"channel"`
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil || m.Text != fmt.Sprint("text ", i) || m.Channel != 7 || m.From != "" {
			t.Fatalf("line %d: %s", i, line)
		}
	}
	// Who is imported writes to who is, both ways by a device of the reference.
	from := referenceProfile(t, invite, alice, "alice-1", "u-alice", "alice")
	if code, _, notes := commucat(t, "client", "send", "--profile", from, "--to", "bob", "new"); code != exitOK {
		t.Fatalf("send: %d %s", code, notes)
	}
	code, out, notes = commucat(t, "client", "listen", "--profile", at, "--count", "1", "--timeout", "30s")
	if code != exitOK || !strings.Contains(out, "new") {
		t.Errorf("listen: %d %s %s", code, out, notes)
	}
	// A stranger with the id and another key stays outside, and so does a revoked device.
	for id, d := range map[string]identity.Device{"bob-1": alice, "alice-0": alice, "small": bob} {
		p := referenceProfile(t, invite, d, id, "", "")
		if code, out, _ := commucat(t, "client", "listen", "--profile", p, "--count", "1", "--timeout", "20s"); code != exitRefused {
			t.Errorf("%s with another key: %d %s", id, code, out)
		}
	}
	if code := srv.terminate(t); code != exitOK {
		t.Errorf("ended with %d: %s", code, srv.said())
	}
	// What was delivered does not come again, and what came to the reference meanwhile does.
	pg.SQL("commucat", "INSERT INTO relay_queue SELECT 'late', channel_id, payload, now(), expires_at FROM relay_queue WHERE envelope_id = 'm999'")
	code, rep, all = try()
	if code != exitOK || fmt.Sprint(rep.Carried()) != "map[relay-queue:1]" {
		t.Fatalf("at the end: %d %v %s", code, rep.Carried(), all)
	}
	if code, out, _ := commucat(t, "audit", "verify", "--data", dir); code != exitOK {
		t.Errorf("audit: %d %s", code, out)
	}
}

// importShared imports into PostgreSQL, where several relays would share the keys too.
func importShared(t *testing.T, config string, port int) {
	t.Helper()
	dir := openFolder(t, config+fmt.Sprintf("[storage]\nbackend = \"postgres\"\naddress = [\"127.0.0.1:%d\"]\n", port))
	srv := relay(t, dir)
	if code := srv.terminate(t); code != exitOK {
		t.Fatalf("the relay ended with %d", code)
	}
	for _, carried := range []bool{true, false} {
		code, out, notes := commucat(t, "migrate", "import-reference", "--data", dir, "--json")
		lines := strings.Split(strings.TrimSpace(out), "\n")
		var rep reference.Report
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &rep); err != nil || code != exitOK {
			t.Fatalf("into postgres: %d %s %s", code, out, notes)
		}
		if carried {
			importedWell(t, &rep)
		} else if len(rep.Carried()) > 0 {
			t.Errorf("again into postgres: %v", rep.Carried())
		}
	}
}

// importedWell compares a report with referenceRows.
func importedWell(t *testing.T, rep *reference.Report) {
	t.Helper()
	want := map[string][3]uint64{ // rows, carried, left out
		"app-user": {6, 3, 3}, "user-device": {9, 4, 5}, "relay-queue": {209, 201, 8}, "user-blob": {3, 1, 2},
		"chat-group": {2, 1, 1}, "group-member": {5, 2, 3}, "device-key-event": {3, 1, 2}, "device-rotation-audit": {1, 1, 0},
		"session": {1, 0, 1}, "device-pairing": {1, 0, 1}, "server-secret": {1, 0, 1}, "friend-requests": {1, 0, 1}, "federation-peer": {1, 0, 1},
	}
	if len(rep.Tables) != 20 || rep.Conflicts != 0 {
		t.Errorf("%d tables, %d conflicts", len(rep.Tables), rep.Conflicts)
	}
	for _, tb := range rep.Tables {
		w := want[tb.Name]
		if got := [3]uint64{tb.Rows, tb.Carried, tb.Left}; got != w || tb.Rows != tb.Carried+tb.Present+tb.Left {
			b, _ := json.Marshal(tb)
			t.Errorf("%s: %v, want %v\n%s", tb.Name, got, w, b)
		}
		left := uint64(0)
		for _, r := range tb.Reasons {
			left += r.Rows
		}
		if left != tb.Left {
			t.Errorf("%s: %d left out, reasons for %d", tb.Name, tb.Left, left)
		}
	}
}
