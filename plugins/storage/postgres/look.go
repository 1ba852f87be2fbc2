package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// lookEvery is how often a connection that is in use is asked again what each new one is
// asked: settings take effect, and tables are replaced, without its ending.
const lookEvery = 5 * time.Second

// state is what a connection says of the server.
type state struct {
	path     string
	readOnly bool
	unsafe   []string // settings that are off
	life     string
}

const lookQuery = `SELECT current_setting('search_path'), current_setting('transaction_read_only'),
	concat_ws(',', (SELECT oid FROM pg_database WHERE datname = current_database()),
		coalesce(pg_relation_filenode(to_regclass('queue')), 0), (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint),
	current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit')`

// safeSettings are what makes COMMIT mean the disk, in the order of lookQuery.
var safeSettings = []string{"fsync", "full_page_writes", "synchronous_commit"}

// look is one round trip.
func look(ctx context.Context, c *pgconn.PgConn) (state, error) {
	results, err := c.Exec(ctx, lookQuery).ReadAll()
	if err != nil {
		return state{}, err
	}
	const before = 3
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != before+len(safeSettings) {
		return state{}, fmt.Errorf("the server does not say how it is set")
	}
	row := results[0].Rows[0]
	st := state{path: string(row[0]), readOnly: string(row[1]) == "on", life: string(row[2])}
	for i, name := range safeSettings {
		if string(row[before+i]) == "off" {
			st.unsafe = append(st.unsafe, name)
		}
	}
	return st, nil
}

// check sees that what is committed by the connection stays, and where it belongs. What
// stands between may have dropped the settings that were asked for: the tables would be
// another schema's.
func (s state) check(schema string) error {
	switch {
	case s.path != schema:
		return errUnsettled
	case s.readOnly:
		return errReadOnly
	case len(s.unsafe) > 0:
		return &storage.Error{Kind: sdk.Unavailable, Op: "postgres", Text: "turn them on in postgresql.conf", Err: unsafeError(s.unsafe)}
	}
	return nil
}

var (
	errUnsettled = &storage.Error{Kind: sdk.Invalid, Op: "postgres: connect", Text: "a pooler drops the settings of the connection: connect to the server itself, or by a pooler that keeps whole sessions and their settings"}
	errReadOnly  = &storage.Error{Kind: sdk.Unavailable, Op: "postgres", Text: "the server accepts no writes: it is a standby or set read-only"}
	errReplaced  = &storage.Error{Kind: sdk.Unavailable, Op: "postgres", Text: "the tables were replaced while the relay ran; it connects anew"}
)

// unsafeError are settings under which an acknowledgement would be a lie.
type unsafeError []string

func (e unsafeError) Error() string {
	return "the server loses acknowledged messages in a crash (" + strings.Join(e, " = off, ") + " = off)"
}

// watching is when the store was looked at last, and what was wrong then.
type watching struct {
	mu    sync.Mutex
	at    time.Time
	wrong error
}

// due says whether it is time to look again. Of several that ask one is told so, unless
// something was wrong: then all of them are.
func (w *watching) due(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wrong == nil && now.Sub(w.at) < lookEvery {
		return false
	}
	w.at = now
	return true
}

func (w *watching) found(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = err
}

// watch looks before a write, if it is time.
func (s *store) watch(ctx context.Context, c *pgxpool.Conn) error {
	if !s.watching.due(time.Now()) {
		return nil
	}
	return s.inspect(ctx, c)
}

// inspect looks at a connection that is in use. What it finds holds for every write until
// one has found otherwise.
func (s *store) inspect(ctx context.Context, c *pgxpool.Conn) error {
	conn := c.Conn().PgConn()
	st, err := look(ctx, conn)
	if err != nil {
		return err
	}
	err = st.check(s.lines.schema)
	s.watching.found(err)
	if l, _ := conn.CustomData()[lineKey].(timeline); err == nil && l.life != st.life {
		// The history is another one, for all connections.
		s.reset()
		return errors.Join(errReplaced, c.Conn().Close(ctx))
	}
	return err
}
