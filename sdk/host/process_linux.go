package host

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/internal/wire/handoff"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
)

const (
	// grace is how long a process may take to end when it should.
	grace = 4 * time.Second
	// lag is how long one that has let go of its hand-off socket may still live, and
	// how long what it wrote is still read once it has ended.
	lag = 500 * time.Millisecond
	// tidying bounds what comes after the end: a process that the kernel does not let
	// die, or a callback that does not return, holds nobody up for longer.
	tidying = 10 * time.Second
)

// Process is a started plugin binary. All methods may be called concurrently.
type Process struct {
	o           Options
	dir         *folder
	log         *slog.Logger
	main        *handoff.Socket
	counters    handoff.Counters
	pumps       *handoff.Pumps // of carriers
	runner      *runner
	logs        *logs // of its standard error
	stray       *logs // of what it writes to os.Stderr, which comes by a call
	client      *goplugin.Client
	conn        *grpc.ClientConn
	control     wirepb.ControlClient
	plugins     []sdk.Plugin
	description Description
	protocols   []uint32 // chosen, in the description's order
	checks      bool     // it can be asked for a check alone

	group   sync.WaitGroup
	life    context.Context // until Close
	cancel  context.CancelFunc
	ended   chan struct{} // closed when the process has ended
	done    chan struct{} // closed when everything after that is over
	err     error         // why, set before ended is closed
	closing atomic.Bool
	leave   chan struct{} // closed with closing
	once    sync.Once

	pumped, bare atomic.Int64 // open streams by kind
	idle         idleSignal
	listening    atomic.Int64 // listeners that may still be handed streams
	quiet        idleSignal

	mu        sync.Mutex
	last      uint64 // number of instances, listeners and dials
	instances map[uint64]*instance
	dials     map[uint64]chan handed
}

// instance is what this side knows of an opened plugin.
type instance struct {
	plugin string
	env    sdk.Env
	log    *slog.Logger
	binds  chan struct{} // slots for Env calls of the plugin
	covers atomic.Int32  // streams to the cover site that are lent

	health  sync.Mutex
	version uint64 // of the last report
}

// Plugins are the plugins of the binary, in the order that it names them:
// transport.Opener, storage.Opener and ledger.Opener values. They stay what they are
// when the process has ended; opening then answers sdk.Unavailable.
func (p *Process) Plugins() []sdk.Plugin { return append([]sdk.Plugin(nil), p.plugins...) }

// Description is what the binary says of itself.
func (p *Process) Description() Description { return p.description }

// PID is the process's number.
func (p *Process) PID() int { return p.runner.pid }

// Done is closed when the process has ended, whoever ended it.
func (p *Process) Done() <-chan struct{} { return p.ended }

// Err is nil while the process lives and afterwards says in one line why it ended.
func (p *Process) Err() error {
	select {
	case <-p.ended:
		return p.err
	default:
		return nil
	}
}

// Ping asks the process whether it still answers.
func (p *Process) Ping(ctx context.Context) error {
	_, err := p.control.Ping(ctx, &wirepb.PingRequest{})
	return p.callError(ctx, err)
}

// callError explains the error of a call.
func (p *Process) callError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() == nil {
		// The connection breaks a moment before the end is known.
		select {
		case <-p.ended:
		case <-time.After(lag):
		case <-ctx.Done():
		}
	}
	return wire.CallError(ctx, err, p.Err())
}

// Drain closes the plugin's listeners and returns when the streams that need the
// process have ended, or with ctx's error. No new stream begins. Bare sockets that were
// handed over need the process no more.
func (p *Process) Drain(ctx context.Context) error {
	_, err := p.control.Drain(ctx, &wirepb.DrainRequest{})
	if err = p.callError(ctx, err); err != nil && p.Err() == nil {
		return err
	}
	// What was handed over last may not have been accepted yet: after it comes the end
	// of the listener's socket, from a plugin that keeps to the protocol.
	late := time.NewTimer(lag)
	defer late.Stop()
	select {
	case <-p.quiet.wait(&p.listening):
	case <-p.ended:
	case <-late.C:
	case <-ctx.Done():
	}
	select {
	case <-p.idle.wait(&p.pumped):
		return nil
	case <-p.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends the process, with what is open in it, and removes the private folder. A
// plugin gets a few seconds to close its stores; then it is killed. The error says
// that something of it is still there after a few seconds more.
func (p *Process) Close() error {
	p.once.Do(func() {
		p.closing.Store(true)
		close(p.leave)
		p.main.Close()
		go func() {
			defer close(p.done)
			<-p.ended
			p.cancel()
			p.runner.finish()
			p.client.Kill()
			p.pumps.Close()
			_ = p.pumps.Wait(context.Background())
			p.group.Wait()
			p.dir.remove()
		}()
	})
	return p.settled(p.done, grace+tidying)
}

// settled waits for the end of what is being tidied up, within bounds.
func (p *Process) settled(done <-chan struct{}, limit time.Duration) error {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-done:
		return nil
	case <-t.C:
	}
	err := &sdk.Error{Kind: sdk.Unavailable, Op: "plugin " + p.o.Name, Text: "it does not end although it was killed: look at the process and at what it holds"}
	p.log.Error("plugin process is left behind", "error", err)
	return err
}

// watch waits for the end: of the hand-off socket or of the process itself.
func (p *Process) watch(received <-chan struct{}) {
	select {
	case <-received:
		p.expire()
	case <-p.leave: // receive may be held up by who answers the plugin
		p.expire()
	case <-p.runner.exited:
	}
	<-p.runner.exited
	p.main.Close()
	switch {
	case p.closing.Load():
		p.err = &sdk.Error{Kind: sdk.Closed, Op: "plugin " + p.o.Name, Text: "it was closed"}
	default:
		p.err = &sdk.Error{Kind: sdk.Unavailable, Op: "plugin " + p.o.Name, Err: errors.New(p.reason())}
		p.log.Error("plugin process ended", "pid", p.runner.pid, "reason", p.err)
	}
	close(p.ended)
	_ = p.conn.Close() // calls that wait end now
}

// expire gives the process a moment to end by itself.
func (p *Process) expire() {
	limit := lag
	if p.closing.Load() {
		limit = grace
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-p.runner.exited:
	case <-t.C:
		_ = p.runner.Kill(context.Background())
	}
}

// reason says in one line how the process ended.
func (p *Process) reason() string {
	text := p.runner.reason()
	if p.logs != nil {
		// Its last words may still be in the pipe.
		for range 20 {
			if line := p.logs.panicked(); line != "" {
				return text + ": " + line
			}
			if p.runner.clean() {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return text
}

// Stats counts.
func (p *Process) Stats() Stats {
	s := Stats{
		Pumped: int(p.pumped.Load()), Sockets: int(p.bare.Load()),
		Foreign: p.counters.Foreign.Load(), Truncated: p.counters.Truncated.Load(), Malformed: p.counters.Malformed.Load(),
	}
	if p.logs != nil {
		s.LogDropped = p.logs.drops() + p.stray.drops()
	}
	return s
}

// idleSignal tells when a counter has fallen to zero.
type idleSignal struct {
	mu sync.Mutex
	c  chan struct{}
}

func (s *idleSignal) wait(n *atomic.Int64) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c == nil {
		s.c = make(chan struct{})
	}
	c := s.c
	if n.Load() == 0 {
		close(s.c)
		s.c = nil
	}
	return c
}

func (s *idleSignal) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c != nil {
		close(s.c)
		s.c = nil
	}
}
