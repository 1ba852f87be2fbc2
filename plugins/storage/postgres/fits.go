package postgres

import (
	"context"
	"errors"
	"io/fs"

	"github.com/jackc/pgx/v5"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// misfits names what the storage needs of its schema and has not got. It reads the
// catalogue alone, so that it waits for no lock of a table.
const misfits = `WITH need (name, rights, columns) AS (VALUES
	('queue', '{SELECT,INSERT,UPDATE}'::text[], '{name,no,last,messages,bytes,done}'::text[]),
	('message', '{SELECT,INSERT,DELETE}', '{queue,position,id,expires,payload}'),
	('mark', '{SELECT,INSERT,UPDATE,DELETE}', '{key,value}'),
	('record', '{SELECT,INSERT,UPDATE,DELETE}', '{kind,id,version,expires,value}'),
	('timeline', '{SELECT,INSERT,UPDATE}', '{system,line,floor,checked}'),
	('migration', '{SELECT}', '{version}')
), found AS (SELECT *, to_regclass(name)::oid AS rel FROM need)
SELECT coalesce(string_agg(what, ', ' ORDER BY what), '') FROM (
	SELECT 'table ' || name || ' is missing' FROM found WHERE rel IS NULL
	UNION ALL SELECT 'column ' || c || ' of table ' || name || ' is missing' FROM found, unnest(columns) AS c
	WHERE rel IS NOT NULL AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = rel AND attname = c AND NOT attisdropped)
	UNION ALL SELECT 'no right to ' || r || ' table ' || name FROM found, unnest(rights) AS r
	WHERE rel IS NOT NULL AND NOT has_table_privilege(rel, r)
	UNION ALL SELECT 'sequence version is missing' WHERE to_regclass('version') IS NULL
	UNION ALL SELECT 'no right to ' || r || ' sequence version' FROM unnest('{SELECT,UPDATE}'::text[]) AS r
	WHERE NOT has_table_privilege(to_regclass('version')::oid, r)
) AS w (what)`

// misfitError is what misfits found.
type misfitError string

func (e misfitError) Error() string { return string(e) }

// fits sees that what writing needs is there and allowed.
func (s *store) fits(ctx context.Context, conn *pgx.Conn) error {
	var wrong string
	err := conn.QueryRow(ctx, misfits).Scan(&wrong)
	switch {
	case err != nil:
		return plain("look at the tables", err)
	case wrong != "":
		return &storage.Error{Kind: sdk.Unavailable, Op: "postgres: schema " + s.lines.schema, Text: "restore it whole from its dump, with the relay's role as owner of the schema and of all that is in it", Err: misfitError(wrong)}
	}
	return s.outdated(ctx, conn)
}

// outdated says once that a newer version has changed the tables meanwhile. It made them so
// that this one can go on.
func (s *store) outdated(ctx context.Context, conn *pgx.Conn) error {
	names, err := fs.Glob(scripts, "migrations/*.sql")
	if err != nil {
		return err
	}
	m := migrator{schema: s.lines.schema, timeout: s.timeout, names: names}
	_, err = m.version(ctx, conn)
	if errors.Is(err, sdk.Unsupported) {
		if !s.told.Swap(true) {
			s.log.Warn("a newer version has changed the tables; bring this node to it", "error", err)
		}
		return nil
	}
	return err
}
