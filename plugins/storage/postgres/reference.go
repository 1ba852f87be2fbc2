package postgres

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// ReferenceConfig is the table of the plugin "reference".
type ReferenceConfig struct {
	Address  []string      `cfg:"address" default:"127.0.0.1:5432" min:"1" max:"8" doc:"servers, host:port or /folder/of/the/socket:port; a standby will do"`
	Database string        `cfg:"database" default:"commucat" min:"1" max:"63" doc:"database of the reference server"`
	User     string        `cfg:"user" default:"commucat" min:"1" max:"63" doc:"role that may read its tables"`
	Password sdk.Secret    `cfg:"password" doc:"password of the role"`
	Schema   string        `cfg:"schema" default:"public" doc:"schema of its tables"`
	TLS      string        `cfg:"tls" default:"auto" enum:"auto,require,off" doc:"encryption: with auto it is required unless all servers are on this machine"`
	Roots    sdk.File      `cfg:"ca" doc:"certificates that may sign the server's, PEM; when empty the system's"`
	Timeout  time.Duration `cfg:"timeout" default:"30s" min:"1s" max:"5m" doc:"how long connecting, and a call without a deadline, may take"`
}

func (c *ReferenceConfig) connection() *Config {
	return &Config{
		Address: c.Address, Database: c.Database, User: c.User, Password: c.Password, Schema: c.Schema,
		TLS: c.TLS, Roots: c.Roots, Connections: 1, Timeout: c.Timeout,
	}
}

// Check implements sdk.Checker.
func (c *ReferenceConfig) Check() error { return c.connection().Check() }

// Reference is the storage plugin "reference": the database of the reference server,
// opened to be imported from. See the package comment.
func Reference() sdk.Plugin {
	return storage.Define(storage.Descriptor{
		Name: "reference", Version: "1.0.0", Summary: "the reference server's PostgreSQL, to import from",
		Traits: storage.Traits{Batch: 1, Lanes: 1, Source: true},
	}, openReference)
}

// reference is one transaction that reads; everything it shows is of one moment. The
// protocol of the server takes one statement at a time, and so does mu.
type reference struct {
	timeout time.Duration
	schema  string // quoted
	// opened is the Version of every record.
	opened uint64

	mu   sync.Mutex
	conn *pgx.Conn
	// columns are those that a table of this database has.
	columns map[string]map[string]bool
	// cursors are open, by their names.
	cursors map[string]*cursor
	queue   string // of the cursor of messages
}

func openReference(ctx context.Context, _ sdk.Env, c ReferenceConfig) (storage.Store, error) {
	pc, err := c.connection().pool()
	if err != nil {
		return storage.Store{}, err
	}
	cc := pc.ConnConfig
	cc.ValidateConnect = nil // a standby is as good
	cc.DefaultQueryExecMode = pgx.QueryExecModeExec
	cc.RuntimeParams = map[string]string{
		"application_name": "commucat import", "timezone": "UTC", "default_transaction_read_only": "on",
		"idle_in_transaction_session_timeout": "0", // the target may need its time
		"bytea_output":                        "hex", "extra_float_digits": "1",
	}
	r := &reference{
		timeout: c.Timeout, schema: pgx.Identifier{c.Schema}.Sanitize(), opened: uint64(time.Now().UnixMicro()),
		cursors: map[string]*cursor{},
	}
	ctx, cancel := r.within(ctx)
	defer cancel()
	if r.conn, err = pgx.ConnectConfig(ctx, cc); err != nil {
		return storage.Store{}, plain("connect", err)
	}
	if err := r.begin(ctx, c.Schema); err != nil {
		_ = r.conn.Close(context.WithoutCancel(ctx))
		return storage.Store{}, err
	}
	return storage.Store{
		Queues: (*referenceQueues)(r), Directory: (*referenceTables)(r), Inventory: (*referenceInventory)(r),
		Ready: r.ready, Close: r.close,
	}, nil
}

func (r *reference) begin(ctx context.Context, schema string) error {
	if _, err := r.conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return plain("begin", err)
	}
	rows, err := r.conn.Query(ctx, `SELECT c.relname, a.attname, has_table_privilege(c.oid, 'SELECT')
		FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
		JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		WHERE n.nspname = $1 AND c.relkind IN ('r', 'p')`, schema)
	if err != nil {
		return plain("tables", err)
	}
	r.columns = map[string]map[string]bool{}
	var table, column string
	var readable bool
	_, err = pgx.ForEachRow(rows, []any{&table, &column, &readable}, func() error {
		t := tableNamed(table)
		if t == nil {
			return nil
		}
		if !readable {
			return &storage.Error{Kind: sdk.Denied, Text: fmt.Sprintf("the role may not read the table %s: GRANT SELECT on it", table)}
		}
		if r.columns[table] == nil {
			r.columns[table] = map[string]bool{}
		}
		r.columns[table][column] = true
		return nil
	})
	if err != nil {
		return plain("tables", err)
	}
	return r.complete(schema)
}

// complete refuses a database that is not the reference's.
func (r *reference) complete(schema string) error {
	for _, name := range []string{"app_user", "user_device"} {
		if r.columns[name] == nil {
			return &storage.Error{Kind: sdk.Invalid, Text: fmt.Sprintf("schema %s of the database has no table %s: it is not the reference's", schema, name)}
		}
	}
	for name, have := range r.columns {
		t := tableNamed(name)
		var missing []string
		for _, c := range append(append([]string(nil), t.keys...), t.columns...) {
			if !have[c] && c != "domain" { // which came later
				missing = append(missing, c)
			}
		}
		if len(missing) > 0 && !t.counted() {
			return &storage.Error{Kind: sdk.Invalid, Text: fmt.Sprintf("table %s.%s has no column %s: it is not the reference's", schema, name, strings.Join(missing, ", "))}
		}
	}
	return nil
}

func (r *reference) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, r.timeout)
}

func (r *reference) ready(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	ctx, cancel := r.within(ctx)
	defer cancel()
	_, err := r.conn.Exec(ctx, "SELECT 1")
	return plain("ready", err)
}

func (r *reference) close(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	ctx, cancel := r.within(ctx)
	defer cancel()
	_ = r.conn.Close(ctx) // it has only read: nothing depends on the end
	return nil
}

// errSource answers whatever would write.
var errSource error = &storage.Error{Kind: sdk.Invalid, Text: "the reference's database is only read"}

// cursor is a query of which pages are fetched.
type cursor struct {
	name string
	// at is the name after which the next row comes.
	at string
	// position is the number of rows fetched.
	position uint64
	ended    bool
}

// declare opens a cursor anew.
func (r *reference) declare(ctx context.Context, name, query string) (*cursor, error) {
	if r.cursors[name] != nil {
		if _, err := r.conn.Exec(ctx, "CLOSE "+name); err != nil {
			return nil, plain("read", err)
		}
		delete(r.cursors, name)
	}
	if _, err := r.conn.Exec(ctx, "DECLARE "+name+" NO SCROLL CURSOR FOR "+query); err != nil {
		return nil, plain("read", err)
	}
	c := &cursor{name: name}
	r.cursors[name] = c
	return c, nil
}

// fetch gets some rows more.
func (r *reference) fetch(ctx context.Context, c *cursor, n int) (pgx.Rows, error) {
	rows, err := r.conn.Query(ctx, fmt.Sprintf("FETCH FORWARD %d FROM %s", n, c.name))
	return rows, plain("read", err)
}
