package masque

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// How long a connection may leave what was written unanswered before TCP is asked:
// three probe timeouts (RFC 9002 section 6.2), within these bounds.
const (
	silenceLeast = 600 * time.Millisecond
	silenceMost  = 5 * time.Second
	askTime      = 3 * time.Second // for TCP's answer
	askAgain     = 2 * time.Second
)

// watch ends a client's QUIC connection that has become silent while the same site
// answers over TCP: UDP is blocked, and the next dial finds the way round. Silence alone
// proves nothing, for a device between two networks hears nothing either and goes on
// afterwards. It watches only while something written is unanswered, and holds no
// goroutine.
type watch struct {
	conn *quic.Conn
	// ask says whether the site answers over TCP.
	ask func(context.Context) error

	mu    sync.Mutex
	timer *time.Timer // nil: nothing is awaited
	heard uint64      // packets received, at the time of the last write
	sent  uint64      // packets sent, when the first write after the last packet came
	since time.Time   // of that write
	over  bool
}

// wrote is called before each write.
func (w *watch) wrote() {
	if w == nil {
		return
	}
	stats := w.conn.ConnectionStats()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer == nil || stats.PacketsReceived != w.heard {
		w.heard, w.sent, w.since = stats.PacketsReceived, stats.PacketsSent, time.Now()
	}
	if w.timer == nil && !w.over {
		w.timer = time.AfterFunc(silence(&stats), w.look)
	}
}

func silence(s *quic.ConnectionStats) time.Duration {
	return min(max(3*(s.SmoothedRTT+4*s.MeanDeviation+25*time.Millisecond), silenceLeast), silenceMost)
}

// look runs when the timer has fired.
func (w *watch) look() {
	stats := w.conn.ConnectionStats()
	allowed := silence(&stats)
	w.mu.Lock()
	heard, sent := w.heard, w.sent
	switch left := allowed - time.Since(w.since); {
	case w.over:
	case stats.PacketsReceived != heard, stats.PacketsSent == sent: // answered, or held back by flow control
		w.timer = nil
	case left > 0:
		w.timer.Reset(left)
	default:
		w.mu.Unlock()
		w.doubt(heard, allowed)
		return
	}
	w.mu.Unlock()
}

// doubt asks TCP and ends the connection if that answers while QUIC stays silent.
func (w *watch) doubt(heard uint64, allowed time.Duration) {
	ctx, cancel := context.WithTimeout(w.conn.Context(), askTime)
	err := w.ask(ctx)
	cancel()
	// A port that nobody has any more is an answer as well.
	blocked := err == nil || errors.Is(err, syscall.ECONNREFUSED)
	stats := w.conn.ConnectionStats()
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.over:
	case stats.PacketsReceived != heard:
		w.timer = nil
	case blocked:
		w.over = true
		_ = w.conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeConnectError), "no answer")
	default: // the network is away
		w.timer.Reset(max(allowed, askAgain))
	}
}

// end stops watching.
func (w *watch) end() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	if w.timer != nil {
		w.timer.Stop()
	}
}
