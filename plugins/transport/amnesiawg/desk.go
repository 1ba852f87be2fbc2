package amnesiawg

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/bind"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
)

const (
	// deskRate is how many questions are answered a second; deskMemory how many
	// answered ones are remembered. As long as all of them are young nothing more is
	// answered, so that no question is answered twice.
	deskRate   = 20
	deskMemory = 4096
)

// desk answers the questions of clients that hear nothing.
type desk struct {
	s     *server
	asker *obfs.Asker

	mu     sync.Mutex
	ring   [deskMemory]asked
	next   int
	seen   map[[8]byte]struct{}
	second int64
	budget int
}

type asked struct {
	nonce [8]byte
	until time.Time
}

func newDesk(s *server) *desk {
	return &desk{s: s, asker: obfs.NewAsker(s.public), seen: map[[8]byte]struct{}{}}
}

// stray gets datagrams that are no message.
func (d *desk) stray(datagram []byte, from *bind.Endpoint) {
	q, ok := d.asker.ReadQuestion(datagram)
	if !ok || !d.fresh([8]byte(datagram), q.Time, time.Now()) {
		return
	}
	reply := d.asker.Reply(datagram, obfs.Answer{
		SameParameters: d.s.digestAt(from.Socket()) == q.Parameters,
		KnownKey:       d.s.guests.knownAt(netip.AddrFrom16(q.Address)),
	})
	// Best effort: it is asked more than once.
	_ = d.s.bind.Write(reply, from)
}

// fresh says whether a question is young, new and within the budget.
func (d *desk) fresh(nonce [8]byte, asked, now time.Time) bool {
	if asked.Before(now.Add(-obfs.QuestionLife)) || asked.After(now.Add(obfs.QuestionLife)) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.second != now.Unix() {
		d.second, d.budget = now.Unix(), deskRate
	}
	slot := &d.ring[d.next]
	if _, again := d.seen[nonce]; again || d.budget == 0 || now.Before(slot.until) {
		return false
	}
	d.budget--
	delete(d.seen, slot.nonce)
	slot.nonce, slot.until = nonce, now.Add(2*obfs.QuestionLife+time.Second)
	d.seen[nonce] = struct{}{}
	d.next = (d.next + 1) % deskMemory
	return true
}

// digestAt stands for the parameters of a socket.
func (s *server) digestAt(socket int) [8]byte {
	for i := len(s.outlets) - 1; i >= 0; i-- {
		if o := s.outlets[i]; socket >= o.first {
			return o.digest
		}
	}
	return [8]byte{}
}

func sprint(format string, args []any) string { return fmt.Sprintf(format, args...) }
