package client

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/commucat/commucat/sdk/ccp"
)

// world is a relay that does everything a relay may do to a message: cut before
// and after storing it, lose or reorder Acks, ask for a pause, forget what it
// knew of the log, and deliver again what was delivered.
type world struct {
	mu     sync.Mutex
	dice   *rand.Rand
	harm   int // of 100 frames
	win    ccp.Window
	stored []string
	failed uint64
	held   []uint64
	dead   *peer    // what it still brings was never read
	queue  []uint64 // counters by position - 1; repeated ones are duplicates
}

func (w *world) roll(sides int) int { return w.dice.IntN(sides) }

func (w *world) send(p *peer, f ccp.Frame) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f.Type != ccp.TypeSend || p == w.dead {
		return
	}
	s := parseSend(p.r.tb, f)
	n := s.ID.Counter
	switch {
	case w.failed != 0 && n != w.failed:
		return // dropped until the failed one returns
	case w.win.Done(n):
		p.ackRange(s.ID.Log, n, n)
		return
	}
	w.failed = 0
	harm := 99
	if w.roll(100) < w.harm {
		harm = w.roll(4)
	}
	switch harm {
	case 0: // lost on the way
		w.dead = p
		p.conn.Close()
		return
	case 1:
		w.failed = n
		p.refuse(s, ccp.CodeUnavailable, uint32(w.roll(300)))
		return
	}
	if _, err := w.win.Mark(n); err != nil {
		p.r.tb.Errorf("%d: %v", n, err)
	}
	w.stored = append(w.stored, string(s.Body))
	switch harm {
	case 2: // stored, and the Ack is lost
		w.dead = p
		p.conn.Close()
		return
	case 3: // acknowledged later, in another order
		w.held = append(w.held, n)
		return
	}
	p.ackRange(s.ID.Log, n, n)
	w.dice.Shuffle(len(w.held), func(i, j int) { w.held[i], w.held[j] = w.held[j], w.held[i] })
	for _, h := range w.held {
		p.ackRange(s.ID.Log, h, h)
	}
	w.held = w.held[:0]
}

func (w *world) deliver(p *peer) {
	_, last := p.r.seen()
	w.mu.Lock()
	from := last.Cursor - min(last.Cursor, uint64(w.roll(4)))
	stop := len(w.queue) + 1
	if w.roll(100) < 2*w.harm {
		stop = int(from) + w.roll(20)
	}
	w.mu.Unlock()
	for i := int(from); i < len(w.queue); i++ {
		if i == stop {
			p.conn.Close()
			return
		}
		c := w.queue[i]
		if p.deliver(uint64(i+1), c, strconv.FormatUint(c, 10)) != nil {
			return
		}
	}
}

// TestModel: whatever happens on the way, every message is acknowledged once and
// stored once in order, and every message is shown once in order.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{dice: rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0)), harm: rapid.IntRange(0, 40).Draw(rt, "harm")}
		out := rapid.IntRange(0, 60).Draw(rt, "sent")
		fresh := rapid.IntRange(0, 60).Draw(rt, "received")
		for c := 1; c <= fresh; c++ {
			w.queue = append(w.queue, uint64(c))
			for w.roll(4) == 0 {
				w.queue = append(w.queue, uint64(1+w.roll(c)))
			}
		}
		knows := rapid.Bool().Draw(rt, "relay knows the log")
		synctest.Test(t, func(t *testing.T) {
			r := newRelay(t)
			r.frame = w.send
			r.ready = func(p *peer) {
				w.mu.Lock()
				w.failed, w.held = 0, nil
				w.mu.Unlock()
				r.wg.Go(func() { w.deliver(p) })
			}
			r.ack = func(a *ccp.Established) {
				w.mu.Lock()
				defer w.mu.Unlock()
				if ranges := w.win.Ranges(); knows && len(ranges) > 0 {
					a.Ext.Resume.Logs = []ccp.LogState{{Log: [8]byte{0xa1}, Done: ranges}}
				}
			}
			u := start(t, r.options(ccp.AllCapabilities))
			var want []string
			for i := range out {
				want = append(want, strconv.Itoa(i))
			}
			var tickets []*Ticket
			for i, b := range want {
				tickets = append(tickets, u.say(b))
				if i%7 == 0 {
					time.Sleep(time.Duration(i) * time.Millisecond)
				}
			}
			for i, k := range tickets {
				if res, err := k.Wait(context.Background()); err != nil || res.ID.Counter != uint64(i+1) {
					t.Errorf("%d: %v, %v", i, res, err)
				}
			}
			ms := u.heard(fresh)
			synctest.Wait()
			u.close()
			w.mu.Lock()
			defer w.mu.Unlock()
			if got := strings.Join(w.stored, " "); got != strings.Join(want, " ") {
				t.Errorf("stored %s\nwant %s", got, want)
			}
			for i, m := range ms {
				if string(m.Body) != strconv.Itoa(i+1) {
					t.Errorf("shown %s", bodies(ms))
					break
				}
			}
			if len(u.shown) != fresh {
				t.Errorf("%d shown of %d", len(u.shown), fresh)
			}
		})
		if t.Failed() {
			rt.FailNow()
		}
	})
}
