package split

import (
	"context"
	"encoding/base64"
	"net/http"
	"strconv"
	"time"

	"github.com/commucat/commucat/sdk/entry"
	"github.com/commucat/commucat/transports/internal/gate"
)

// eventData is the most raw bytes of one event: 12 KiB of base64 and its lines
// fit one TLS record.
const eventData = 9 << 10

// reader is one request that fetches.
type reader struct {
	x      *stream
	f      *fetch
	ctx    context.Context
	offset uint64
}

// down answers a fetch.
func (s *Server) down(w http.ResponseWriter, r *http.Request, x *stream, st entry.Stream) {
	offset := st.Offset
	if s.events {
		if id, err := strconv.ParseUint(r.Header.Get("Last-Event-Id"), 10, 64); err == nil {
			offset = id
		}
	}
	f := &fetch{stop: func() {}}
	x.mu.Lock()
	if !x.ack(offset) {
		base := x.outBase
		x.mu.Unlock()
		number(w, http.StatusConflict, base)
		return
	}
	x.replace(&x.downNow, f)
	x.mu.Unlock()
	defer x.leave(f)
	defer context.AfterFunc(r.Context(), x.wake)()
	d := &reader{x: x, f: f, ctx: r.Context(), offset: offset}
	if s.events {
		s.stream(w, d)
		return
	}
	hold := around(s.times.Hold, s.times.HoldSpread)
	if st.Op == entry.OpOpen {
		hold = 0
	}
	s.poll(w, d, hold)
}

// state says why wait returned.
type state uint8

const (
	waited  state = iota // the time is over
	some                 // bytes are there
	ended                // all bytes were had and there will be no more
	stopped              // another request took over, or the client left
)

// wait waits for bytes from the reader's offset on until the moment given.
func (d *reader) wait(until time.Time) (state, int) {
	x := d.x
	x.mu.Lock()
	defer x.mu.Unlock()
	var timer *time.Timer
	for {
		switch {
		case x.downNow != d.f || x.gone || d.ctx.Err() != nil:
			return stopped, 0
		case d.offset < x.outEnd():
			return some, int(x.outEnd() - d.offset)
		case x.outEOF:
			return ended, 0
		}
		left := time.Until(until)
		if left <= 0 {
			return waited, 0
		}
		if timer == nil {
			timer = time.AfterFunc(left, x.wake)
			defer timer.Stop()
		}
		x.change.Wait()
	}
}

// copy takes bytes and moves on; 0 if the request has to end.
func (d *reader) copy(p []byte) int {
	d.x.mu.Lock()
	defer d.x.mu.Unlock()
	if d.x.downNow != d.f || d.x.gone {
		return 0
	}
	n := d.x.copyOut(p, d.offset)
	d.offset += uint64(n)
	return n
}

// poll answers a long-poll.
func (s *Server) poll(w http.ResponseWriter, d *reader, hold time.Duration) {
	why, n := d.wait(time.Now().Add(hold))
	if why == waited || why == stopped {
		nothing(w)
		return
	}
	gate.Headers(w.Header(), "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(n))
	w.WriteHeader(http.StatusOK)
	buf := s.chunk()
	defer s.chunks.Put(buf)
	for n > 0 {
		m := d.copy((*buf)[:min(n, len(*buf))])
		if m == 0 {
			return // the answer stays short, which its reader sees
		}
		if _, err := w.Write((*buf)[:m]); err != nil {
			return
		}
		n -= m
	}
}

// stream answers with events until it is time to ask again.
func (s *Server) stream(w http.ResponseWriter, d *reader) {
	gate.Headers(w.Header(), "text/event-stream")
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	send := func(p []byte) bool {
		_, err := w.Write(p)
		return err == nil && rc.Flush() == nil
	}
	// A first byte makes proxies pass the head on.
	if !send([]byte(":\n\n")) {
		return
	}
	end := time.Now().Add(around(s.times.Life, s.times.LifeSpread))
	for sent := 0; sent < Ring/2; {
		comment := time.Now().Add(around(s.times.Comment, s.times.CommentSpread))
		last := comment.After(end)
		if last {
			comment = end
		}
		switch why, _ := d.wait(comment); why {
		case stopped:
			return
		case ended:
			send(appendEvent(nil, "end", d.offset, nil))
			return
		case waited:
			if last || !send([]byte(":\n\n")) {
				return
			}
			continue
		}
		n := s.event(d, send)
		if n == 0 {
			return
		}
		sent += n
	}
}

// event sends one event; an idle stream holds no buffer.
func (s *Server) event(d *reader, send func([]byte) bool) int {
	raw, text := s.chunk(), s.chunk()
	defer s.chunks.Put(raw)
	defer s.chunks.Put(text)
	n := d.copy((*raw)[:eventData])
	if n == 0 || !send(appendEvent((*text)[:0], "", d.offset, (*raw)[:n])) {
		return 0
	}
	return n
}

// appendEvent writes one event; offset is the one after its bytes.
func appendEvent(dst []byte, name string, offset uint64, data []byte) []byte {
	if name != "" {
		dst = append(append(append(dst, "event: "...), name...), '\n')
	}
	dst = append(strconv.AppendUint(append(dst, "id: "...), offset, 10), "\ndata: "...)
	return append(base64.StdEncoding.AppendEncode(dst, data), "\n\n"...)
}
