package postgres

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

//go:embed migrations/*.sql
var scripts embed.FS

// migrationLock is the advisory lock of migrations: "commucat" in ASCII.
const migrationLock = 0x636f6d6d75636174

// prepare checks the server and brings the schema to this version. Of several relays
// that start at once one migrates and the others wait.
func (s *store) prepare(ctx context.Context, schema string) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return plain("connect", err)
	}
	defer conn.Release()
	var version int
	if err := conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		return plain("connect", err)
	}
	if version < 140000 {
		return &storage.Error{Kind: sdk.Unsupported, Err: errTooOld}
	}
	if err := s.unsafe(ctx); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", int64(migrationLock)); err != nil {
		return plain("migrate", err)
	}
	defer func() {
		// A connection that is gone has given its locks back.
		_, _ = conn.Exec(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", int64(migrationLock))
	}()
	return migrate(ctx, conn.Conn(), schema)
}

func migrate(ctx context.Context, conn *pgx.Conn, schema string) error {
	quoted := pgx.Identifier{schema}.Sanitize()
	if _, err := conn.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+quoted); err != nil {
		return plain("make schema "+schema, err)
	}
	if _, err := conn.Exec(ctx, "CREATE TABLE IF NOT EXISTS migration (version int PRIMARY KEY, applied timestamptz NOT NULL DEFAULT now())"); err != nil {
		return plain("migrate", err)
	}
	var at int
	if err := conn.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM migration").Scan(&at); err != nil {
		return plain("migrate", err)
	}
	names, err := fs.Glob(scripts, "migrations/*.sql")
	if err != nil {
		return err
	}
	if at > len(names) {
		return &storage.Error{Kind: sdk.Unsupported, Text: fmt.Sprintf("schema %s was made by a newer version (%d, this one knows %d); install that version", schema, at, len(names))}
	}
	for i, name := range names[at:] {
		script, err := scripts.ReadFile(name)
		if err != nil {
			return err
		}
		if err := apply(ctx, conn, string(script), at+i+1); err != nil {
			return plain(fmt.Sprintf("migrate to version %d", at+i+1), err)
		}
	}
	return nil
}

// apply runs one script and notes it, in one transaction.
func apply(ctx context.Context, conn *pgx.Conn, script string, version int) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		// The simple protocol takes a script of several statements.
		if _, err := tx.Exec(ctx, script, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "INSERT INTO migration (version) VALUES ($1)", version)
		return err
	})
}
