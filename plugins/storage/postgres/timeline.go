package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// A standby that takes over without having got all of the former server's commits has
// given out fewer positions than devices have seen: a device would take what comes at
// those as old. So each history of the database has a floor, and positions and versions
// of records go on above it. A history is a system identifier (another one: the tables
// were restored from a dump) with a timeline, which PostgreSQL counts up at each
// promotion and each recovery to a point in time (documentation, section 26.3.5). The
// floor is the time in µs at its first write, and an hour for clocks that differ; queues
// begin at the time and take less than a position a µs, so that this is above all of them.
//
// What cannot be noticed is a copy of the files that is started again as if nothing had
// happened.

// timeline is one history.
type timeline struct{ system, line string }

// older says whether a server of this history was passed by since one of the other was
// used. The number is hexadecimal and of one length.
func (t timeline) older(than timeline) bool { return t.system == than.system && t.line < than.line }

// timelines are what the store knows of histories.
type timelines struct {
	schema string

	mu     sync.Mutex
	newest timeline
	floors map[timeline]int64
}

const clockSkew = time.Hour

// Keys of a connection's own data.
const (
	lineKey   = "timeline"
	unsureKey = "unsure"
)

var errPassed = errors.New("the server is on an older timeline than the one used before: another has taken over from it; stop it, or make it a standby")

// accept is asked about each new connection: the server must accept writes, and no
// other may have taken over from it. The next address is tried if not.
func (t *timelines) accept(ctx context.Context, c *pgconn.PgConn) error {
	if err := pgconn.ValidateConnectTargetSessionAttrsReadWrite(ctx, c); err != nil {
		return err
	}
	if err := t.settled(ctx, c); err != nil {
		return err
	}
	l, err := timelineOf(ctx, c)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.older(t.newest) {
		return errPassed
	}
	t.newest = l
	c.CustomData()[lineKey] = l
	return nil
}

// settled sees that the connection has the settings that were asked for: what stands
// between may have dropped them, and the tables would be another schema's.
func (t *timelines) settled(ctx context.Context, c *pgconn.PgConn) error {
	results, err := c.Exec(ctx, "SELECT current_setting('search_path')").ReadAll()
	switch {
	case err != nil:
		return err
	case len(results) != 1 || len(results[0].Rows) != 1 || string(results[0].Rows[0][0]) != t.schema:
		return errUnsettled
	}
	return nil
}

var errUnsettled = &storage.Error{Kind: sdk.Invalid, Op: "postgres: connect", Text: "a pooler drops the settings of the connection: connect to the server itself, or by a pooler that keeps whole sessions and their settings"}

// timelineOf asks the server. One that is not PostgreSQL itself may know neither.
func timelineOf(ctx context.Context, c *pgconn.PgConn) (timeline, error) {
	results, err := c.Exec(ctx, "SELECT system_identifier, left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system()").ReadAll()
	var said *pgconn.PgError
	switch {
	case errors.As(err, &said) && (said.Code == "42883" || said.Code == "42501" || said.Code == "0A000"):
		return timeline{}, nil
	case err != nil:
		return timeline{}, err
	case len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 2:
		return timeline{}, fmt.Errorf("the server does not say on which timeline it is")
	}
	row := results[0].Rows[0]
	return timeline{string(row[0]), string(row[1])}, nil
}

// noticed takes the server's notices. A commit whose wait for the synchronous standby
// was broken off is reported as done, with a warning.
func noticed(c *pgconn.PgConn, n *pgconn.Notice) {
	if n.Routine == "SyncRepWaitForLSN" {
		c.CustomData()[unsureKey] = true
	}
}

var errUnsure = &storage.Error{Kind: sdk.Unavailable, Op: "postgres: commit", Text: "the wait for the synchronous standby was broken off"}

const (
	// firstWrite of a database without messages needs no floor.
	firstWrite = `INSERT INTO timeline (system, line, floor)
	SELECT $1, $2, CASE WHEN EXISTS (SELECT 1 FROM timeline) OR EXISTS (SELECT 1 FROM queue) THEN $3::bigint ELSE 0 END
	ON CONFLICT DO NOTHING`
	// floorOf brings the versions above the floor as well: once, since they stay there.
	floorOf = `SELECT floor, CASE WHEN floor > v.last_value THEN setval('version', floor) END FROM timeline, version AS v WHERE system = $1 AND line = $2`
)

// write runs a transaction that must be durable when it returns nil; f gets the floor of
// positions. A connection that another server has passed by is closed.
func (s *store) write(ctx context.Context, pool *pgxpool.Pool, f func(tx pgx.Tx, floor int64) error) error {
	return s.written(pool.AcquireFunc(ctx, func(c *pgxpool.Conn) error {
		conn := c.Conn().PgConn()
		data := conn.CustomData()
		l, _ := data[lineKey].(timeline)
		floor, known, err := s.lines.floor(l)
		if err != nil {
			return errors.Join(err, c.Conn().Close(ctx))
		}
		delete(data, unsureKey)
		err = pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			if !known {
				now := time.Now().Add(clockSkew).UnixMicro()
				if _, err := tx.Exec(ctx, firstWrite, l.system, l.line, now); err != nil {
					return err
				}
				if err := tx.QueryRow(ctx, floorOf, l.system, l.line).Scan(&floor, nil); err != nil {
					return err
				}
			}
			return f(tx, floor)
		})
		switch {
		case err != nil:
			return err
		case data[unsureKey] != nil:
			return errUnsure
		case !known:
			s.lines.learn(l, floor)
		}
		return nil
	}))
}

func (t *timelines) floor(l timeline) (floor int64, known bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.older(t.newest) {
		return 0, false, errPassed
	}
	floor, known = t.floors[l]
	return floor, known, nil
}

func (t *timelines) learn(l timeline, floor int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.floors == nil {
		t.floors = map[timeline]int64{}
	}
	t.floors[l] = floor
}
