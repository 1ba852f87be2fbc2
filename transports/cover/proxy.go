package cover

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"time"
)

// newProxy passes requests on to the operator's origin.
func newProxy(opt Options) (http.Handler, error) {
	o := opt.Origin
	if o.Scheme != "http" && o.Scheme != "https" || o.Host == "" {
		return nil, fmt.Errorf("cover origin %q: it must be an http or https address", o.Redacted())
	}
	if o.RawQuery != "" || o.Fragment != "" || o.User != nil {
		return nil, fmt.Errorf("cover origin %q: only scheme, host and path are allowed", o.Redacted())
	}
	carrier := opt.Transport
	if carrier == nil {
		carrier = &http.Transport{
			DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			TLSHandshakeTimeout:   5 * time.Second,
			ResponseHeaderTimeout: 30 * time.Second,
			ExpectContinueTimeout: time.Second,
			IdleConnTimeout:       60 * time.Second,
			MaxIdleConnsPerHost:   32,
			MaxConnsPerHost:       256,
			ForceAttemptHTTP2:     true,
			DisableCompression:    true,
		}
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(o)
			r.Out.Host = r.In.Host
			r.Out.URL.RawQuery = r.In.URL.RawQuery // byte for byte, also where Go would not parse it
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip"} {
				r.Out.Header.Del(name)
			}
			if opt.Forward {
				r.SetXForwarded()
			}
			dropCookie(r.Out.Header, opt.Cookie)
			if r.Out.Header.Get("User-Agent") == "" {
				r.Out.Header["User-Agent"] = nil // none came, none goes on
			}
		},
		Transport: carrier,
		ErrorLog:  log.New(io.Discard, "", 0),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if opt.Log != nil && r.Context().Err() == nil {
				opt.Log.LogAttrs(context.Background(), levelOf(err), "cover origin does not answer", errorAttr(err))
			}
			text := "Bad Gateway\n"
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Header().Set("Content-Length", fmt.Sprint(len(text)))
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w, text)
		},
	}, nil
}

// dropCookie removes every cookie of that name and leaves the rest byte for
// byte as it was.
func dropCookie(h http.Header, name string) {
	lines := h["Cookie"]
	if name == "" || len(lines) == 0 {
		return
	}
	kept := lines[:0:0]
	for _, line := range lines {
		var parts []string
		changed := false
		for part := range strings.SplitSeq(line, ";") {
			n, _, _ := strings.Cut(part, "=")
			if strings.TrimSpace(n) == name {
				changed = true
				continue
			}
			parts = append(parts, part)
		}
		if changed {
			line = strings.TrimSpace(strings.Join(parts, ";"))
		}
		if line != "" {
			kept = append(kept, line)
		}
	}
	if len(kept) == 0 {
		h.Del("Cookie")
		return
	}
	h["Cookie"] = kept
}
