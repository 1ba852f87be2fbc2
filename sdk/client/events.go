package client

import (
	"slices"
	"sync"
)

// Bounds of the events that wait for OnEvent. Those with a payload, of which the relay
// decides how many there are, cannot push the others out.
const (
	maxTold      = 192
	maxToldBytes = 1 << 20
	maxOwn       = 64
)

// teller calls OnEvent, from a goroutine that lives while there is something to tell: a
// slow callback holds up nothing else.
type teller struct {
	call func(Event) // nil: nobody listens

	mu     sync.Mutex
	queue  []Event
	bytes  int           // of payload in it
	missed int           // dropped since the last call
	told   chan struct{} // closed by the present goroutine at its end; nil: none runs
	closed bool
}

// tell queues one event.
func (t *teller) tell(e Event) {
	if t.call == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.makeRoom(e)
	t.queue = append(t.queue, e)
	t.bytes += len(e.Payload)
	if t.told == nil {
		t.told = make(chan struct{})
		go t.run(t.told)
	}
}

// makeRoom drops the oldest events of the kind of e, as many as it needs; mu is held.
func (t *teller) makeRoom(e Event) {
	same, most := 0, maxOwn
	if e.Payload != nil {
		most = maxTold
	}
	for _, o := range t.queue {
		if (o.Payload == nil) == (e.Payload == nil) {
			same++
		}
	}
	for ; same > 0 && (same >= most || e.Payload != nil && t.bytes+len(e.Payload) > maxToldBytes); same-- {
		at := slices.IndexFunc(t.queue, func(o Event) bool {
			return (o.Payload == nil) == (e.Payload == nil) && !o.grave()
		})
		if at < 0 { // nothing but grave ones
			at = slices.IndexFunc(t.queue, func(o Event) bool { return o.Payload == nil })
		}
		t.bytes -= len(t.queue[at].Payload)
		t.queue = slices.Delete(t.queue, at, at+1)
		t.missed++
	}
}

// grave says that an event is dropped after all others of this program's own.
func (e Event) grave() bool {
	return e.Name == "refused" || e.Name == "downgraded" || e.Name == "confirming"
}

func (t *teller) run(told chan struct{}) {
	for {
		t.mu.Lock()
		if len(t.queue) == 0 {
			t.queue, t.told = nil, nil
			close(told)
			t.mu.Unlock()
			return
		}
		e := t.queue[0]
		t.queue[0] = Event{}
		t.queue = t.queue[1:]
		t.bytes -= len(e.Payload)
		e.Missed, t.missed = t.missed, 0
		t.mu.Unlock()
		t.call(e)
	}
}

// end takes no more events; with drop those that wait are forgotten.
func (t *teller) end(drop bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if drop {
		t.queue, t.bytes = nil, 0
	}
}

// wait returns when all that is queued has been told.
func (t *teller) wait() {
	t.mu.Lock()
	told := t.told
	t.mu.Unlock()
	if told != nil {
		<-told
	}
}
