package server

import (
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
)

const (
	// answerFor is how long an answer is good. What changes within a transport's process is
	// told to devices that late.
	answerFor = 10 * time.Minute
	// answerMost bounds the answers that are kept.
	answerMost = 1 << 14
	// muteFor is how long a transport that did not answer in time is not asked about keys
	// that it has answered for before: each Ack would wait for it.
	muteFor = 10 * time.Second
)

// answers are the endpoints that devices' keys were let in at, by guest id: devices name
// their keys with each connection, and many connect at once when a network comes back.
// The zero value is ready.
type answers struct {
	mu    sync.Mutex
	all   map[string]answer
	mute  map[string]time.Time // by transport: it did not answer in time, until then
	round uint64               // counts what was forgotten
}

type answer struct {
	endpoint ccp.Endpoint
	process  any // that answered
	until    time.Time
}

// find answers for a key what the same process has answered before. round is for keep.
func (t *answers) find(id string, process any, now time.Time) (e ccp.Endpoint, round uint64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k, known := t.all[id]
	if known && process != nil && k.process == process && k.until.After(now) {
		return k.endpoint, t.round, true
	}
	return ccp.Endpoint{}, t.round, false
}

// silent notes that a transport did not answer in time.
func (t *answers) silent(transport string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mute == nil {
		t.mute = make(map[string]time.Time)
	}
	t.mute[transport] = now.Add(muteFor) // as many as the configuration has
}

// skip says that a question about a key is better left out: the transport knows the key,
// and has been silent a moment ago.
func (t *answers) skip(id, transport string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, known := t.all[id]
	return known && t.mute[transport].After(now)
}

// keep notes an answer, unless a key was forgotten since round: it may be this one.
func (t *answers) keep(id string, process any, e ccp.Endpoint, round uint64, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.round != round || process == nil {
		return
	}
	if t.all == nil || len(t.all) >= answerMost {
		t.all = make(map[string]answer)
	}
	t.all[id] = answer{e, process, now.Add(answerFor)}
}

// forget is for a key that is not good any more.
func (t *answers) forget(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.round++
	delete(t.all, id)
}
