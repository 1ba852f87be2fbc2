package host

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/internal/wire/handoff"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
)

const (
	// lending bounds one Env call of a plugin, slots how many run at once.
	lending = 20 * time.Second
	slots   = 16
)

// handed is a dialled stream, or why there is none.
type handed struct {
	conn net.Conn
	err  error
}

// receive takes what the plugin sends until it has gone.
func (p *Process) receive() {
	for {
		m, fd, err := p.main.Receive()
		if err != nil {
			return
		}
		if m.Type == handoff.Dialled {
			p.dialled(m, fd)
			continue
		}
		if fd >= 0 {
			handoff.Drop(fd)
			p.counters.Foreign.Add(1)
			continue
		}
		p.mu.Lock()
		i := p.instances[m.Instance]
		p.mu.Unlock()
		if i == nil || m.Type != handoff.Bind && m.Type != handoff.CoverWanted {
			p.counters.Malformed.Add(1)
			continue
		}
		select {
		case i.binds <- struct{}{}: // one plugin process waits for itself
		case <-p.leave:
			return
		}
		p.group.Go(func() {
			defer func() { <-i.binds }()
			if m.Type == handoff.Bind {
				p.bind(i, m)
			} else {
				p.cover(i, m)
			}
		})
	}
}

func (p *Process) dialled(m handoff.Message, fd int) {
	p.mu.Lock()
	c := p.dials[m.Number]
	delete(p.dials, m.Number)
	p.mu.Unlock()
	if c == nil {
		handoff.Drop(fd) // its dial has been given up
		return
	}
	conn, err := p.stream(p.main, &m, fd)
	c <- handed{conn, err}
}

// stream makes a conn of what was handed over, and counts it.
func (p *Process) stream(from *handoff.Socket, m *handoff.Message, fd int) (net.Conn, error) {
	open := &p.pumped
	if m.Kind == handoff.KindSocket {
		open = &p.bare
	}
	s, err := from.Stream(fd, m, func() {
		if open.Add(-1) == 0 && open == &p.pumped {
			p.idle.tell()
		}
	})
	if err != nil {
		return nil, err
	}
	open.Add(1)
	return s, nil
}

// bind answers Env.Listen and Env.ListenPacket of a plugin.
func (p *Process) bind(i *instance, m handoff.Message) {
	ctx, cancel := context.WithTimeout(p.life, lending)
	defer cancel()
	var s any
	var err error
	switch m.Network {
	case "tcp", "tcp4", "tcp6", "unix":
		s, err = i.env.Listen(ctx, m.Network, m.Address)
	case "udp", "udp4", "udp6", "unixgram":
		s, err = i.env.ListenPacket(ctx, m.Network, m.Address)
	default:
		err = &sdk.Error{Kind: sdk.Invalid, Text: "network " + printable(m.Network, 32) + " cannot be lent"}
	}
	if err != nil {
		p.refuse(handoff.Bound, m.Number, err)
		return
	}
	defer s.(interface{ Close() error }).Close()
	err = withDescriptor(s, func(fd int) error {
		return p.main.Send(&handoff.Message{Type: handoff.Bound, Number: m.Number}, fd, time.Now().Add(lending))
	})
	if err != nil {
		p.refuse(handoff.Bound, m.Number, err)
	}
}

// withDescriptor calls f with the descriptor of a listener or packet conn. (File.Fd
// would make the socket blocking, for everybody who has it.)
func withDescriptor(s any, f func(fd int) error) error {
	c, ok := s.(syscall.Conn)
	if !ok {
		filer, ok := s.(interface{ File() (*os.File, error) })
		if !ok {
			return &sdk.Error{Kind: sdk.Unsupported, Text: "what the relay listens on here cannot be lent to another process"}
		}
		file, err := filer.File()
		if err != nil {
			return err
		}
		defer file.Close()
		c = file
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = f(int(fd)) })
	return errors.Join(err, failed)
}

func (p *Process) refuse(t handoff.Type, number uint64, err error) {
	m := handoff.Message{Type: t, Number: number, Error: printable(err.Error(), 1000), ErrorKind: sdk.KindOf(err)}
	_ = p.main.Send(&m, -1, time.Now().Add(lending))
}

// cover serves the cover site to a plugin on a new stream.
func (p *Process) cover(i *instance, m handoff.Message) {
	site := i.env.Cover()
	if site == nil {
		p.refuse(handoff.Cover, m.Number, &sdk.Error{Kind: sdk.Unavailable, Text: "no cover site is lent"})
		return
	}
	if i.covers.Add(1) > wire.CoverStreams {
		i.covers.Add(-1)
		p.refuse(handoff.Cover, m.Number, &sdk.Error{Kind: sdk.Unavailable, Text: "the cover site is lent too often; close a stream to it"})
		return
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		i.covers.Add(-1)
		p.refuse(handoff.Cover, m.Number, os.NewSyscallError("socketpair", err))
		return
	}
	conn, err := handoff.NewStream(fds[0], &handoff.Message{}, nil)
	if err == nil {
		err = p.main.Send(&handoff.Message{Type: handoff.Cover, Number: m.Number, Kind: handoff.KindPump}, fds[1], time.Now().Add(lending))
		if err != nil {
			conn.Close()
		}
	}
	unix.Close(fds[1])
	if err != nil {
		i.covers.Add(-1)
		return
	}
	p.group.Go(func() {
		defer i.covers.Add(-1)
		stop := context.AfterFunc(p.life, func() { conn.Close() })
		defer stop()
		wire.ServeCover(conn, site)
	})
}

// events takes reports of health. What a plugin sends in a rush is read at a bounded pace,
// and only the last report of each instance is passed on, so that the newest is never
// behind a queue of old ones.
func (p *Process) events(ctx context.Context) {
	stream, err := p.control.Events(ctx, &wirepb.EventsRequest{})
	if err != nil {
		return
	}
	const burst, every = 512, 100 * time.Millisecond
	var mu sync.Mutex
	last := map[uint64]*wirepb.Event{} // of the instances that are open
	some := make(chan struct{}, 1)
	ended := make(chan struct{})
	defer func() { <-ended }()
	defer close(some)
	go func() {
		defer close(ended)
		for range some {
			mu.Lock()
			now := last
			last = map[uint64]*wirepb.Event{}
			mu.Unlock()
			for _, e := range now {
				p.healthy(e)
			}
			pause(ctx, every)
		}
	}()
	for left, began := burst, time.Now(); ; left-- {
		e, err := stream.Recv()
		if err != nil {
			return
		}
		if left <= 0 {
			pause(ctx, every-time.Since(began))
			left, began = burst, time.Now()
		}
		if !p.open(e.GetInstance()) {
			continue
		}
		mu.Lock()
		last[e.GetInstance()] = e
		mu.Unlock()
		select {
		case some <- struct{}{}:
		default:
		}
	}
}

// pause waits, but not beyond ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// open says whether there is such an instance.
func (p *Process) open(id uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.instances[id] != nil
}

// healthy passes on a report of health, unless a later one has been.
func (p *Process) healthy(e *wirepb.Event) {
	if e == nil {
		return
	}
	p.mu.Lock()
	i := p.instances[e.Instance]
	p.mu.Unlock()
	if i == nil {
		return
	}
	i.health.Lock()
	defer i.health.Unlock()
	if e.Version <= i.version {
		return
	}
	i.version = e.Version
	if e.Degraded == "" {
		i.env.Degraded(nil)
		return
	}
	i.env.Degraded(errors.New(printable(e.Degraded, 1024)))
}
