package managed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/commucat/commucat/plugins/transport/internal/agent"
)

// How long a child may take to end after each step of Stop: end of its input,
// SIGTERM, SIGKILL.
const stopStep = 2 * time.Second

// Options say which child is started, and as what.
type Options struct {
	// Command is the program's path, Args what follows its name.
	Command string
	Args    []string
	// State is the child's own folder (TOR_PT_STATE_LOCATION); it exists.
	State string
	// Method is the transport that is wanted.
	Method string
	// Server is nil for the client side.
	Server *Server
	// Proxy is the URL that the client side goes out by, "" none.
	Proxy string
	// Log gets what the child says of itself; nil discards.
	Log *slog.Logger
}

// Server is what the server side of a child is told.
type Server struct {
	// Bind is where it shall listen.
	Bind netip.AddrPort
	// ORPort gets its clients plainly, Extended by the Extended ORPort with the cookie
	// in the file Cookie. Extended may be the zero value.
	ORPort, Extended netip.AddrPort
	Cookie           string
	// Options are the method's own.
	Options Args
}

// Fatal is an error of a child that another start will not mend.
type Fatal struct{ Text string }

// Error is what the child said.
func (f *Fatal) Error() string { return f.Text }

// Process is a child whose method is ready.
type Process struct {
	method Line
	cmd    *exec.Cmd
	stdin  io.Closer
	out    *os.File // its standard output
	done   chan struct{}
	log    *chatter

	mu   sync.Mutex
	err  error
	once sync.Once
}

// Start starts a child and returns when its method is ready. The child ends with this
// process, also when that is killed. ctx bounds the start alone. The error is a *Fatal where the program, its version or its environment is
// at fault.
func Start(ctx context.Context, o Options) (*Process, error) {
	p := &Process{done: make(chan struct{}), log: newChatter(o.Log, time.Now)}
	p.cmd = exec.Command(o.Command, o.Args...)
	p.cmd.Env, p.cmd.Dir = environment(o), o.State
	p.cmd.Stderr = p.log // copied by a goroutine that Wait waits for
	p.cmd.WaitDelay = stopStep
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, in, err := os.Pipe()
	if err != nil {
		p.stdin.Close()
		return nil, err
	}
	p.cmd.Stdout, p.out = in, out
	ready := make(chan error, 1)
	err = agent.Start(p.cmd, func() { p.read(out, o, ready) })
	in.Close()
	if err != nil {
		out.Close()
		p.stdin.Close()
		return nil, &Fatal{fmt.Sprintf("%s cannot be started: %v", o.Command, plain(err))}
	}
	select {
	case err = <-ready:
	case <-ctx.Done():
		err = fmt.Errorf("%s was not ready in time: %w", o.Command, context.Cause(ctx))
	}
	if err != nil {
		p.Stop()
		return nil, err
	}
	return p, nil
}

// plain drops path and system call, which the message names.
func plain(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// environment is all that a child gets of ours.
func environment(o Options) []string {
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + o.State, "TMPDIR=" + o.State,
		"TOR_PT_MANAGED_TRANSPORT_VER=1", "TOR_PT_STATE_LOCATION=" + o.State, "TOR_PT_EXIT_ON_STDIN_CLOSE=1",
	}
	s := o.Server
	if s == nil {
		env = append(env, "TOR_PT_CLIENT_TRANSPORTS="+o.Method)
		if o.Proxy != "" {
			env = append(env, "TOR_PT_PROXY="+o.Proxy)
		}
		return env
	}
	env = append(env, "TOR_PT_SERVER_TRANSPORTS="+o.Method, fmt.Sprintf("TOR_PT_SERVER_BINDADDR=%s-%s", o.Method, s.Bind),
		"TOR_PT_ORPORT="+s.ORPort.String())
	if s.Extended.IsValid() {
		env = append(env, "TOR_PT_EXTENDED_SERVER_PORT="+s.Extended.String(), "TOR_PT_AUTH_COOKIE_FILE="+s.Cookie)
	}
	if text := s.Options.options(o.Method); text != "" {
		env = append(env, "TOR_PT_SERVER_TRANSPORT_OPTIONS="+text)
	}
	return env
}

// read follows the child for its whole life: a full pipe would hold it up.
func (p *Process) read(out *os.File, o Options, ready chan<- error) {
	defer close(p.done)
	lines, h := NewLines(out), handshake{o: o}
	for {
		text, err := lines.Next()
		if err != nil {
			break
		}
		l, err := ParseLine(text)
		if err != nil {
			p.log.say(slog.LevelWarn, "child said something malformed", slog.String("error", err.Error()))
			continue
		}
		switch l.Word {
		case Log:
			p.log.line(l)
			continue
		case Status:
			p.log.status(l)
			continue
		}
		if over, err := h.take(l); over {
			p.method = h.method
			select {
			case ready <- err:
			default:
			}
		}
	}
	out.Close()
	p.stdin.Close()
	err := p.cmd.Wait()
	if err == nil {
		err = errors.New("it ended")
	}
	err = fmt.Errorf("%s: %w", o.Command, err)
	if last := p.log.last(); last != "" {
		err = fmt.Errorf("%w (it said: %s)", err, last)
	}
	p.mu.Lock()
	p.err = err
	p.mu.Unlock()
	select {
	case ready <- err:
	default:
	}
}

// handshake follows the lines up to DONE.
type handshake struct {
	o      Options
	method Line
	failed error
	proxy  bool // it goes out by the proxy that it was told
	over   bool
}

// take reads one line; over says that the method is ready or that it never will be.
func (h *handshake) take(l Line) (over bool, err error) {
	if h.over {
		return false, nil
	}
	done := func(err error) (bool, error) {
		h.over = true
		return true, err
	}
	client := h.o.Server == nil
	switch l.Word {
	case VersionError:
		return done(&Fatal{"the program speaks no version of the protocol that is known here: " + l.Text})
	case EnvError:
		return done(&Fatal{"the program does not accept its environment: " + l.Text})
	case ProxyError:
		text := l.Text
		if h.o.Proxy != "" { // with a password, maybe
			text = strings.ReplaceAll(text, h.o.Proxy, "[redacted]")
		}
		return done(&Fatal{"the program cannot use the proxy: " + text})
	case Version:
		if l.Text != "1" {
			return done(&Fatal{fmt.Sprintf("the program speaks version %.20q of the protocol, wanted is 1", l.Text)})
		}
	case ProxyDone:
		h.proxy = true
	case CMethod, SMethod:
		if l.Method == h.o.Method && client == (l.Word == CMethod) {
			h.method = l
		}
	case CMethodError, SMethodError:
		if l.Method == h.o.Method {
			h.failed = fmt.Errorf("%s: %s", l.Method, l.Text)
		}
	case CMethodsDone, SMethodsDone:
		switch {
		case client != (l.Word == CMethodsDone):
			return false, nil
		case client && h.o.Proxy != "" && !h.proxy:
			// It would go out past the proxy (pt-spec, section 3.3.2).
			return done(&Fatal{"the program does not use the proxy: it cannot, or is too old"})
		case h.failed != nil:
			return done(h.failed)
		case h.method.Word == "":
			return done(&Fatal{fmt.Sprintf("the program has no transport %q", h.o.Method)})
		}
		return done(nil)
	}
	return false, nil
}

// Method is the CMETHOD or SMETHOD line of the transport.
func (p *Process) Method() Line {
	m := p.method
	m.Args = slices.Clone(m.Args)
	return m
}

// PID is the child's process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the child has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how it ended; nil while it runs.
func (p *Process) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Stop ends the child: its input is closed, then it is asked by a signal, then killed.
// It returns when the child has ended.
func (p *Process) Stop() {
	p.once.Do(func() {
		p.stdin.Close()
		for _, sig := range []os.Signal{syscall.SIGTERM, os.Kill} {
			t := time.NewTimer(stopStep)
			select {
			case <-p.done:
				t.Stop()
				return
			case <-t.C:
				_ = p.cmd.Process.Signal(sig) // it may have ended just now
			}
		}
		// What it has started may hold its output open for as long as it likes.
		t := time.NewTimer(stopStep)
		defer t.Stop()
		select {
		case <-p.done:
		case <-t.C:
			p.out.Close()
		}
	})
	<-p.done
}

// chatter carries what a child says to the log, a bounded number of lines a minute.
type chatter struct {
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	since   time.Time
	said    int
	dropped int
	tail    string // of the last line on the standard error
}

const linesPerMinute = 20

func newChatter(log *slog.Logger, now func() time.Time) *chatter {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &chatter{log: log, now: now}
}

func (c *chatter) say(level slog.Level, text string, attrs ...slog.Attr) {
	c.mu.Lock()
	now := c.now()
	if now.Sub(c.since) >= time.Minute {
		if c.dropped > 0 {
			attrs = append(attrs, slog.Int("lines_dropped", c.dropped))
		}
		c.since, c.said, c.dropped = now, 0, 0
	}
	c.said++
	over := c.said > linesPerMinute
	if over {
		c.dropped++
	}
	c.mu.Unlock()
	if !over {
		c.log.LogAttrs(context.Background(), level, "pluggable transport", append([]slog.Attr{slog.String("event", text)}, attrs...)...)
	}
}

// line is a LOG line (pt-spec, section 3.3.4).
func (c *chatter) line(l Line) {
	level := slog.LevelDebug
	switch strings.ToLower(l.Args.Get("SEVERITY")) {
	case "error", "warning":
		level = slog.LevelWarn
	case "notice":
		level = slog.LevelInfo
	}
	c.say(level, "child says", slog.String("message", shorten(l.Args.Get("MESSAGE"))))
}

// status is a STATUS line (pt-spec, section 3.3.5).
func (c *chatter) status(l Line) {
	attrs := make([]any, 0, len(l.Args))
	for _, f := range l.Args {
		attrs = append(attrs, slog.String(strings.ToLower(shorten(f.Key)), shorten(f.Value)))
	}
	c.say(slog.LevelInfo, "child reports", slog.Group("status", attrs...))
}

// Write implements io.Writer for the standard error, which is shown at level debug.
func (c *chatter) Write(b []byte) (int, error) {
	text := strings.TrimSpace(string(b))
	if i := strings.LastIndexByte(text, '\n'); i >= 0 {
		text = text[i+1:]
	}
	if text = shorten(text); text != "" {
		c.mu.Lock()
		c.tail = text
		c.mu.Unlock()
		c.say(slog.LevelDebug, "child says on its standard error", slog.String("message", text))
	}
	return len(b), nil
}

func (c *chatter) last() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tail
}
