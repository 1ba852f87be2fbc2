package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// Config is the plugin's table.
type Config struct {
	Address  []string      `cfg:"address" default:"127.0.0.1:6379" min:"1" max:"32" doc:"servers, host:port; several are a cluster, or the sentinels where sentinel is set"`
	Sentinel string        `cfg:"sentinel" max:"128" doc:"name of the master that the sentinels at address watch"`
	Guardian sdk.Secret    `cfg:"sentinel_password" doc:"password of the sentinels, where they ask for one"`
	User     string        `cfg:"user" max:"128" doc:"ACL user; when empty the default one"`
	Password sdk.Secret    `cfg:"password" doc:"password of the user"`
	Database int           `cfg:"database" default:"0" min:"0" max:"15" doc:"number of the database; a cluster has only 0"`
	Prefix   string        `cfg:"prefix" max:"64" doc:"put before every key, where relays that do not belong together share a server"`
	TLS      bool          `cfg:"tls" doc:"encrypt the connections"`
	Roots    sdk.File      `cfg:"ca" doc:"certificates that may sign the server's, PEM; when empty the system's"`
	Timeout  time.Duration `cfg:"timeout" default:"3s" min:"100ms" max:"1m" doc:"how long connecting and a call may take"`
}

// shown quotes what is no address, unless it may hold a password, as URLs do.
func shown(a string) string {
	if strings.ContainsAny(a, "@?= ") || strings.Contains(a, "://") {
		return "this"
	}
	return strconv.Quote(a)
}

// Check implements sdk.Checker.
func (c *Config) Check() error {
	for i, a := range c.Address {
		if host, _, err := net.SplitHostPort(a); err != nil || host == "" {
			return &sdk.ConfigError{Key: fmt.Sprintf("address[%d]", i), Text: shown(a) + " is no address; write it as \"host:port\", and user, password and database in keys of their own"}
		}
	}
	if !c.Roots.IsZero() && !x509.NewCertPool().AppendCertsFromPEM(c.Roots.Bytes()) {
		return &sdk.ConfigError{Key: "ca", Text: "there is no certificate in the file"}
	}
	if c.Sentinel == "" && c.Guardian.Text() != "" {
		return &sdk.ConfigError{Key: "sentinel_password", Text: "is of use only with sentinel, the name of the master"}
	}
	if c.Database != 0 && len(c.Address) > 1 && c.Sentinel == "" {
		return &sdk.ConfigError{Key: "database", Text: "a cluster has only database 0"}
	}
	return nil
}

// Plugin is the storage plugin "redis".
func Plugin() sdk.Plugin {
	return storage.Define(storage.Descriptor{
		Name: "redis", Version: "1.0.0", Summary: "routes, presence and short-lived values in Redis",
		Traits: storage.Traits{Batch: 1024, Lanes: 4, Shared: true},
	}, open)
}

// store is what the parts share.
type store struct {
	db      redis.UniversalClient
	prefix  string
	timeout time.Duration
	watched *watched
	clock   clock
}

func open(ctx context.Context, env sdk.Env, c Config) (storage.Store, error) {
	// The driver prints a line for each failed dial to stderr, also where a call's error
	// says the same.
	logging.Disable()
	s := newStore(&c, time.Now, env.Log())
	switch err := s.compare(ctx); {
	case errors.Is(err, sdk.Unavailable):
		// A relay can do without what is volatile, and so can its start.
		env.Log().Warn("the server does not answer; going on without it until it does", "error", err)
	case err != nil:
		_ = s.close() // it was never connected
		return storage.Store{}, err
	}
	s.watched.start(s.keepTime)
	return storage.Store{
		Routes: (*routes)(s), Presence: (*presence)(s), Cache: (*cache)(s), Limiter: (*limiter)(s), Bus: (*bus)(s),
		Ready: s.ready, Close: func(context.Context) error { return s.close() },
	}, nil
}

func newStore(c *Config, local func() time.Time, log *slog.Logger) *store {
	s := &store{db: redis.NewUniversalClient(c.options()), prefix: c.Prefix, timeout: c.Timeout, watched: newWatched(c.Timeout)}
	s.clock.local, s.clock.log = local, log
	s.watched.guard(s.db)
	return s
}

func (c *Config) options() *redis.UniversalOptions {
	o := &redis.UniversalOptions{
		Addrs: c.Address, MasterName: c.Sentinel, DB: c.Database, Username: c.User, Password: c.Password.Text(), ClientName: "commucat",
		SentinelPassword: c.Guardian.Text(),
		DialTimeout:      c.Timeout, ReadTimeout: c.Timeout, WriteTimeout: c.Timeout, ContextTimeoutEnabled: true,
		// Who calls repeats by himself, where that is worth it.
		MaxRetries: 1, DialerRetries: 1, DisableIdentity: true,
	}
	if c.TLS {
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		if !c.Roots.IsZero() {
			o.TLSConfig.RootCAs = x509.NewCertPool()
			o.TLSConfig.RootCAs.AppendCertsFromPEM(c.Roots.Bytes()) // Check has read it
		}
	}
	return o
}

func (s *store) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.timeout)
}

func (s *store) key(kind, id string) string { return s.prefix + kind + id }

func (s *store) ready(ctx context.Context) error {
	ctx, cancel := s.within(ctx)
	defer cancel()
	return plain("ready", s.db.Ping(ctx).Err())
}

func (s *store) close() error {
	s.watched.stop()
	defer s.watched.wait()
	if err := s.db.Close(); err != nil && !errors.Is(err, redis.ErrClosed) {
		return plain("close", err)
	}
	return nil
}

// linger is how much longer than its content a key stays, so that the server's clock
// never takes away what the relay's would still give.
const linger = 10 * time.Minute

// life is a key's time to live on the server.
func life(ttl time.Duration) time.Duration { return max(ttl, 0) + linger }
