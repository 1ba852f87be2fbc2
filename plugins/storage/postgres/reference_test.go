package postgres_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/storage/postgres"
	"github.com/commucat/commucat/plugins/storage/postgres/pgserver"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/storage"
)

func openReference(ctx context.Context, keys map[string]any) (storage.Store, error) {
	return storage.Open(ctx, postgres.Reference(), nil, keys)
}

// TestReference reads the reference's tables, in pages, of one moment, and no secrets.
func TestReference(t *testing.T) {
	pg := pgserver.Start(t)
	keys := map[string]any{"address": []any{pg.Address()}}
	if _, err := openReference(t.Context(), keys); !errors.Is(err, sdk.Invalid) || !strings.Contains(err.Error(), "no table app_user") {
		t.Fatalf("an empty database: %v", err)
	}
	pg.Reference(`
		INSERT INTO app_user SELECT lpad(i::text, 4, '0'), 'h' || i, NULL, NULL, '2025-01-02 03:04:05.123456+00', now() FROM generate_series(1, 500) AS i;
		INSERT INTO app_user VALUES ('Z', 'upper', repeat('x', 2000000), NULL, 'infinity', now()), ('~猫', 'last', E'tab\t"', 'https://a', '2025-01-02 03:04:05+00', now());
		INSERT INTO user_device SELECT 'd' || i, lpad((i % 3 + 1)::text, 4, '0'), decode(repeat('ab', 32), 'hex'), 'active', now() FROM generate_series(1, 9) AS i;
		INSERT INTO session VALUES ('very-secret-token', 'Z', 'd1', '', now(), 60), ('another-secret', 'Z', 'd1', '', now(), 60);
		INSERT INTO server_secret (name, version, secret, valid_after, rotates_at, expires_at) VALUES ('noise-static', 1, 'private', now(), now(), now());
		INSERT INTO relay_queue SELECT 'e' || i, 'inbox:d1', decode(repeat('00', 100), 'hex'), timestamptz '2025-01-01' + i * interval '1s', 'infinity' FROM generate_series(1, 300) AS i;
		INSERT INTO relay_queue VALUES ('big', 'inbox:d''2', decode(repeat('00', 17 << 20), 'hex'), '-infinity', '2025-03-01 00:00:00+00');
	`)
	s, err := openReference(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(t.Context())
	now := time.Now()

	kinds, err := s.Inventory.Kinds(t.Context(), "", 100)
	if err != nil || len(kinds) != 20 || !slices.IsSorted(kinds) {
		t.Fatalf("%q, %v", kinds, err)
	}
	// What is written from now on is not seen, what is read is of one moment.
	pg.SQL("commucat", "DELETE FROM app_user WHERE user_id = '0007'; INSERT INTO app_user VALUES ('0000', 'late', NULL, NULL, now(), now())")
	list := func(kind string, limit int) (out []storage.Record) {
		t.Helper()
		for after := ""; ; {
			page, err := s.Directory.List(t.Context(), now, storage.Range{Kind: kind, After: after, Limit: limit})
			if err != nil || len(page) > limit {
				t.Fatalf("%s: %d, %v", kind, len(page), err)
			}
			if len(page) == 0 {
				return out
			}
			for _, r := range page {
				if r.ID <= after || r.Version != page[0].Version || r.Version == 0 {
					t.Fatalf("%q after %q, version %d", r.ID, after, r.Version)
				}
				after = r.ID
			}
			out = append(out, page...)
		}
	}
	users := list("app-user", 77)
	if len(users) != 502 || users[6].ID != "0007" || users[500].ID != "Z" || users[501].ID != "~猫" {
		t.Fatalf("%d users, %q", len(users), users[6].ID)
	}
	if got := string(users[500].Value); !strings.HasPrefix(got, `{"too_long":2`) {
		t.Errorf("a row that is too long is %.100q", got)
	}
	if got := string(users[501].Value); got != `{"handle":"last","display_name":"tab\t\"","avatar_url":"https://a","created_at":"2025-01-02T03:04:05+00:00","domain":"local"}` {
		t.Errorf("%s", got)
	}
	// Another place than where the last page ended is found as well.
	page, err := s.Directory.List(t.Context(), now, storage.Range{Kind: "app-user", After: "0250", Prefix: "03", Limit: 5})
	if err != nil || len(page) != 5 || page[0].ID != "0300" {
		t.Errorf("%v, %v", page, err)
	}
	got, err := s.Directory.Get(t.Context(), now, []storage.Key{{Kind: "app-user", ID: "0007"}, {Kind: "app-user", ID: "0000"}, {Kind: "user-device", ID: "0001\x00d3"}})
	if err != nil || got[0].Version == 0 || got[1].Version != 0 || !bytes.Contains(got[2].Value, []byte(`"pubkey":"\\xabab`)) {
		t.Errorf("%v, %v", got, err)
	}
	for kind, want := range map[string]string{"session": `{"rows":2}`, "server-secret": `{"rows":1}`, "relay-queue": `{"rows":301}`, "device-pairing": `{"rows":0}`} {
		if r := list(kind, 10); len(r) != 1 || string(r[0].Value) != want {
			t.Errorf("%s: %v", kind, r)
		}
	}
	if d := list("user-device", 4); len(d) != 9 || d[0].ID != "0001\x00d3" {
		t.Errorf("%d devices, the first %q", len(d), d[0].ID)
	}
	referenceMessages(t, s, now)
	t.Run("conformance", func(t *testing.T) {
		plugintest.Storage(t, func(ctx context.Context, _ string) (storage.Store, error) { return openReference(ctx, keys) }, plugintest.StorageOptions{Source: true})
	})

	// Nothing can be written.
	_, errAppend := s.Queues.Append(t.Context(), now, storage.Batch{})
	_, errDrop := s.Queues.Drop(t.Context(), "q")
	_, errPurge := s.Directory.Purge(t.Context(), now, 1)
	for i, err := range []error{errAppend, errDrop, errPurge, s.Queues.Done(t.Context(), nil), s.Directory.Commit(t.Context(), now, nil)} {
		if !errors.Is(err, sdk.Invalid) {
			t.Errorf("write %d: %v", i, err)
		}
	}
	pg.SQL("commucat", "REVOKE SELECT ON user_blob FROM commucat")
	if _, err := openReference(t.Context(), keys); !errors.Is(err, sdk.Denied) || !strings.Contains(err.Error(), "user_blob") {
		t.Errorf("without the right to read: %v", err)
	}
	pg.Kill()
	if _, err := s.Directory.List(t.Context(), now, storage.Range{Kind: "user-blob", Limit: 1}); !errors.Is(err, sdk.Unavailable) {
		t.Errorf("a server that is gone: %v", err)
	}
}

func referenceMessages(t *testing.T, s storage.Store, now time.Time) {
	t.Helper()
	names, err := s.Inventory.Queues(t.Context(), "", 10)
	if err != nil || !slices.Equal(names, []string{"inbox:d'2", "inbox:d1"}) {
		t.Fatalf("%q, %v", names, err)
	}
	if names, err = s.Inventory.Queues(t.Context(), names[1], 10); err != nil || len(names) != 0 {
		t.Errorf("%q, %v", names, err)
	}
	type head struct {
		ID      string `json:"envelope_id"`
		Due     *int64 `json:"deliver_after"`
		Expires *int64 `json:"expires_at"`
		Length  int
	}
	read := func(queue string, after uint64, n int) (heads []head, last uint64) {
		t.Helper()
		rows, err := s.Queues.Read(t.Context(), now, queue, after, storage.Page{Messages: n, Bytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			text, body, _ := bytes.Cut(r.Payload, []byte("\n"))
			var h head
			if err := json.Unmarshal(text, &h); err != nil || r.Position <= last || (h.Length != len(body) && h.Length < 16<<20) {
				t.Fatalf("%s: %v", text, err)
			}
			heads, last = append(heads, h), r.Position
		}
		return heads, last
	}
	var all []head
	for after := uint64(0); ; {
		page, last := read("inbox:d1", after, 70)
		if len(page) == 0 {
			break
		}
		all, after = append(all, page...), last
	}
	if len(all) != 300 || all[9].ID != "e10" || all[299].Expires != nil || *all[0].Due != time.Date(2025, 1, 1, 0, 0, 1, 0, time.UTC).UnixMicro() {
		t.Fatalf("%d messages, %+v", len(all), all[:min(len(all), 1)])
	}
	if again, _ := read("inbox:d1", 100, 1); len(again) != 1 || again[0].ID != "e101" {
		t.Errorf("%+v", again)
	}
	if big, _ := read("inbox:d'2", 0, 5); len(big) != 1 || big[0].Length != 17<<20 || big[0].Due != nil {
		t.Errorf("%+v", big)
	}
	d, err := s.Queues.Depths(t.Context(), []string{"inbox:d1", "none"})
	if err != nil || fmt.Sprint(d) != "[{300 30000} {0 0}]" {
		t.Errorf("%v, %v", d, err)
	}
}
