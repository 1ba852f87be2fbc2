package gate

import (
	"context"
	"net/http"
	"strings"

	"github.com/commucat/commucat/sdk/entry"
	"github.com/commucat/commucat/sdk/transport"
)

// Options are the fields that the Options of all web transports share.
type Options struct {
	// Path is the connect path, compared exactly; a query is never ours.
	Path string
	// Cookie is the name of the cookie with the entry token.
	Cookie string
	// Verify checks a token, see [entry.Verifier.Verify]. nil refuses all.
	Verify func(method, path, cookie string) (entry.Stream, bool, error)
	// Cover answers every request that is not ours; nil is a plain 404.
	Cover http.Handler
}

// Value returns the cookie value of a request to the connect path. It touches
// neither body nor token.
func (o *Options) Value(r *http.Request) (string, bool) {
	if r.URL.Path != o.Path || r.URL.RawQuery != "" || r.URL.RawPath != "" || r.URL.ForceQuery || o.Cookie == "" {
		return "", false
	}
	return cookie(r.Header["Cookie"], o.Cookie)
}

// Plain returns the value if it is a token without a stream part.
func (o *Options) Plain(r *http.Request) (string, bool) {
	v, ok := o.Value(r)
	return v, ok && len(v) == entry.TokenLength
}

// Stream reads the stream part without checking the token.
func (o *Options) Stream(r *http.Request) (value string, s entry.Stream, ok bool) {
	value, ok = o.Value(r)
	if !ok || len(value) != entry.MaxLength || value[entry.TokenLength] != '.' {
		return "", s, false
	}
	s, err := entry.ParseStream(value[entry.TokenLength+1:])
	return value, s, err == nil
}

// Good checks the token of a request; it spends the token.
func (o *Options) Good(r *http.Request, value string) bool {
	if o.Verify == nil {
		return false
	}
	_, _, err := o.Verify(r.Method, o.Path, value)
	return err == nil
}

// Refuse gives the cover's answer.
func (o *Options) Refuse(w http.ResponseWriter, r *http.Request) {
	if o.Cover == nil {
		http.NotFound(w, r)
		return
	}
	o.Cover.ServeHTTP(w, r)
}

// Facts of a request that showed a token.
func Facts(name string, r *http.Request) transport.Facts {
	return transport.Facts{
		Transport: name,
		Remote:    transport.ParseAddrPort(r.RemoteAddr),
		Entered:   true,
		UserAgent: strings.Clone(transport.Shorten(r.UserAgent(), transport.MaxUserAgent)),
		Context:   context.WithoutCancel(r.Context()),
	}
}

// Headers keep proxies from storing, changing or holding back an answer.
func Headers(h http.Header, contentType string) {
	h["Content-Type"] = []string{contentType}
	h["Cache-Control"] = []string{"no-store"}
	h["X-Accel-Buffering"] = []string{"no"}
}

// cookie finds the first cookie of that name without building a list.
func cookie(lines []string, name string) (string, bool) {
	for _, line := range lines {
		for line != "" {
			var pair string
			pair, line, _ = strings.Cut(line, ";")
			if k, v, ok := strings.Cut(strings.Trim(pair, " \t"), "="); ok && k == name {
				return v, true
			}
		}
	}
	return "", false
}
