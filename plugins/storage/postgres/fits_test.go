package postgres_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/commucat/commucat/plugins/storage/postgres"
	"github.com/commucat/commucat/plugins/storage/postgres/pgserver"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// TestUnsound: what happens to a server and to the tables while a store is open, and
// before one is opened. It is not ready and stores nothing, says why, and goes on by
// itself when it is mended.
func TestUnsound(t *testing.T) {
	t.Parallel()
	s := pgserver.Start(t)
	set := func(name, value string) func() { return func() { s.Set(name, value) } }
	sql := func(statement string) func() {
		return func() { s.SQL("commucat", "SET search_path = commucat; "+statement) }
	}
	open := func() (storage.Store, error) {
		return storage.Open(t.Context(), postgres.Plugin(), nil, map[string]any{"address": []any{s.Address()}})
	}
	st := openPair(t, s)
	next := uint64(1)
	for _, test := range []struct {
		name      string
		harm      func()
		says      string
		mend      func()
		kind      error // of opening
		someWrite bool  // something can still be stored
	}{
		{"fsync", set("fsync", "off"), "fsync = off", set("fsync", "on"), sdk.Invalid, false},
		{"full_page_writes", set("full_page_writes", "off"), "full_page_writes = off", set("full_page_writes", "on"), sdk.Invalid, false},
		{"no table of messages", sql("ALTER TABLE message RENAME TO x"), "table message is missing", sql("ALTER TABLE x RENAME TO message"), sdk.Invalid, false},
		{"no table of marks", sql("ALTER TABLE mark RENAME TO x"), "table mark is missing", sql("ALTER TABLE x RENAME TO mark"), sdk.Invalid, true},
		{"no column", sql("ALTER TABLE queue RENAME COLUMN messages TO x"), "column messages of table queue", sql("ALTER TABLE queue RENAME COLUMN x TO messages"), sdk.Invalid, false},
		{"no sequence", sql("ALTER SEQUENCE version RENAME TO x"), "sequence version is missing", sql("ALTER SEQUENCE x RENAME TO version"), sdk.Invalid, true},
		{"no right", sql("ALTER TABLE message OWNER TO postgres"), "no right to INSERT table message", sql("ALTER TABLE message OWNER TO commucat"), sdk.Invalid, false},
		{"a version that is too low", sql("DELETE FROM migration WHERE version = 3"), "does not fit the tables", sql("INSERT INTO migration VALUES (3)"), sdk.Invalid, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			putAlways(t, st, "q", next)
			next++
			test.harm()
			if test.name != "a version that is too low" { // that is asked of the next start alone
				waitFor(t, "it is not ready", func() bool {
					err := st.Ready(t.Context())
					return errors.Is(err, sdk.Unavailable) && strings.Contains(err.Error(), test.says)
				})
			}
			// A setting reaches one connection sooner than another.
			waitFor(t, "nothing is stored", func() bool {
				_, err := put(t.Context(), st, "q", next)
				return test.someWrite || errors.Is(err, sdk.Unavailable)
			})
			other, err := open()
			if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("opening: %v", err)
			}
			if err == nil {
				_ = other.Close(context.Background())
			}
			test.mend()
			waitFor(t, "it is ready again", func() bool { return st.Ready(t.Context()) == nil })
		})
	}
	putAlways(t, st, "q", next)
}

// TestAddressWithPassword: a URL in the place of an address is refused without showing
// the password in it.
func TestAddressWithPassword(t *testing.T) {
	_, err := storage.Open(t.Context(), postgres.Plugin(), nil, map[string]any{"address": []any{"postgres://commucat:UrlSecret99@db/x"}})
	if err == nil || strings.Contains(err.Error(), "UrlSecret99") || !strings.Contains(err.Error(), "host:port") {
		t.Errorf("%v", err)
	}
}
