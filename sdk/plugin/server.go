package plugin

import (
	"context"
	"io"
	"os"
	"sync"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire/handoff"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
)

// server is the state of a plugin process.
type server struct {
	plugins   []sdk.Plugin
	protocols func(sdk.Kind) []uint32
	main      *handoff.Socket
	stderr    *os.File
	pumps     *handoff.Pumps
	gone      chan struct{} // closed when the host has ended
	files     int           // the limit of open descriptors, 0 if unknown

	mu        sync.Mutex
	instances map[uint64]*instance
	next      uint64                 // of questions to the host
	asked     map[uint64]chan answer // by number
	lent      map[uint64]chan answer // listeners' sockets and carriers, by number
	draining  bool

	health health
}

// answer is what came from the host for a question.
type answer struct {
	m  handoff.Message
	fd int
}

func (a answer) drop() { handoff.Drop(a.fd) }

func newServer(plugins []sdk.Plugin, protocols func(sdk.Kind) []uint32, main *handoff.Socket, stderr *os.File) *server {
	return &server{
		plugins: plugins, protocols: protocols, main: main, stderr: stderr,
		pumps: handoff.NewPumps(), gone: make(chan struct{}), files: fileLimit(),
		instances: map[uint64]*instance{}, asked: map[uint64]chan answer{}, lent: map[uint64]chan answer{},
		health: health{changed: make(chan struct{}), reports: map[uint64]*wirepb.Event{}},
	}
}

// receive takes what the host hands over until it has gone.
func (s *server) receive() {
	defer close(s.gone)
	for {
		m, fd, err := s.main.Receive()
		if err != nil {
			return
		}
		a := answer{m, fd}
		table := s.asked
		if m.Type == handoff.Listener || m.Type == handoff.Carrier {
			table = s.lent
		}
		s.mu.Lock()
		c, ok := table[m.Number]
		if !ok && m.Type != handoff.Bound && m.Type != handoff.Cover {
			// It may come before the call that names it.
			c, ok = make(chan answer, 1), true
			table[m.Number] = c
		}
		if ok { // within the lock, so that who gives up finds it
			select {
			case c <- a:
			default:
				ok = false
			}
		}
		s.mu.Unlock()
		if !ok {
			a.drop()
		}
	}
}

// borrow waits for a descriptor that the host sends under a number.
func (s *server) borrow(ctx context.Context, number uint64) (answer, error) {
	s.mu.Lock()
	c, ok := s.lent[number]
	if !ok {
		c = make(chan answer, 1)
		s.lent[number] = c
	}
	s.mu.Unlock()
	a, err := s.await(ctx, c)
	s.forget(s.lent, number)
	return a, err
}

// ask sends a question and waits for its answer.
func (s *server) ask(ctx context.Context, m handoff.Message) (answer, error) {
	c := make(chan answer, 1)
	s.mu.Lock()
	s.next++
	m.Number = s.next
	s.asked[m.Number] = c
	s.mu.Unlock()
	deadline, _ := ctx.Deadline()
	err := s.main.Send(&m, -1, deadline)
	a := answer{fd: -1}
	if err == nil {
		a, err = s.await(ctx, c)
	}
	s.forget(s.asked, m.Number)
	if err == nil && (a.m.Error != "" || a.fd < 0) {
		a.drop()
		err = &sdk.Error{Kind: a.m.ErrorKind, Text: a.m.Error}
	}
	return a, err
}

func (s *server) await(ctx context.Context, c chan answer) (answer, error) {
	select {
	case a := <-c:
		return a, nil
	case <-ctx.Done():
		return answer{fd: -1}, ctx.Err()
	case <-s.gone:
		return answer{fd: -1}, io.EOF
	}
}

// forget waits for an answer no longer, and drops one that came after all.
func (s *server) forget(table map[uint64]chan answer, number uint64) {
	s.mu.Lock()
	c := table[number]
	delete(table, number)
	s.mu.Unlock()
	select {
	case a := <-c:
		a.drop()
	default:
	}
}

// close closes what is open.
func (s *server) close(ctx context.Context) {
	s.mu.Lock()
	all := make([]*instance, 0, len(s.instances))
	for id, i := range s.instances {
		all = append(all, i)
		delete(s.instances, id)
	}
	s.mu.Unlock()
	var group sync.WaitGroup
	for _, i := range all {
		group.Go(func() { _ = i.close(ctx) })
	}
	group.Wait()
}

// drain closes the listeners, refuses new streams and waits for those who have begun
// their handshakes.
func (s *server) drain(ctx context.Context) {
	s.mu.Lock()
	s.draining = true
	var all []*listener
	for _, i := range s.instances {
		all = append(all, i.all()...)
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, l := range all {
			l.drain()
		}
		for _, l := range all {
			l.done.Wait()
		}
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

var errDraining = &sdk.Error{Kind: sdk.Unavailable, Text: "the plugin is ending"}

// find gives an open instance.
func (s *server) find(id uint64) (*instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.instances[id]
	if !ok {
		return nil, &sdk.Error{Kind: sdk.Closed, Text: "the plugin has been closed"}
	}
	return i, nil
}

// crowded says that streams use nearly all descriptors there are: two each.
func (s *server) crowded() bool {
	return s.files > 0 && 2*s.pumps.Open()+64 > s.files/10*9
}
