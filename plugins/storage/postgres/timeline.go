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

// A database goes back when it is restored from a dump or from copied files, and when a
// standby takes over without having got all of the former server's commits. It has then
// given out positions that it does not know of, and a device would take what comes at
// those as old: acknowledged messages would be lost. Nothing kept in the database tells,
// since that goes back as well. So
//
//   - a position is never below the server's clock in µs. Queues take less than a
//     position a µs: what comes after going back is above all that came before;
//   - each history of the database has a floor, for positions and for versions of records:
//     the server's clock at its first write. A history ends with a promotion or a recovery
//     to a point in time (the timeline, PostgreSQL documentation, section 26.3.5), with a
//     restart of the server, which replacing its files needs, and with another database or
//     another file of the table queue, which each restoring of a dump brings. The first
//     on another system or timeline may be by another clock: its floor is clockSkew higher,
//     and so is the next one's while the clock has not caught up with that, where it knows
//     of it: by its own table, or by a store that was open all the time. Who goes back to
//     a former server that knows nothing of the other, and starts the relay anew, must
//     wait until the clock has caught up.
//
// Two clocks that differ by more than clockSkew break this, and so does one that was put
// back between the two. For a machine that is put back with its memory, without the
// server noticing, there is the clock alone, which does for positions.

// timeline is one history. A server that is not PostgreSQL itself may know no system and
// no line.
type timeline struct {
	system, line string
	life         string // database, file of the table queue and start of the server
}

// older says whether a server of this history was passed by since one of the other was
// used. The number is hexadecimal and of one length.
func (t timeline) older(than timeline) bool { return t.system == than.system && t.line < than.line }

// key is the column line; a line alone is of a version that knew no lives.
func (t timeline) key() string { return t.line + " " + t.life }

// timelines are what the store knows of histories.
type timelines struct {
	schema string

	mu     sync.Mutex
	newest timeline
	floors map[timeline]int64
	// highest of all floors that were known, also of histories that this one has not heard of.
	highest int64
}

const clockSkew = time.Hour

// Keys of a connection's own data.
const (
	lineKey   = "timeline"
	unsureKey = "unsure"
)

var errPassed = errors.New("the server is on an older timeline than the one used before: another has taken over from it; stop it, or make it a standby")

// accept is asked about each new connection: the server must accept writes and be sound,
// and no other may have taken over from it. The next address is tried if not.
func (t *timelines) accept(ctx context.Context, c *pgconn.PgConn) error {
	st, err := look(ctx, c)
	if err == nil {
		err = st.check(t.schema)
	}
	if err != nil {
		return err
	}
	l, err := timelineOf(ctx, c)
	if err != nil {
		return err
	}
	l.life = st.life
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.older(t.newest) {
		return errPassed
	}
	t.newest = l
	c.CustomData()[lineKey] = l
	return nil
}

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
	return timeline{system: string(row[0]), line: string(row[1])}, nil
}

// noticed takes the server's notices. A commit whose wait for the synchronous standby
// was broken off is reported as done, with a warning.
func noticed(c *pgconn.PgConn, n *pgconn.Notice) {
	if n.Routine == "SyncRepWaitForLSN" {
		c.CustomData()[unsureKey] = true
	}
}

var errUnsure = &storage.Error{Kind: sdk.Unavailable, Op: "postgres: commit", Text: "the wait for the synchronous standby was broken off"}

// clock is the server's: that of a node may be another one after each restoring.
const clock = `(extract(epoch FROM clock_timestamp()) * 1000000)::bigint`

const (
	// firstWrite notes a history with its floor. That of a new database is the clock,
	// unless positions above it are known of ($5).
	firstWrite = `INSERT INTO timeline (system, line, floor)
	SELECT $1, $2, greatest(h.highest, h.now) + CASE WHEN h.highest <= h.now AND (h.empty OR h.known) THEN 0 ELSE $4::bigint END
	FROM (
		SELECT ` + clock + ` AS now, greatest((SELECT max(floor) FROM timeline), $5::bigint) AS highest,
		EXISTS (SELECT FROM timeline WHERE system = $1 AND split_part(line, ' ', 1) = $3) AS known,
		NOT EXISTS (SELECT FROM timeline) AND NOT EXISTS (SELECT FROM queue) AS empty
	) AS h ON CONFLICT DO NOTHING`
	// floorOf brings the versions above the floor as well: once, since they stay there.
	floorOf = `SELECT floor, CASE WHEN floor > v.last_value THEN setval('version', floor) END FROM timeline, version AS v WHERE system = $1 AND line = $2`
)

// write runs a transaction that must be durable when it returns nil; f gets the floor of
// positions. A connection that another server has passed by is closed.
func (s *store) write(ctx context.Context, pool *pgxpool.Pool, f func(tx pgx.Tx, floor int64) error) error {
	got := false
	err := s.transact(context.WithValue(ctx, gotKey{}, &got), pool, f)
	return s.written(got, err)
}

// transact is write without what its end says of the connections.
func (s *store) transact(ctx context.Context, pool *pgxpool.Pool, f func(tx pgx.Tx, floor int64) error) error {
	return pool.AcquireFunc(ctx, func(c *pgxpool.Conn) error {
		conn := c.Conn().PgConn()
		data := conn.CustomData()
		l, _ := data[lineKey].(timeline)
		floor, known, err := s.lines.floor(l)
		if err != nil {
			return errors.Join(err, c.Conn().Close(ctx))
		}
		if err := s.watch(ctx, c); err != nil {
			return err
		}
		delete(data, unsureKey)
		err = pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			if !known {
				if _, err := tx.Exec(ctx, firstWrite, l.system, l.key(), l.line, clockSkew.Microseconds(), s.lines.top()); err != nil {
					return err
				}
				if err := tx.QueryRow(ctx, floorOf, l.system, l.key()).Scan(&floor, nil); err != nil {
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
	})
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
	t.floors[l], t.highest = floor, max(t.highest, floor)
}

// top is the highest floor that this process knows of.
func (t *timelines) top() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.highest
}
