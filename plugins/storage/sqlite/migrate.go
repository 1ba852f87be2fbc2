package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// application marks our files in SQLite's header ("CCat").
const application = 0x43436174

// migrations bring the schema from version n to n+1, each in its own transaction.
// They are append-only: what has been released is never edited.
var migrations = []struct{ name, sql string }{
	{"records, messages, marks", `
CREATE TABLE record (
	kind    TEXT    NOT NULL,
	id      TEXT    NOT NULL,
	version INTEGER NOT NULL,
	expires INTEGER,          -- unix microseconds; NULL: stays
	value   BLOB    NOT NULL,
	sum     INTEGER NOT NULL, -- CRC-32C of the row
	PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE INDEX record_expires ON record (expires) WHERE expires IS NOT NULL;
CREATE TABLE counter (
	name  TEXT    NOT NULL PRIMARY KEY,
	value INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE message (
	queue    TEXT    NOT NULL,
	position INTEGER NOT NULL,
	id       BLOB    NOT NULL,
	expires  INTEGER NOT NULL, -- unix seconds
	sum      INTEGER NOT NULL,
	body     BLOB    NOT NULL,
	PRIMARY KEY (queue, position)
) WITHOUT ROWID;
CREATE TABLE mark (
	key   TEXT NOT NULL PRIMARY KEY,
	value BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE note (            -- queue has rows that expire within the bucket
	bucket INTEGER NOT NULL,
	queue  TEXT    NOT NULL,
	PRIMARY KEY (bucket, queue)
) WITHOUT ROWID;
`},
}

// migrate brings the schema up to date. A file of another program or of a newer
// version is left alone.
func migrate(ctx context.Context, conn *sql.Conn) error {
	if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return plain("migrate", err)
	}
	err := step(ctx, conn)
	if err == nil {
		_, err = conn.ExecContext(ctx, "COMMIT")
	}
	if err != nil {
		_, _ = conn.ExecContext(ctx, "ROLLBACK")
	}
	var s *sqlite.Error
	if errors.As(err, &s) && s.Code()&0xff == lib.SQLITE_ERROR { // such as a table that is there already
		return &storage.Error{Kind: sdk.Corrupt, Op: "migrate", Text: "the tables do not fit the version that the database says it has; restore it from a backup", Err: err}
	}
	return plain("migrate", err)
}

func step(ctx context.Context, conn *sql.Conn) error {
	var app, tables, version int
	if err := conn.QueryRowContext(ctx, "PRAGMA application_id").Scan(&app); err != nil {
		return err
	}
	if err := conn.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
		return err
	}
	switch {
	case tables == 0:
		create := fmt.Sprintf("PRAGMA application_id = %d; CREATE TABLE migration (version INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL, applied TEXT NOT NULL)", application)
		if _, err := conn.ExecContext(ctx, create); err != nil {
			return err
		}
	case app != application:
		return &storage.Error{Kind: sdk.Invalid, Text: "the database belongs to another program"}
	}
	if err := conn.QueryRowContext(ctx, "SELECT coalesce(max(version), 0) FROM migration").Scan(&version); err != nil {
		return err
	}
	if version > len(migrations) {
		return &storage.Error{Kind: sdk.Invalid, Text: fmt.Sprintf(
			"the database was written by a newer version (schema %d, this one knows %d); run that version", version, len(migrations))}
	}
	for ; version < len(migrations); version++ {
		m := migrations[version]
		if _, err := conn.ExecContext(ctx, m.sql); err != nil {
			return err
		}
		if _, err := conn.ExecContext(ctx, "INSERT INTO migration VALUES (?, ?, ?)", version+1, m.name,
			time.Now().UTC().Format(time.RFC3339)); err != nil {
			return err
		}
	}
	return nil
}
