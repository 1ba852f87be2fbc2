package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// Config is the plugin's table.
type Config struct {
	Address     []string      `cfg:"address" default:"127.0.0.1:5432" min:"1" max:"8" doc:"servers, host:port or /folder/of/the/socket:port; of several the one that accepts writes is used"`
	Database    string        `cfg:"database" default:"commucat" min:"1" max:"63" doc:"database"`
	User        string        `cfg:"user" default:"commucat" min:"1" max:"63" doc:"role of the relay"`
	Password    sdk.Secret    `cfg:"password" doc:"password of the role"`
	Schema      string        `cfg:"schema" default:"commucat" doc:"schema of the tables; it is made if it is missing"`
	TLS         string        `cfg:"tls" default:"auto" enum:"auto,require,off" doc:"encryption: with auto it is required unless all servers are on this machine"`
	Roots       sdk.File      `cfg:"ca" doc:"certificates that may sign the server's, PEM; when empty the system's"`
	Connections int           `cfg:"connections" default:"16" min:"4" max:"500" doc:"connections to the server"`
	Timeout     time.Duration `cfg:"timeout" default:"10s" min:"1s" max:"5m" doc:"how long connecting, and a call without a deadline, may take"`
}

var schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

// Check implements sdk.Checker.
func (c *Config) Check() error {
	for i, a := range c.Address {
		if _, _, err := splitAddress(a); err != nil {
			return &sdk.ConfigError{Key: fmt.Sprintf("address[%d]", i), Text: shown(a) + " is no address; write it as \"host:port\" or \"/folder/of/the/socket:port\", and user, password and database in keys of their own"}
		}
	}
	if !schemaName.MatchString(c.Schema) {
		return &sdk.ConfigError{Key: "schema", Text: "only a-z, 0-9 and _ are allowed"}
	}
	if !c.Roots.IsZero() && !x509.NewCertPool().AppendCertsFromPEM(c.Roots.Bytes()) {
		return &sdk.ConfigError{Key: "ca", Text: "there is no certificate in the file"}
	}
	return nil
}

// shown quotes what is no address, unless it may hold a password, as URLs and lists of
// settings do.
func shown(a string) string {
	if strings.ContainsAny(a, "@?= ") || strings.Contains(a, "://") {
		return "this"
	}
	return strconv.Quote(a)
}

// splitAddress reads "host:port"; the host may be the folder of a unix socket.
func splitAddress(a string) (host string, port uint16, err error) {
	i := strings.LastIndexByte(a, ':')
	if i <= 0 {
		return "", 0, strconv.ErrSyntax
	}
	if host = a[:i]; host[0] != '/' {
		if host, _, err = net.SplitHostPort(a); err != nil {
			return "", 0, err
		}
	}
	n, err := strconv.ParseUint(a[i+1:], 10, 16)
	if err == nil && n == 0 {
		err = strconv.ErrRange
	}
	return host, uint16(n), err
}

// lanes is how many batches are stored at once.
const lanes = 2

// Plugin is the storage plugin "postgres".
func Plugin() sdk.Plugin {
	return storage.Define(storage.Descriptor{
		Name: "postgres", Version: "1.0.0", Summary: "accounts and messages in PostgreSQL",
		Traits: storage.Traits{Batch: 1024, Lanes: lanes, Shared: true},
	}, open)
}

type store struct {
	// appends are the connections of the lanes alone, so that however many read or tell
	// that they are done, nobody who stores a message waits for a connection.
	appends *pgxpool.Pool
	pool    *pgxpool.Pool // for all else
	timeout time.Duration
	// life ends the calls that are still under way when closing has waited for them.
	life context.Context
	end  context.CancelFunc
	// lockSpace keeps the advisory locks of two schemas apart.
	lockSpace uint64
	lines     timelines
	watching  watching
	log       *slog.Logger
	told      atomic.Bool // of a newer version
	// doubt is set when a write has failed, of which reading tells nothing: the disk
	// may be full, or the log on a disk of its own.
	doubt atomic.Bool
}

func open(ctx context.Context, env sdk.Env, c Config) (storage.Store, error) {
	space := fnv.New64a()
	_, _ = space.Write([]byte(c.Schema)) // a hash never fails
	s := &store{log: env.Log(), timeout: c.Timeout, lockSpace: space.Sum64(), lines: timelines{schema: c.Schema}}
	s.life, s.end = context.WithCancel(context.WithoutCancel(ctx))
	var err error
	// A connection that a silent server leaves hanging is given up for seconds, and the
	// lane needs another one meanwhile.
	if s.appends, err = s.connections(ctx, &c, 2*lanes); err != nil {
		s.end()
		return storage.Store{}, err
	}
	if s.pool, err = s.connections(ctx, &c, c.Connections-lanes); err != nil {
		s.end()
		s.appends.Close()
		return storage.Store{}, err
	}
	if err := s.prepare(ctx, c.Schema, env.Log()); err != nil {
		s.close(ctx)
		return storage.Store{}, err
	}
	return storage.Store{
		Queues: (*queues)(s), Directory: (*directory)(s), Inventory: (*inventory)(s), Positions: (*positions)(s), Ready: s.ready,
		Close: func(ctx context.Context) error { s.close(ctx); return nil },
	}, nil
}

// connections makes a pool of at most n connections; they are opened when they are used.
func (s *store) connections(ctx context.Context, c *Config, n int) (*pgxpool.Pool, error) {
	pc, err := c.pool()
	if err != nil {
		return nil, err
	}
	pc.MaxConns, pc.MinConns = int32(n), min(int32(n), 2)
	pc.ConnConfig.ValidateConnect, pc.ConnConfig.OnNotice = s.lines.accept, noticed
	pc.ShouldPing = asks
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, &storage.Error{Kind: sdk.Invalid, Text: "the connection settings are wrong", Err: err}
	}
	return pool, nil
}

// closeWait is how long closing waits for the calls that are under way.
const closeWait = 2 * time.Second

func (s *store) close(ctx context.Context) {
	defer context.AfterFunc(ctx, s.end)()
	defer time.AfterFunc(closeWait, s.end).Stop()
	s.appends.Close()
	s.pool.Close()
	s.end()
}

// planning are the settings by which every statement goes by an index, and by the one that
// suits the table as it is now: a plan made while the table was empty looked for
// repetitions by reading whole queues, at a sixth of the speed.
var planning = map[string]string{
	"plan_cache_mode": "force_custom_plan",
	"enable_seqscan":  "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off",
}

// pool are the settings of the connections. They are set one by one, never as one
// text with the password in it.
func (c *Config) pool() (*pgxpool.Config, error) {
	pc, err := pgxpool.ParseConfig("sslmode=disable")
	if err != nil {
		return nil, err
	}
	cc := &pc.ConnConfig.Config
	cc.Database, cc.User, cc.Password = c.Database, c.User, c.Password.Text()
	// One that hangs must leave the others some of a call's time.
	cc.ConnectTimeout = c.Timeout / time.Duration(len(c.Address))
	cc.RuntimeParams = map[string]string{
		"application_name": "commucat", "search_path": c.Schema, "timezone": "UTC",
		"default_transaction_isolation": "read committed", "synchronous_commit": "on",
		// A relay that was cut off must not hold locks for ever.
		"idle_in_transaction_session_timeout": "60000",
	}
	maps.Copy(cc.RuntimeParams, planning)
	cc.Fallbacks = nil
	for i, a := range c.Address {
		host, port, err := splitAddress(a)
		if err != nil {
			return nil, err
		}
		t := c.tlsFor(host)
		if i == 0 {
			cc.Host, cc.Port, cc.TLSConfig = host, port, t
			continue
		}
		cc.Fallbacks = append(cc.Fallbacks, &pgconn.FallbackConfig{Host: host, Port: port, TLSConfig: t})
	}
	pc.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
	pc.MaxConnIdleTime, pc.HealthCheckPeriod = 5*time.Minute, 15*time.Second
	return pc, nil
}

// tlsFor is nil where the line needs no encryption.
func (c *Config) tlsFor(host string) *tls.Config {
	local := strings.HasPrefix(host, "/") || host == "localhost"
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		local = true
	}
	if c.TLS == "off" || c.TLS == "auto" && local {
		return nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if !c.Roots.IsZero() {
		t.RootCAs = x509.NewCertPool()
		t.RootCAs.AppendCertsFromPEM(c.Roots.Bytes()) // Check has read it
	}
	return t
}

// within bounds a call whose caller set no bound, and ends it with the store.
func (s *store) within(ctx context.Context) (_ context.Context, done context.CancelFunc) {
	var cancel context.CancelFunc
	if _, ok := ctx.Deadline(); ok {
		ctx, cancel = context.WithCancel(ctx)
	} else {
		ctx, cancel = context.WithTimeout(ctx, s.timeout)
	}
	stop := context.AfterFunc(s.life, cancel)
	return ctx, func() { stop(); cancel() }
}

// ready tells whether the server accepts writes, and what they need is there.
func (s *store) ready(ctx context.Context) error {
	ctx, cancel := s.within(ctx)
	defer cancel()
	err := s.pool.AcquireFunc(ctx, func(c *pgxpool.Conn) error {
		if err := s.inspect(ctx, c); err != nil {
			return err
		}
		return s.fits(ctx, c.Conn())
	})
	if err != nil {
		// A probe's time is short: that it ended tells of a crowd as well.
		if broken(err, false) {
			s.reset()
		}
		return plain("ready", err)
	}
	if !s.doubt.Load() {
		return nil
	}
	// Whether it goes again only writing tells: rows that take some pages, which are
	// taken back, and a commit.
	return plain("ready", s.written(false, s.transact(ctx, s.pool, func(tx pgx.Tx, _ int64) error {
		err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO message (queue, position, id, expires, payload) SELECT -1, n, gen_random_uuid(), 0, $1 FROM generate_series(1, 64) AS n", make([]byte, 4096))
			if err == nil {
				err = errUndo
			}
			return err
		})
		if !errors.Is(err, errUndo) {
			return err
		}
		_, err = tx.Exec(ctx, "UPDATE timeline SET checked = $1", time.Now().UnixMicro())
		return err
	})))
}

// errUndo ends a transaction that was only to see whether it could be.
var errUndo = errors.New("taken back")

// written notes how a write ended. What the store itself refused says nothing, nor does
// a caller who went away. Silent is as for broken.
func (s *store) written(silent bool, err error) error {
	var own *storage.Error
	var conflict *storage.ConflictError
	switch {
	case err == nil:
		s.doubt.Store(false)
	case errors.As(err, &conflict), errors.As(err, &own) && own.Kind != sdk.Unavailable, errors.Is(err, context.Canceled):
	default:
		s.doubt.Store(true)
		if broken(err, silent) {
			s.reset()
		}
	}
	return err
}

// reset has all connections opened anew: what befell one has befallen the others, most
// likely, and each would cost somebody a call.
func (s *store) reset() {
	s.appends.Reset()
	s.pool.Reset()
}

// broken says whether a call failed because its connection ended, or, where silent is set,
// nothing came by it in time: a server that was taken from the net is followed by another.
// A call that had no connection yet has waited for the others, and says nothing of them.
func broken(err error, silent bool) bool {
	var said *pgconn.PgError
	var own *storage.Error
	switch {
	case errors.As(err, &own), errors.Is(err, context.Canceled):
		return false
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return silent
	case errors.As(err, &said):
		return strings.HasPrefix(said.Code, "57P") // the server ends, crashes or starts
	}
	return true
}

// gotKey is a *bool in a context, which is set once the call has a connection.
type gotKey struct{}

// asks says of a connection that is about to be handed out whether it is asked first
// whether it lives. That may be where the call's time ends: it has got one by then.
func asks(ctx context.Context, c pgxpool.ShouldPingParams) bool {
	if got, ok := ctx.Value(gotKey{}).(*bool); ok {
		*got = true
	}
	return c.IdleDuration > time.Second
}

var errTooOld = errors.New("the server is older than PostgreSQL 14; upgrade it")
