package reality

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	xtls "github.com/xtls/reality"
)

// pass is what lets a client in.
type pass struct {
	key   []byte // the server's private key that opened the hello
	hello *clientHello
	claim claim
	guest guest // zero for the configured ids
	// ticket says that the cover ends its flight with a session ticket.
	ticket bool
	// growing says that the cover's records begin small and grow, as Go's do; others fill
	// them from the first.
	growing bool
}

// answer lets the module speak TLS to a client that has a pass, in the cover's place.
// An error means that the cover has the client, from the first byte on: nothing has
// been lost.
func (x *exchange) answer(p *pass, record []byte, instance string) (*xtls.Conn, error) {
	if err := x.awaitCover(p.hello); err != nil {
		x.giveBack()
		return nil, err
	}
	s := &standin{socket: &socket{Conn: x.client}, x: x, hello: record}
	m := &mirror{x: x, address: x.cover.RemoteAddr(), due: len(record), ticket: p.ticket}
	conn, err := xtls.Server(context.Background(), s, &xtls.Config{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return m, nil },
		Type:        "tcp",
		Dest:        instance,
		ServerNames: map[string]bool{p.hello.serverName: true},
		PrivateKey:  p.key,
		ShortIds:    map[[8]byte]bool{p.claim.id: true},
		MinVersion:  xtls.VersionTLS13,
		// A ticket of its own would not look like the cover's.
		SessionTicketsDisabled: true,
		// The lengths of records are in clear.
		DynamicRecordSizingDisabled: !p.growing,
	})
	_ = m.Close()
	if err != nil {
		x.giveBack()
		x.resume(s)
		return nil, err
	}
	x.leave()
	if err := s.enter(); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// resume gives the cover what the client has sent since its hello. An alert that only the
// module could open becomes an end of stream: servers take both without a word.
func (x *exchange) resume(s *standin) {
	rest, alert := s.unread()
	if len(rest) > 0 {
		if x.toCover(rest) != nil {
			x.coverDead()
		}
	}
	switch {
	case s.clientEnd != nil:
		x.upEnds(s.clientEnd)
	case alert:
		x.upEnds(io.EOF)
	}
}

// lateAnswer is when a cover that says nothing to a client is looked at again.
const lateAnswer = 8 * time.Second

// awaitCover waits for the cover's first record and says whether the module can answer
// in its place.
func (x *exchange) awaitCover(c *clientHello) error {
	if x.late != nil {
		timer := time.AfterFunc(lateAnswer, x.late)
		defer timer.Stop()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for x.ended == nil && (len(x.kept) < recordHeader || len(x.kept) < recordHeader+recordSize(x.kept)) {
		if len(x.kept) > keptBytes {
			break
		}
		x.changed.Wait()
	}
	lengths, _ := recordLengths(x.kept)
	if len(lengths) == 0 || x.kept[0] != typeHandshake {
		return fmt.Errorf("the cover did not answer with a ServerHello: %w", errCover)
	}
	h, ok := parseServerHello(x.kept[recordHeader:lengths[0]])
	if !ok || !h.fits(c) {
		return fmt.Errorf("the cover's ServerHello cannot be copied: %w", errCover)
	}
	return nil
}

// records tells the module how long the cover's records after the handshake are. The
// module has one table for the process; the instance's name keeps servers apart.
type records struct {
	instance string
	mu       sync.Mutex
	known    map[string]bool // whether the flight ends with a ticket
}

// key is the module's.
func (r *records) key(name string, kind offered) string {
	return fmt.Sprintf("%s %s %d", r.instance, name, kind)
}

// set stores the lengths, without those of no record that the module can make, and
// whether a ticket ends the flight.
func (r *records) set(name string, kind offered, lengths []int, ticket bool) {
	var fit []int
	for _, n := range lengths {
		if n >= minPadded && n <= recordHeader+maxCipher {
			fit = append(fit, n)
		}
	}
	if fit == nil {
		fit = []int{}
	}
	key := r.key(name, kind)
	xtls.GlobalPostHandshakeRecordsLens.Store(key, fit)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = map[string]bool{}
	}
	r.known[key] = ticket
}

// minPadded is the shortest record that the module can send: header, one byte, type and
// tag.
const minPadded = recordHeader + 1 + 16

// has says whether a client with this hello can be answered, and whether the flight
// ends with a ticket.
func (r *records) has(name string, kind offered) (ticket, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ticket, ok = r.known[r.key(name, kind)]
	return ticket, ok
}

// forget takes everything out of the module's table.
func (r *records) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range r.known {
		xtls.GlobalPostHandshakeRecordsLens.Delete(key)
	}
	r.known = nil
}
