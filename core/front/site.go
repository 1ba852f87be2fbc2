package front

import (
	"io"
	"net/http"
	"time"
)

// Limits of a request's body on the cover site: it must be there within
// bodyGrace plus a second for every bodyRate bytes.
const (
	bodyGrace = 30 * time.Second
	bodyRate  = 4 << 10
)

// Site bounds the time that a request's body may take. The cover handler that
// is lent to transports should be wrapped as well, so that the same request is
// treated the same wherever it was refused. Wrapping twice does nothing.
func Site(h http.Handler) http.Handler {
	if _, ok := h.(site); ok {
		return h
	}
	return site{h}
}

type site struct{ handler http.Handler }

func (s site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Body == nil || r.Body == http.NoBody {
		s.handler.ServeHTTP(w, r)
		return
	}
	b := &body{ReadCloser: r.Body, control: http.NewResponseController(w), start: time.Now()}
	b.extend()
	copied := *r
	copied.Body = b
	s.handler.ServeHTTP(w, &copied)
}

// body moves the read deadline with the bytes that arrive and lifts it at the
// end, so that a long answer is not cut off by it.
type body struct {
	io.ReadCloser
	control *http.ResponseController
	start   time.Time
	n       int64
}

func (b *body) extend() {
	t := b.start.Add(bodyGrace + time.Duration(b.n)*time.Second/bodyRate)
	_ = b.control.SetReadDeadline(t)
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	switch {
	case err == io.EOF:
		_ = b.control.SetReadDeadline(time.Time{})
	case n > 0:
		b.extend()
	}
	return n, err
}
