package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/core/pairing"
	"github.com/commucat/commucat/sdk/entry"
)

// Accounts is what REST needs of core/account.
type Accounts interface {
	Token(ctx context.Context, token string) (account.Bearer, error)
	DropToken(ctx context.Context, hash account.TokenHash) error
	Devices(ctx context.Context, user string) ([]account.Device, error)
	RevokeDevice(ctx context.Context, user, device string) error
}

// Pairing is what REST needs of core/pairing.
type Pairing interface {
	CreateShort(ctx context.Context, user, device string, ttl time.Duration) (pairing.ShortCode, error)
	Claim(ctx context.Context, q pairing.Claim) (pairing.Claimed, error)
	RevokeOf(ctx context.Context, device, id string) error
}

// Options configure the REST interface. Accounts, Pairing, Info and Cover are
// required.
type Options struct {
	Accounts Accounts
	Pairing  Pairing
	// Info gives the facts of server-info; it is called for each request.
	Info func() Info
	// PairLink makes a pairing link for the account of device; ttl 0 is the
	// configured life. nil offers none.
	PairLink func(ctx context.Context, user, device string, ttl time.Duration) (link, id string, expires time.Time, err error)
	// Cover answers who shows no entry token.
	Cover http.Handler
	// Cookie and Verify check entry tokens (entry.Verifier.Verify); nil refuses all.
	Cookie string
	Verify func(method, path, cookie string) (entry.Stream, bool, error)
	// Public answers strangers as well (compat.public_api).
	Public bool
	// Health answers /healthz, /readyz and /metrics on the public port
	// (compat.public_health); nil leaves them to the cover.
	Health http.Handler
	// Revoked is told of a device that its owner revoked, so that its live
	// session ends at once; may be nil where account hooks do that.
	Revoked func(device string)
	// Unpaired is told of a pairing link that the device which made it has ended, so
	// that no transport lets anybody in by it; may be nil.
	Unpaired func(link string)
	// PerMinute and Burst bound requests of one IPv4 address or IPv6 /64 (600, 60).
	PerMinute uint32
	Burst     uint32

	Clock   func() time.Time
	Log     *slog.Logger
	Metrics *metrics.Set
}

// REST is the clients' interface; see front.API.
type REST struct {
	opt     Options
	routes  map[string]map[string]route // path → method
	limit   *limiter
	guesses *limiter // bearer tokens that opened nothing
}

// need says what a route asks for; every route asks for an entry token as well
// unless Public is on.
type need uint8

const (
	nothing need = iota
	session
)

type route struct {
	need  need
	serve func(*REST, http.ResponseWriter, *http.Request, *account.Bearer) error
}

// New makes the interface.
func New(opt Options) (*REST, error) {
	if opt.Accounts == nil || opt.Pairing == nil || opt.Info == nil || opt.Cover == nil {
		return nil, errors.New("api: Accounts, Pairing, Info and Cover are required")
	}
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.PerMinute == 0 {
		opt.PerMinute = 600
	}
	if opt.Burst == 0 {
		opt.Burst = 60
	}
	return &REST{
		opt: opt, limit: newLimiter(opt.PerMinute, opt.Burst), guesses: newLimiter(10, 10),
		routes: map[string]map[string]route{
			"/api/server-info":    {"GET": {nothing, (*REST).serverInfo}},
			"/api/pair":           {"POST": {session, (*REST).pair}},
			"/api/pair/claim":     {"POST": {nothing, (*REST).claim}},
			"/api/pair/revoke":    {"POST": {session, (*REST).unpair}},
			"/api/devices":        {"GET": {session, (*REST).devices}},
			"/api/devices/revoke": {"POST": {session, (*REST).revoke}},
			"/api/session":        {"DELETE": {session, (*REST).logout}},
		},
	}, nil
}

// Match looks at the path and at whether something like an entry token is there;
// it does not check it and reads no body.
func (a *REST) Match(r *http.Request) bool {
	if a.opt.Health != nil && healthPath(r.URL.Path) {
		return true
	}
	if !strings.HasPrefix(r.URL.Path, "/api/") || r.URL.RawPath != "" {
		return false
	}
	if a.opt.Public {
		return true
	}
	if _, ok := a.routes[r.URL.Path]; !ok {
		return false
	}
	_, token := a.entryCookie(r)
	return token
}

// ServeHTTP answers a request that matched. One whose entry token opens nothing
// gets the cover's answer, its body unread.
func (a *REST) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if a.opt.Health != nil && healthPath(r.URL.Path) {
		a.opt.Health.ServeHTTP(w, r)
		return
	}
	bearer, entered, err := a.authenticate(r)
	if err != nil {
		writeProblem(w, problemOf(r.Context(), a.opt.Log, err))
		return
	}
	if !entered && !a.opt.Public {
		a.opt.Metrics.Count(metrics.CoverHits, "token")
		a.opt.Metrics.Inc(metrics.CensorshipDeflections)
		a.opt.Cover.ServeHTTP(w, r)
		return
	}
	start := a.opt.Clock()
	counted := &counter{ResponseWriter: w}
	if err := a.serve(counted, r, bearer); err != nil {
		p := problemOf(r.Context(), a.opt.Log, err)
		if p.Status == 429 {
			a.opt.Metrics.Inc(metrics.RateLimitHTTP)
		}
		writeProblem(counted, p)
	}
	a.opt.Metrics.Count(metrics.Requests, string('0'+byte(counted.status/100))+"xx")
	a.opt.Metrics.Observe(metrics.RequestSeconds, a.opt.Clock().Sub(start).Seconds())
}

func (a *REST) serve(w http.ResponseWriter, r *http.Request, bearer *account.Bearer) error {
	if wait := a.limit.take(prefixOf(r.RemoteAddr), a.opt.Clock()); wait > 0 {
		return tooMany(wait)
	}
	methods, ok := a.routes[r.URL.Path]
	if !ok {
		return problem(404, "not_found", "")
	}
	rt, ok := methods[r.Method]
	if !ok {
		for m := range methods {
			w.Header().Add("Allow", m)
		}
		return problem(405, "method_not_allowed", "")
	}
	if rt.need == session && bearer == nil {
		if bearerOf(r) == "" {
			return problem(401, "token_missing", "authorization header is missing")
		}
		return problem(401, "token_invalid", "session is unknown or expired")
	}
	return rt.serve(a, w, r, bearer)
}

// authenticate looks at the entry token, and then at the bearer token. The error is
// a failure of the storage or a revoked device.
func (a *REST) authenticate(r *http.Request) (b *account.Bearer, entered bool, err error) {
	if value, ok := a.entryCookie(r); ok && a.opt.Verify != nil {
		_, stream, err := a.opt.Verify(r.Method, r.URL.Path, value)
		entered = err == nil && !stream
	}
	token := bearerOf(r)
	// A bearer token costs a look into the directory, which a stranger could time: it
	// takes an entry token first.
	if !wellShaped(token) || !entered && !a.opt.Public {
		return nil, entered, nil
	}
	// Where anybody may ask, wrong tokens are looked up ten times a minute.
	prefix, now := prefixOf(r.RemoteAddr), a.opt.Clock()
	if !entered && a.guesses.take(prefix, now) > 0 {
		return nil, false, nil
	}
	bearer, err := a.opt.Accounts.Token(r.Context(), token)
	switch {
	case err == nil:
		if !entered { // who entered has taken nothing
			a.guesses.giveBack(prefix)
		}
		return &bearer, entered, nil
	case errors.Is(err, account.ErrRevoked):
		return nil, entered, problem(403, "revoked", "device is not active")
	case errors.Is(err, account.ErrToken):
		return nil, entered, nil
	}
	return nil, entered, err
}

// entryCookie finds a value that has the length of an entry token.
func (a *REST) entryCookie(r *http.Request) (string, bool) {
	if a.opt.Cookie == "" {
		return "", false
	}
	for _, line := range r.Header["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			if name, value, ok := strings.Cut(strings.TrimSpace(pair), "="); ok && name == a.opt.Cookie {
				return value, len(value) == entry.TokenLength
			}
		}
	}
	return "", false
}

// bearerOf reads the Authorization header; the scheme may be missing, as the
// reference allows.
func bearerOf(r *http.Request) string {
	v := strings.TrimSpace(r.Header.Get("Authorization"))
	if len(v) > 7 && strings.EqualFold(v[:7], "Bearer ") {
		v = strings.TrimSpace(v[7:])
	}
	return v
}

// wellShaped says whether a token could be one: 64 hex digits.
func wellShaped(token string) bool {
	if len(token) != 64 {
		return false
	}
	for i := range len(token) {
		if c := token[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func healthPath(p string) bool { return p == "/healthz" || p == "/readyz" || p == "/metrics" }

// counter remembers the status.
type counter struct {
	http.ResponseWriter
	status int
}

func (c *counter) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

// Unwrap serves http.ResponseController.
func (c *counter) Unwrap() http.ResponseWriter { return c.ResponseWriter }
