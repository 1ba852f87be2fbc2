package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/account/accounttest"
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/core/pairing"
	"github.com/commucat/commucat/sdk/entry"
	"github.com/commucat/commucat/sdk/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is a cover that says so and reads nothing.
var site = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(404)
	_, _ = io.WriteString(w, "site "+r.Method)
})

type world struct {
	rest     *REST
	accounts *account.Store
	codes    *pairing.Codes
	ca       identity.CA
	token    string
	device   string
	user     account.User
	log      *bytes.Buffer
	metrics  *metrics.Set
	cred     entry.Credential
	now      time.Time
}

func newWorld(t *testing.T, change func(*Options)) *world {
	t.Helper()
	w := &world{log: new(bytes.Buffer), metrics: metrics.New(metrics.Options{}), now: time.Now().UTC()}
	clock := func() time.Time { return w.now }
	seed := bytes.Repeat([]byte{7}, 32)
	var err error
	if w.ca, err = identity.NewCA(seed); err != nil {
		t.Fatal(err)
	}
	dir := new(accounttest.Directory)
	w.accounts = account.New(dir, account.Options{Domain: "relay.example", Clock: clock, Registration: account.Open, CA: func() identity.CA { return w.ca }})
	master := bytes.Repeat([]byte{9}, 32)
	w.cred = entry.New(master, w.now.Add(time.Hour), rand.Reader)
	verifier := entry.NewVerifier(func() [][]byte { return [][]byte{master} }, clock)
	opt := Options{
		Accounts: w.accounts, Cover: site, Cookie: "sid", Verify: verifier.Verify, Clock: clock, Metrics: w.metrics,
		Log: slog.New(slog.NewTextHandler(w.log, nil)),
		Info: func() Info {
			return Info{
				Domain: "relay.example", CA: w.ca.Public(), Catalogue: json.RawMessage(`{"signed":"x"}`),
				Noise:     []NoiseKey{{Version: 3, Public: [32]byte{1}, ValidAfter: time.Unix(1.7e9, 0), RotatesAt: time.Unix(1.7e9, 120e6), ExpiresAt: time.Unix(1.7e9, 123456e3)}},
				Keepalive: time.Minute, PresenceTTL: time.Minute, TokenTTL: time.Hour, PairingTTL: 5 * time.Minute, MaxDevices: 16, PostQuantum: true,
			}
		},
	}
	if change != nil {
		change(&opt)
	}
	w.codes = pairing.New(pairing.Options{Accounts: w.accounts, Directory: dir, ShortCodes: opt.Public, Clock: clock})
	opt.Pairing = w.codes
	if w.rest, err = New(opt); err != nil {
		t.Fatal(err)
	}
	w.device, w.user, w.token = w.establish(t, "alice", nil)
	return w
}

// establish makes a device and its token.
func (w *world) establish(t *testing.T, handle string, pair []byte) (string, account.User, string) {
	t.Helper()
	d, _ := identity.GenerateDevice(nil)
	r := account.Request{Device: identity.NewDeviceID(nil), Public: d.Public(), User: account.Hint{Handle: handle}, Pair: pair, Session: "s"}
	if pair != nil {
		r.User = account.Hint{}
	}
	g, err := w.accounts.Establish(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	return g.Device.ID, g.User, g.Token
}

// do sends as the front would: to the cover unless it matches. A bearer token comes
// with an entry token, as clients send it, unless header has a cookie.
func (w *world) do(method, path, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	if r.Header.Get("Authorization") != "" && r.Header.Get("Cookie") == "" {
		w.enter(r)
	}
	return w.send(r)
}

// enter adds an entry token.
func (w *world) enter(r *http.Request) {
	r.Header.Set("Cookie", "sid="+w.cred.Token(r.Method, r.URL.Path, "", w.now, rand.Reader))
}

func (w *world) send(r *http.Request) *httptest.ResponseRecorder {
	out := httptest.NewRecorder()
	if !w.rest.Match(r) {
		site.ServeHTTP(out, r)
	} else {
		w.rest.ServeHTTP(out, r)
	}
	return out
}

func (w *world) bearer() string { return "Bearer " + w.token }

func decode(t *testing.T, r *httptest.ResponseRecorder) object {
	t.Helper()
	var o object
	if err := json.Unmarshal(r.Body.Bytes(), &o); err != nil {
		t.Fatalf("%d %q: %v", r.Code, r.Body, err)
	}
	return o
}

// TestStrangersSeeTheSite: without a session or an entry token there is no REST.
func TestStrangersSeeTheSite(t *testing.T) {
	w := newWorld(t, nil)
	wrong := strings.Repeat("ab", 32)
	for _, tc := range []struct {
		name, method, path string
		header             []string
	}{
		{"nothing shown", "GET", "/api/server-info", nil},
		{"claim", "POST", "/api/pair/claim", nil},
		{"unknown path with token", "GET", "/api/security-stats", []string{"Authorization", w.bearer()}},
		{"bearer token alone", "GET", "/api/devices", []string{"Authorization", w.bearer(), "Cookie", "a=b"}},
		{"health", "GET", "/healthz", []string{"Authorization", w.bearer()}},
		{"metrics", "GET", "/metrics", []string{"Authorization", w.bearer()}},
		{"wrong token", "GET", "/api/devices", []string{"Authorization", "Bearer " + wrong, "Cookie", "a=b"}},
		{"odd token", "GET", "/api/devices", []string{"Authorization", "Bearer x", "Cookie", "a=b"}},
		{"made-up entry token", "GET", "/api/server-info", []string{"Cookie", "sid=" + strings.Repeat("A", 48)}},
		{"entry token of another path", "GET", "/api/server-info", []string{"Cookie", "sid=" + w.cred.Token("GET", "/api/devices", "", w.now, rand.Reader)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := w.do(tc.method, tc.path, "{}", tc.header...)
			if r.Code != 404 || r.Body.String() != "site "+tc.method {
				t.Errorf("%d %q", r.Code, r.Body)
			}
		})
	}
	if strings.Contains(w.log.String(), wrong) {
		t.Error("a token was logged")
	}
}

func TestServerInfo(t *testing.T) {
	w := newWorld(t, nil)
	for _, header := range [][]string{
		{"Authorization", w.bearer()},
		{"Authorization", w.token},
		{"Cookie", "a=b; sid=" + w.cred.Token("GET", "/api/server-info", "", w.now, rand.Reader)},
	} {
		r := w.do("GET", "/api/server-info", "", header...)
		o := decode(t, r)
		if r.Code != 200 || o["domain"] != "relay.example" || o["noise_public"] != "01"+strings.Repeat("00", 31) || o["device_ca_public"] == nil || o["catalogue"] == nil {
			t.Fatalf("%d %v", r.Code, o)
		}
		k := o["noise_keys"].([]any)[0].(object)
		if k["valid_after"] != "2023-11-14T22:13:20+00:00" || k["rotates_at"] != "2023-11-14T22:13:20.120+00:00" || k["expires_at"] != "2023-11-14T22:13:20.123456+00:00" {
			t.Errorf("times %v", k)
		}
		if r.Header().Get("Cache-Control") != "no-store" || r.Header().Get("Content-Type") != "application/json" {
			t.Errorf("headers %v", r.Header())
		}
	}
	replay := w.cred.Token("GET", "/api/server-info", "", w.now, rand.Reader)
	if r := w.do("GET", "/api/server-info", "", "Cookie", "sid="+replay); r.Code != 200 {
		t.Errorf("first use: %d", r.Code)
	}
	if r := w.do("GET", "/api/server-info", "", "Cookie", "sid="+replay); r.Code != 404 {
		t.Errorf("replay: %d", r.Code)
	}
}

func TestDevices(t *testing.T) {
	w := newWorld(t, nil)
	code, err := w.codes.Create(context.Background(), w.user.ID, w.device, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(time.Second)
	second, _, _ := w.establish(t, "", code.Secret[:])
	stranger, _, strangers := w.establish(t, "bob", nil)

	o := decode(t, w.do("GET", "/api/devices", "", "Authorization", w.bearer()))
	list := o["devices"].([]any)
	if len(list) != 2 {
		t.Fatalf("%v", o)
	}
	first := list[0].(object)
	if first["device_id"] != w.device || first["current"] != true || first["status"] != "active" || list[1].(object)["current"] != false {
		t.Errorf("%v", list)
	}
	if s := first["created_at"].(string); !strings.HasSuffix(s, "+00:00") {
		t.Errorf("created_at %s", s)
	}
	for _, tc := range []struct {
		name, body, token string
		status            int
		code              string
	}{
		{"own device", `{"device_id":"` + w.device + `"}`, w.bearer(), 409, "own_device"},
		{"other account", `{"device_id":"` + stranger + `"}`, w.bearer(), 404, "not_found"},
		{"unknown", `{"device_id":"nope"}`, w.bearer(), 404, "not_found"},
		{"none", `{}`, w.bearer(), 400, "bad_request"},
		{"junk", `{`, w.bearer(), 400, "bad_request"},
		{"by another", `{"device_id":"` + second + `"}`, "Bearer " + strangers, 404, "not_found"},
	} {
		r := w.do("POST", "/api/devices/revoke", tc.body, "Authorization", tc.token)
		if o := decode(t, r); r.Code != tc.status || o["code"] != tc.code || o["status"] != float64(tc.status) || o["type"] != "about:blank" {
			t.Errorf("%s: %d %v", tc.name, r.Code, o)
		}
		if k := r.Header().Get("Content-Type"); k != "application/problem+json" {
			t.Errorf("%s: %s", tc.name, k)
		}
	}
	var told string
	w.rest.opt.Revoked = func(d string) { told = d }
	r := w.do("POST", "/api/devices/revoke", `{"device_id":"`+second+`"}`, "Authorization", w.bearer())
	if o := decode(t, r); r.Code != 200 || o["status"] != "revoked" || told != second {
		t.Errorf("%d %v, told %q", r.Code, o, told)
	}
}

// TestW13RevokedDeviceHasNoSession and a dropped token opens nothing.
func TestW13RevokedDeviceHasNoSession(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Public = true })
	if err := w.accounts.RevokeDevice(context.Background(), "", w.device); err != nil {
		t.Fatal(err)
	}
	if r := w.do("GET", "/api/devices", "", "Authorization", w.bearer()); r.Code != 403 && r.Code != 401 {
		t.Errorf("%d %s", r.Code, r.Body)
	}
	_, _, w.token = w.establish(t, "carol", nil)
	if r := w.do("DELETE", "/api/session", "", "Authorization", w.bearer()); r.Code != 200 {
		t.Errorf("logout: %d", r.Code)
	}
	if r := w.do("GET", "/api/devices", "", "Authorization", w.bearer()); r.Code != 401 || r.Header().Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("after logout: %d %v", r.Code, r.Header())
	}
}

func TestPairAndClaim(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Public = true })
	r := w.do("POST", "/api/pair", `{"ttl":null}`, "Authorization", w.bearer())
	o := decode(t, r)
	code, _ := o["pair_code"].(string)
	if r.Code != 200 || len(code) != 9 || o["ttl"] != 300.0 || len(o["device_seed"].(string)) != 64 || o["issuer_device_id"] != w.device {
		t.Fatalf("%d %v", r.Code, o)
	}
	r = w.do("POST", "/api/pair/claim", `{"pair_code":"`+code+`","device_name":"tablet"}`)
	o = decode(t, r)
	if r.Code != 200 {
		t.Fatalf("%d %v", r.Code, o)
	}
	for _, key := range []string{"device_id", "private_key", "public_key", "seed", "issuer_device_id", "user_id", "user", "device_certificate", "device_ca_public", "device_name"} {
		if o[key] == nil {
			t.Errorf("%s is missing", key)
		}
	}
	private, _ := hex.DecodeString(o["private_key"].(string))
	if pub := (identity.Device{Private: [32]byte(private)}).Public(); hex.EncodeToString(pub[:]) != o["public_key"] {
		t.Error("the key pair does not fit")
	}
	if u := o["user"].(object); u["id"] != w.user.ID || u["handle"] != "alice" {
		t.Errorf("user %v", u)
	}
	if r := w.do("POST", "/api/pair/claim", `{"pair_code":"`+code+`"}`); r.Code != 404 {
		t.Errorf("second use: %d", r.Code)
	}
	if strings.Contains(w.log.String(), code) || strings.Contains(w.log.String(), o["seed"].(string)) {
		t.Error("a secret was logged")
	}

	// With a key of its own nothing secret is in the answer (W-09).
	code = decode(t, w.do("POST", "/api/pair", ``, "Authorization", w.bearer()))["pair_code"].(string)
	d, _ := identity.GenerateDevice(nil)
	pub := d.Public()
	o = decode(t, w.do("POST", "/api/pair/claim", `{"pair_code":"`+strings.ToLower(code)+`","public_key":"`+hex.EncodeToString(pub[:])+`"}`))
	if o["public_key"] != hex.EncodeToString(pub[:]) || o["private_key"] != nil || o["seed"] != nil {
		t.Errorf("%v", o)
	}
}

// TestW08WrongCodesAreCounted: five wrong codes a minute, then 429 with
// Retry-After, also for the right one; another network goes on.
func TestW08WrongCodesAreCounted(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Public = true })
	code := decode(t, w.do("POST", "/api/pair", "", "Authorization", w.bearer()))["pair_code"].(string)
	claim := func(code, remote string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "/api/pair/claim", strings.NewReader(`{"pair_code":"`+code+`"}`))
		r.RemoteAddr = remote
		return w.send(r)
	}
	for i := range 5 {
		if r := claim("AAAA-BBBB", "203.0.113.7:100"+string(rune('0'+i))); r.Code != 404 {
			t.Fatalf("try %d: %d", i, r.Code)
		}
	}
	r := claim(code, "203.0.113.7:9999")
	if o := decode(t, r); r.Code != 429 || r.Header().Get("Retry-After") == "" || o["title"] != "Too Many Requests" {
		t.Errorf("%d %v %v", r.Code, r.Header(), o)
	}
	if r := claim(code, "198.51.100.7:1"); r.Code != 200 {
		t.Errorf("another network: %d %s", r.Code, r.Body)
	}
}

// TestW06RateLimitOfREST counts addresses, not ports.
func TestW06RateLimitOfREST(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Burst, o.PerMinute = 20, 60 })
	ask := func(remote string) int {
		r := httptest.NewRequest("GET", "/api/devices", nil)
		r.RemoteAddr = remote
		r.Header.Set("Authorization", w.bearer())
		w.enter(r)
		return w.send(r).Code
	}
	good := 0
	for i := range 100 {
		if ask("[2001:db8::"+string(rune('a'+i%6))+"]:"+string(rune('1'+i%9))) == 200 {
			good++
		}
	}
	if good != 20 {
		t.Errorf("%d answered, want 20", good)
	}
	if c := ask("[2001:db8:1::1]:1"); c != 200 {
		t.Errorf("another network: %d", c)
	}
	w.now = w.now.Add(2 * time.Second)
	if c := ask("[2001:db8::a]:1"); c != 200 {
		t.Errorf("later: %d", c)
	}
}

// TestGuessedTokens: bearer tokens of strangers are not looked up at all, and where
// anybody may ask ten wrong ones a minute are.
func TestGuessedTokens(t *testing.T) {
	for public, want := range map[bool]int{false: 0, true: 10} {
		w := newWorld(t, func(o *Options) { o.Public = public })
		counting := &countingAccounts{Accounts: w.accounts}
		w.rest.opt.Accounts = counting
		for range 50 {
			w.do("GET", "/api/devices", "", "Authorization", "Bearer "+strings.Repeat("0f", 32), "Cookie", "a=b")
		}
		if counting.n != want {
			t.Errorf("public %t: %d look-ups", public, counting.n)
		}
		w.now = w.now.Add(time.Minute)
		for range 50 {
			if r := w.do("GET", "/api/devices", "", "Authorization", w.bearer()); r.Code != 200 {
				t.Fatalf("right token: %d", r.Code)
			}
		}
	}
}

// TestGuessesAreNotGivenBack: right tokens behind an entry token, which cost no guess,
// buy none.
func TestGuessesAreNotGivenBack(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Public = true })
	counting := &countingAccounts{Accounts: w.accounts}
	w.rest.opt.Accounts = counting
	guess := func() {
		w.do("GET", "/api/devices", "", "Authorization", "Bearer "+strings.Repeat("0f", 32), "Cookie", "a=b")
	}
	for range 10 {
		guess()
	}
	for range 5 {
		if r := w.do("GET", "/api/devices", "", "Authorization", w.bearer()); r.Code != 200 {
			t.Fatalf("right token: %d", r.Code)
		}
	}
	before := counting.n
	for range 10 {
		guess()
	}
	if counting.n != before {
		t.Errorf("%d more guesses were looked up", counting.n-before)
	}
}

type countingAccounts struct {
	Accounts
	n   int
	err error
}

func (c *countingAccounts) Token(ctx context.Context, token string) (account.Bearer, error) {
	c.n++
	if c.err != nil {
		return account.Bearer{}, c.err
	}
	return c.Accounts.Token(ctx, token)
}

// TestStorageFailure: no detail outside, all of it in the log, and the site for
// who showed no entry token.
func TestStorageFailure(t *testing.T) {
	w := newWorld(t, nil)
	w.rest.opt.Accounts = &countingAccounts{Accounts: w.accounts, err: errors.New("disk on fire")}
	if r := w.do("GET", "/api/devices", "", "Authorization", w.bearer(), "Cookie", "a=b"); r.Code != 404 {
		t.Errorf("stranger: %d %s", r.Code, r.Body)
	}
	r := w.do("GET", "/api/devices", "", "Authorization", w.bearer(), "Cookie", "sid="+w.cred.Token("GET", "/api/devices", "", w.now, rand.Reader))
	if r.Code != 500 || strings.Contains(r.Body.String(), "fire") || !strings.Contains(w.log.String(), "disk on fire") {
		t.Errorf("%d %s log %s", r.Code, r.Body, w.log)
	}
}

// TestW31BodyLimit: 64 KiB, answered with 413.
func TestW31BodyLimit(t *testing.T) {
	w := newWorld(t, nil)
	r := w.do("POST", "/api/devices/revoke", `{"device_id":"`+strings.Repeat("a", MaxBody)+`"}`, "Authorization", w.bearer())
	if r.Code != 413 {
		t.Errorf("%d", r.Code)
	}
}

// TestW41MethodsAndPaths are answered properly to who may ask.
func TestW41MethodsAndPaths(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Public = true })
	if r := w.do("PUT", "/api/devices", "", "Authorization", w.bearer()); r.Code != 405 || r.Header().Get("Allow") != "GET" {
		t.Errorf("%d %v", r.Code, r.Header())
	}
	if r := w.do("GET", "/api/nothing", ""); r.Code != 404 || decode(t, r)["code"] != "not_found" {
		t.Errorf("%d", r.Code)
	}
	if r := w.do("GET", "/api/devices", ""); r.Code != 401 || decode(t, r)["code"] != "token_missing" {
		t.Errorf("%d", r.Code)
	}
}

func FuzzReadJSON(f *testing.F) {
	f.Add([]byte(`{"ttl":1}`))
	f.Add([]byte(`{"pair_code":"AAAA-BBBB","device_name":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var in struct {
			TTL  *int64  `json:"ttl"`
			Code string  `json:"pair_code"`
			Name *string `json:"device_name"`
		}
		r := httptest.NewRequest("POST", "/", bytes.NewReader(b))
		if err := readJSON(httptest.NewRecorder(), r, &in); err != nil {
			var p *Problem
			if !errors.As(err, &p) || p.Status != 400 && p.Status != 413 {
				t.Fatalf("%v", err)
			}
			return
		}
		again, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		var second = in
		if err := json.Unmarshal(again, &second); err != nil || second.Code != in.Code {
			t.Fatalf("%s: %v", again, err)
		}
	})
}

// TestUnpair: the device that made a pairing link ends it, and nobody comes in by it any
// more; another device's is not its to end.
func TestUnpair(t *testing.T) {
	var ended []string
	w := newWorld(t, func(o *Options) { o.Unpaired = func(id string) { ended = append(ended, id) } })
	mine, err := w.codes.Create(t.Context(), w.user.ID, w.device, 0)
	if err != nil {
		t.Fatal(err)
	}
	operators, err := w.codes.Create(t.Context(), w.user.ID, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		id   string
		code int
	}{{operators.ID, 404}, {mine.ID, 200}, {mine.ID, 404}} {
		if r := w.do("POST", "/api/pair/revoke", `{"link_id":"`+c.id+`"}`, "Authorization", w.bearer()); r.Code != c.code {
			t.Errorf("%d, want %d: %s", r.Code, c.code, r.Body)
		}
	}
	if !slices.Equal(ended, []string{mine.ID}) {
		t.Errorf("ended %q", ended)
	}
}
