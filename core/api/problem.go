package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/pairing"
	"github.com/commucat/commucat/sdk"
)

// MaxBody bounds a request's JSON in bytes.
const MaxBody = 64 << 10

// bodyTime bounds how long a request's body may take.
const bodyTime = 15 * time.Second

// Problem is an error as the wire carries it.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	// Code is stable; Title and Detail are for people.
	Code string `json:"code,omitempty"`
	// after is Retry-After.
	after time.Duration
}

// Error is the detail, or the title.
func (p *Problem) Error() string {
	if p.Detail != "" {
		return p.Detail
	}
	return p.Title
}

// titles are those that the reference's clients know.
var titles = map[int]string{
	400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 405: "MethodNotAllowed", 409: "Conflict",
	413: "PayloadTooLarge", 415: "UnsupportedMediaType", 429: "Too Many Requests", 500: "InternalError", 503: "Unavailable",
}

func problem(status int, code, detail string) *Problem {
	return &Problem{Type: "about:blank", Title: titles[status], Status: status, Code: code, Detail: detail}
}

// problemOf translates an error of the layers below. What is not a refusal is
// logged and answered without detail.
func problemOf(ctx context.Context, log *slog.Logger, err error) *Problem {
	var p *Problem
	var throttled *pairing.Throttled
	var refused *account.Error
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &throttled):
		return tooMany(throttled.After)
	case errors.Is(err, pairing.ErrInvalid):
		return problem(404, "pairing_invalid", "pair code is unknown, expired or used")
	case errors.Is(err, pairing.ErrShortCodes):
		return problem(403, "short_codes_off", "short pairing codes are not offered here; use a pairing link")
	case errors.As(err, &refused):
		return problem(statusOf(refused.Kind), refused.Code, plain(refused.Code))
	case ctx.Err() != nil:
		return problem(503, "unavailable", "")
	case errors.Is(err, sdk.Unavailable):
		log.WarnContext(ctx, "request refused", "error", err)
		return problem(503, "unavailable", "the relay's storage or a plugin does not answer or takes nothing now; 'commucat doctor' and the relay's log say why")
	default:
		log.ErrorContext(ctx, "request failed", "error", err)
		return problem(500, "internal", "internal error")
	}
}

func statusOf(k sdk.ErrorKind) int {
	switch k {
	case sdk.NotFound:
		return 404
	case sdk.Denied:
		return 403
	case sdk.Conflict:
		return 409
	case sdk.Invalid:
		return 400
	default:
		return 409
	}
}

func plain(code string) string { return strings.ReplaceAll(code, "_", " ") }

// NoWay refuses a link that is to name a transport which the relay has not, or which cannot
// be reached at present.
func NoWay(transport string) *Problem {
	return problem(409, "no_way", fmt.Sprintf("the relay cannot be reached over %q at present, or a link has no room for it beside the others (see 'commucat transport list')", transport))
}

func tooMany(after time.Duration) *Problem {
	p := problem(429, "rate_limited", "")
	p.after = max(after, time.Second)
	return p
}

func writeProblem(w http.ResponseWriter, p *Problem) {
	h := w.Header()
	if p.after > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.after.Seconds()))))
	}
	if p.Status == 401 {
		h.Set("WWW-Authenticate", "Bearer")
	}
	send(w, p.Status, "application/problem+json", p)
}

func writeJSON(w http.ResponseWriter, v any) { send(w, 200, "application/json", v) }

func send(w http.ResponseWriter, status int, kind string, v any) {
	b, err := json.Marshal(v)
	if err != nil { // only for values that cannot occur
		status, b = 500, []byte(`{"type":"about:blank","title":"InternalError","status":500}`)
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

// readJSON reads one object of at most MaxBody bytes. Unknown keys are ignored,
// an empty body leaves v as it is. Numbers, depth and duplicates are as in
// encoding/json; nothing is allocated beyond the body's own size.
func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return problem(413, "too_large", fmt.Sprintf("the body is larger than %d bytes", MaxBody))
	case err != nil:
		return problem(400, "bad_request", "the body ended early")
	case len(b) == 0:
		return nil
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	if err := json.Unmarshal(b, v); err != nil {
		return problem(400, "bad_request", "the body is not the JSON that is expected")
	}
	return nil
}

// stamp writes times as RFC 3339 with the offset +00:00 and 0, 3 or 6 digits.
func stamp(t time.Time) string {
	t = t.UTC()
	layout := "2006-01-02T15:04:05"
	switch ns := t.Nanosecond() / 1000 * 1000; {
	case ns == 0:
	case ns%1e6 == 0:
		layout += ".000"
	default:
		layout += ".000000"
	}
	return t.Format(layout) + "+00:00"
}
