package masque

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3/qlog"
	"github.com/quic-go/quic-go/qlogwriter"
)

const (
	// backlogMost is how many datagrams of a stream may wait in HTTP/3's queue, which
	// holds 32 and drops the next; one more is on its way when it is asked.
	backlogMost = 30
	// backlogLess is how few have to be left before more are let in.
	backlogLess = 16
	// backlogTime bounds how long a stream that takes nothing out holds up the
	// datagrams of the others.
	backlogTime = 5 * time.Millisecond
)

// backlog keeps HTTP/3's short queues of datagrams from overflowing. A goroutine of
// quic-go moves datagrams from the connection's queue (128) into those of the streams
// (32), and moves a burst before anybody has had the processor to take one out. What
// it drops is lost to the QUIC inside, whose congestion window then stays near 32
// packets. quic-go lets nobody in between but its event log, which that goroutine
// calls for each datagram before it queues it: so this is an event log, which writes
// nothing, and waits while a stream's queue is full. Then datagrams wait in the
// connection's queue.
type backlog struct {
	patience  time.Duration
	producers atomic.Int32
	mu        sync.Mutex
	streams   map[uint64]*waiting // by quarter stream id
}

// traceBacklog is quic.Config.Tracer.
func traceBacklog(context.Context, bool, quic.ConnectionID) qlogwriter.Trace {
	return &backlog{patience: backlogTime, streams: make(map[uint64]*waiting)}
}

// AddProducer implements qlogwriter.Trace. The first who asks is the QUIC connection
// itself, whose events are not wanted.
func (b *backlog) AddProducer() qlogwriter.Recorder {
	if b.producers.Add(1) == 1 {
		return nil
	}
	return b
}

// Close implements qlogwriter.Recorder.
func (b *backlog) Close() error { return nil }

// RecordEvent implements qlogwriter.Recorder.
func (b *backlog) RecordEvent(e qlogwriter.Event) {
	if d, ok := e.(qlog.DatagramParsed); ok {
		b.mu.Lock()
		w := b.streams[d.QuarterStreamID]
		b.mu.Unlock()
		w.comes()
	}
}

// watch counts the datagrams of a stream from now on, until forget.
func (b *backlog) watch(id quic.StreamID) *waiting {
	w := &waiting{patience: b.patience, room: make(chan struct{}, 1)}
	b.mu.Lock()
	b.streams[uint64(id/4)] = w
	b.mu.Unlock()
	return w
}

func (b *backlog) forget(id quic.StreamID) {
	b.mu.Lock()
	w := b.streams[uint64(id/4)]
	delete(b.streams, uint64(id/4))
	b.mu.Unlock()
	w.over()
}

// backlogOf is the backlog of a stream's connection; nil if it has none.
func backlogOf(s interface{ QlogTrace() qlogwriter.Trace }) *backlog {
	b, _ := s.QlogTrace().(*backlog)
	return b
}

// waiting counts the datagrams in the queue of one stream. Should some be dropped all
// the same, those that were queued before the count began for example, they do not
// stay counted: what a full queue holds is more than backlogMost. nil counts nothing.
type waiting struct {
	patience time.Duration
	room     chan struct{} // filled when there is room for who waits

	mu    sync.Mutex
	n     int
	full  bool // somebody waits for room
	ended bool
}

// comes counts one that is about to be queued, and returns when there is room.
func (w *waiting) comes() {
	if w == nil {
		return
	}
	w.mu.Lock()
	w.n++
	w.full = w.n >= backlogMost && !w.ended
	full := w.full
	w.mu.Unlock()
	if !full {
		return
	}
	t := time.NewTimer(w.patience)
	defer t.Stop()
	select {
	case <-w.room:
	case <-t.C: // it is queued or dropped, as without us
		w.mu.Lock()
		if w.full {
			w.n, w.full = 0, false
		} else {
			<-w.room // came with the timer
		}
		w.mu.Unlock()
	}
}

// taken says that one was taken out.
func (w *waiting) taken() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n = max(w.n-1, 0)
	if w.full && w.n <= backlogLess {
		w.full = false
		w.room <- struct{}{} // has room for it: only who waits sets full
	}
}

// over says that nothing is taken out any more.
func (w *waiting) over() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	if w.full {
		w.full = false
		w.room <- struct{}{}
	}
}
