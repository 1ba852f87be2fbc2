package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/core/pairing"
	"github.com/commucat/commucat/sdk/ccp"
)

// Operations are the accounts as the operator changes them; *account.Store.
type Operations interface {
	Users(ctx context.Context, after string, limit int) ([]account.User, error)
	User(ctx context.Context, id string) (account.User, error)
	UserByHandle(ctx context.Context, handle string) (account.User, error)
	Device(ctx context.Context, id string) (account.Device, error)
	Devices(ctx context.Context, user string) ([]account.Device, error)
	RevokeDevice(ctx context.Context, user, device string) error
	CreateInvite(ctx context.Context, quota int, ttl time.Duration) (secret [16]byte, id string, err error)
	Invites(ctx context.Context, after string, limit int) ([]account.Invite, error)
	RevokeInvite(ctx context.Context, id string) error
}

// LinkKind is what a link is for.
type LinkKind string

// The kinds of links.
const (
	InviteLink  LinkKind = "invite"
	PairingLink LinkKind = "pairing"
	AddressLink LinkKind = "address"
)

// AdminOptions configure the operator's interface. Accounts is required; a nil
// function makes its endpoint answer 404.
type AdminOptions struct {
	Accounts Operations
	// Codes makes pairing codes for links.
	Codes interface {
		Create(ctx context.Context, user, device string, ttl time.Duration) (pairing.Code, error)
		Revoke(ctx context.Context, id string) error
	}
	// Link writes a link. It answers NoWay for a transport that it cannot name.
	Link func(ctx context.Context, l LinkTerms) (string, error)
	// Revoked is told of a device that the operator revoked; may be nil where
	// account hooks do that.
	Revoked func(device string)
	// Keys describes the keys (public halves only), RotateKeys makes a new Noise key.
	Keys       func() any
	RotateKeys func(ctx context.Context) error
	// Reload reads the configuration again.
	Reload func(ctx context.Context) error
	// Status is what `status` shows beside version and uptime.
	Status func() any
	// Plugins lists the plugin processes, UpgradePlugin runs what lies in the catalog
	// now, ProbeTransport asks whether a client would get through.
	Plugins        func() any
	UpgradePlugin  func(ctx context.Context, name string) error
	ProbeTransport func(ctx context.Context, name string) error
	// TransportKey lets a further key of a device in, beside the device's own, and
	// answers where it is good; one that was set before is good no more.
	TransportKey func(ctx context.Context, device, transport string, public []byte) (ccp.Endpoint, error)
	// Snapshot makes a copy of what changes in the data folder; see Snapshot.
	Snapshot func(ctx context.Context, keys string) (Held, error)
	// Checks are what readiness asks, each within two seconds.
	Checks map[string]func(context.Context) error
	// Record is told of each change, for the ledger; may be nil.
	Record func(ctx context.Context, action, subject string)

	// Token and Hosts guard the interface over TCP, see OverTCP. The configured
	// token is the only one: a new one counts at once, an old one never again.
	Token string

	Version string
	Started time.Time
	Clock   func() time.Time
	Log     *slog.Logger
	Metrics *metrics.Set
}

// Admin is the operator's interface.
type Admin struct {
	opt AdminOptions
	mux *http.ServeMux
	// held is the snapshot that somebody makes an archive of.
	held held
}

// NewAdmin makes the interface.
func NewAdmin(opt AdminOptions) (*Admin, error) {
	if opt.Accounts == nil {
		return nil, errors.New("api: Accounts is required")
	}
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Started.IsZero() {
		opt.Started = opt.Clock()
	}
	a := &Admin{opt: opt, mux: http.NewServeMux()}
	a.mux.HandleFunc("GET /healthz", a.healthz)
	a.mux.HandleFunc("GET /readyz", a.readyz)
	a.mux.Handle("GET /metrics", opt.Metrics.Handler())
	for pattern, f := range map[string]func(*http.Request, http.ResponseWriter) (any, error){
		"GET /v1/status":                         a.status,
		"POST /v1/links":                         a.createLink,
		"GET /v1/links":                          a.listLinks,
		"DELETE /v1/links/{id}":                  a.revokeLink,
		"GET /v1/users":                          a.listUsers,
		"GET /v1/users/{name}":                   a.showUser,
		"POST /v1/users/{name}/pair":             a.pairUser,
		"DELETE /v1/pairings/{id}":               a.revokePairing,
		"GET /v1/devices/{id}":                   a.showDevice,
		"POST /v1/devices/{id}/revoke":           a.revokeDevice,
		"POST /v1/devices/{id}/keys/{transport}": a.setTransportKey,
		"GET /v1/keys":                           a.keys,
		"POST /v1/keys/rotate":                   a.rotateKeys,
		"POST /v1/reload":                        a.reload,
		"POST /v1/snapshots/{id}/release":        a.releaseSnapshot,
		"GET /v1/plugins":                        a.plugins,
		"POST /v1/plugins/{name}/upgrade":        a.upgradePlugin,
		"POST /v1/transports/{name}/probe":       a.probeTransport,
	} {
		a.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			v, err := f(r, w)
			if err != nil {
				writeProblem(w, problemOf(r.Context(), a.opt.Log, err))
				return
			}
			writeJSON(w, v)
		})
	}
	a.mux.HandleFunc("POST /v1/snapshots", a.snapshot)
	a.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeProblem(w, problem(404, "not_found", ""))
	})
	return a, nil
}

// ServeHTTP answers without asking who it is: for the unix socket only.
func (a *Admin) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

// OverTCP guards the interface for a loopback address: the bearer token, a Host
// that names loopback (against DNS rebinding), and no request from a web page.
// It refuses everything when no token is configured.
func (a *Admin) OverTCP() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !loopbackHost(r.Host):
			writeProblem(w, problem(403, "host", "the Host header must name this machine"))
		case r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "" && r.Header.Get("Sec-Fetch-Site") != "none":
			writeProblem(w, problem(403, "origin", "web pages are not admitted"))
		case !a.knows(bearerOf(r)):
			writeProblem(w, problem(401, "token_invalid", ""))
		default:
			a.mux.ServeHTTP(w, r)
		}
	})
}

// Public is the part that compat.public_health shows on the public port: health
// and readiness to all, without a reason, metrics to who has the token.
func (a *Admin) Public() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/healthz":
			a.healthz(w, r)
		case "/readyz":
			a.publicReadyz(w, r)
		case "/metrics":
			if !a.knows(bearerOf(r)) {
				writeProblem(w, problem(401, "token_invalid", ""))
				return
			}
			a.opt.Metrics.Handler().ServeHTTP(w, r)
		default:
			writeProblem(w, problem(404, "not_found", ""))
		}
	})
}

// knows compares hashes in constant time; an empty token knows nobody.
func (a *Admin) knows(token string) bool {
	if a.opt.Token == "" {
		return false
	}
	want, got := sha256.Sum256([]byte(a.opt.Token)), sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1
}

func loopbackHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

func (a *Admin) healthz(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, object{"status": "healthy", "uptime_seconds": a.uptime(), "version": a.opt.Version})
}

func (a *Admin) uptime() int64 { return seconds(a.opt.Clock().Sub(a.opt.Started)) }

// readyz tells the operator which part is not ready, and why.
func (a *Admin) readyz(w http.ResponseWriter, r *http.Request) {
	failed := a.notReady(r.Context())
	var why strings.Builder
	for _, name := range sortedNames(failed) {
		why.WriteString(name + ": " + strings.Join(strings.Fields(failed[name].Error()), " ") + "\n")
	}
	writeReady(w, len(failed) == 0, why.String())
}

// publicReadyz tells a stranger whether, and not why.
func (a *Admin) publicReadyz(w http.ResponseWriter, r *http.Request) {
	writeReady(w, len(a.notReady(r.Context())) == 0, "")
}

// notReady asks and logs.
func (a *Admin) notReady(ctx context.Context) map[string]error {
	failed := a.check(ctx)
	for _, name := range sortedNames(failed) {
		a.opt.Log.Warn("not ready", "check", name, "error", failed[name])
	}
	return failed
}

func writeReady(w http.ResponseWriter, ready bool, why string) {
	status, text := 200, "ready\n"
	if !ready {
		status, text = 503, "degraded\n"
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + why))
}

// check runs all checks beside each other.
func (a *Admin) check(ctx context.Context) map[string]error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	failed := map[string]error{}
	var mu sync.Mutex
	var group sync.WaitGroup
	for name, f := range a.opt.Checks {
		group.Go(func() {
			if err := f(ctx); err != nil {
				mu.Lock()
				failed[name] = err
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return failed
}

func sortedNames(m map[string]error) []string {
	var out []string
	for name := range m {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
