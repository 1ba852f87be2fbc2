package split

import (
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/commucat/commucat/sdk/entry"
	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/internal/gate"
)

// ErrLost is a stream whose other end has been silent for too long.
var ErrLost = errors.New("split: no request for too long")

// stream is the relay's end.
type stream struct {
	end
	server *Server
	id     [16]byte
	facts  transport.Facts
	local  net.Addr
	from   sources
	idle   *time.Timer

	// Under end.mu:
	active  int    // requests being answered
	gone    bool   // no request is answered any more
	upNext  uint64 // next expected upstream byte
	downNow *fetch // the request that fetches
	upNow   *fetch // the request that brings
}

// fetch is a request that another one may end.
type fetch struct{ stop func() }

func newStream(s *Server, id [16]byte, r *http.Request) *stream {
	x := &stream{server: s, id: id, facts: gate.Facts(s.name, r), local: transport.Addr{Net: s.name}}
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		x.local = a
	}
	x.init(intake)
	x.idle = time.AfterFunc(s.times.Idle, x.expire)
	return x
}

// begin registers a request; false if the stream has ended.
func (x *stream) begin() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.gone {
		return false
	}
	x.active++
	x.idle.Stop()
	return true
}

func (x *stream) done() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.active--; x.active == 0 && !x.gone {
		x.idle.Reset(x.patience())
	}
}

// patience is how long the stream waits for the next request. The lock is held.
func (x *stream) patience() time.Duration {
	if x.closed && len(x.out) == 0 {
		return x.server.times.Linger
	}
	return x.server.times.Idle
}

// expire ends a stream that no request asks for.
func (x *stream) expire() {
	x.mu.Lock()
	if x.active > 0 || x.gone {
		x.mu.Unlock()
		return
	}
	x.gone = true
	if x.err == nil {
		x.err = ErrLost
	}
	x.out = nil
	x.change.Broadcast()
	x.mu.Unlock()
	x.server.drop(x)
}

// finish is the client's close at offset; else it says what is expected.
func (x *stream) finish(offset uint64) (uint64, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if offset != entry.Abandon && offset != x.upNext {
		return x.upNext, false
	}
	x.inEOF = true
	if offset == entry.Abandon {
		x.gone = true
		x.idle.Stop()
		if x.err == nil {
			x.err = io.ErrClosedPipe
		}
		x.out = nil
	}
	x.change.Broadcast()
	return 0, true
}

// replace makes f the request of its kind and ends the one before.
func (x *stream) replace(place **fetch, f *fetch) {
	if old := *place; old != nil {
		old.stop()
	}
	*place = f
	x.change.Broadcast()
}

// Close ends the session; the client can still fetch what was written.
func (x *stream) Close() error {
	if !x.close() {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.active == 0 && !x.gone {
		x.idle.Reset(x.patience())
	}
	return nil
}

// LocalAddr is the address of the listener's socket.
func (x *stream) LocalAddr() net.Addr { return x.local }

// RemoteAddr is the address of the client that opened the stream.
func (x *stream) RemoteAddr() net.Addr {
	if x.facts.Remote.IsValid() {
		return net.TCPAddrFromAddrPort(x.facts.Remote)
	}
	return transport.Addr{Net: x.server.name}
}

// Path says who came and how.
func (x *stream) Path() transport.Facts { return x.facts }
