package onion

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cretz/bine/control"

	"github.com/commucat/commucat/plugins/transport/internal/agent"
	"github.com/commucat/commucat/sdk"
)

// How long tor may take to end after each step, to open its control socket, and to answer
// there. It does nothing else while it reads its files: on a busy machine that takes
// many seconds.
const (
	stopStep   = 3 * time.Second
	socketTime = time.Minute
	replyTime  = time.Minute
)

// daemon is one running tor process of ours. It ends with this process, whatever
// happens: the kernel sees to it, and it watches the process itself
// (__OwningControllerProcess) and the control connection (TAKEOWNERSHIP).
type daemon struct {
	cmd    *exec.Cmd
	folder string // runtime: sockets and configuration, thrown away
	log    *slog.Logger

	conn   *textproto.Conn
	ctl    *control.Conn // for requests, one at a time
	asking sync.Mutex
	events *textproto.Conn

	foreign bool          // the operator's: it is joined, not started
	changed chan struct{} // guests of whom it has to be told

	done chan struct{}
	err  error
	last string // of what tor said, to explain an end; guarded by mu
	mu   sync.Mutex
	once sync.Once
}

// Names in the runtime folder.
const (
	controlSocket = "control"
	socksSocket   = "socks"
	targetSocket  = "target"
)

// makeRuntime makes a runtime folder; its path is short, since those of unix sockets
// are bounded.
func makeRuntime() (string, error) {
	dir, err := os.MkdirTemp("", "onion-")
	if err == nil && len(filepath.Join(dir, controlSocket)) > 100 {
		return "", errors.Join(fmt.Errorf("the path of temporary files, %s, is too long for a socket", dir), os.Remove(dir))
	}
	return dir, err
}

// startTor starts tor with a configuration of these lines, and returns when it can be
// controlled. folder is the runtime folder, data is tor's own.
func startTor(ctx context.Context, p program, folder, data string, lines []string, log *slog.Logger) (_ *daemon, err error) {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	socket := filepath.Join(folder, controlSocket)
	_ = os.Remove(socket) // of a tor before
	all := append([]string{
		"DataDirectory " + quoted(data), "ControlSocket " + quoted(socket), "CookieAuthentication 1",
		"__OwningControllerProcess " + strconv.Itoa(os.Getpid()), "Log notice stdout", "ClientOnly 1", "AvoidDiskWrites 1",
	}, lines...)
	if text := strings.ToLower(strings.Join(lines, "\n")); !strings.Contains(text, "geoip") && !strings.Contains(text, "{") {
		// Nothing here asks for countries, and reading the tables takes a second of each start.
		all = append(all, "GeoIPFile "+os.DevNull, "GeoIPv6File "+os.DevNull)
	}
	torrc, empty := filepath.Join(folder, "torrc"), filepath.Join(folder, "defaults")
	if err := os.WriteFile(torrc, []byte(strings.Join(all, "\n")+"\n"), 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		return nil, err
	}
	d := &daemon{folder: folder, log: log, done: make(chan struct{}), changed: make(chan struct{}, 1)}
	d.cmd = exec.Command(p.path, "-f", torrc, "--defaults-torrc", empty)
	d.cmd.Env, d.cmd.Dir = []string{"HOME=" + data, "TMPDIR=" + folder}, folder
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	d.cmd.Stdout, d.cmd.Stderr = in, in
	err = agent.Start(d.cmd, func() { d.read(out) })
	in.Close()
	if err != nil {
		out.Close()
		return nil, fmt.Errorf("%s cannot be started: %w", p.path, err)
	}
	defer context.AfterFunc(ctx, d.kill)() // also where tor does not answer
	if err := d.connect(ctx, socket); err != nil {
		d.stop()
		if said := d.said(); said != "" {
			err = fmt.Errorf("%w (tor said: %s)", err, said)
		}
		return nil, err
	}
	return d, nil
}

// quoted writes a value of tor's configuration.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// read follows what tor says. Warnings go to the log; tor itself limits how many.
func (d *daemon) read(out io.ReadCloser) {
	defer close(d.done)
	r := bufio.NewReaderSize(out, 8<<10)
	for {
		b, err := r.ReadSlice('\n')
		if line := strings.TrimSpace(string(b)); line != "" {
			warn := strings.Contains(line, "[warn]") || strings.Contains(line, "[err]")
			if warn {
				d.mu.Lock()
				d.last = line
				d.mu.Unlock()
			}
			d.log.Debug("tor says", slog.String("line", line))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			break
		}
	}
	out.Close()
	err := d.cmd.Wait()
	if err == nil {
		err = errors.New("it ended")
	}
	d.err = fmt.Errorf("tor: %w", err)
}

// said is the last warning.
func (d *daemon) said() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}

// connect opens the control connections once tor listens for them.
func (d *daemon) connect(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, socketTime)
	defer cancel()
	var err error
	if d.conn, d.ctl, err = d.control(ctx, socket); err != nil {
		return err
	}
	t := time.AfterFunc(replyTime, d.kill)
	err = d.ctl.TakeOwnership()
	t.Stop()
	if err != nil {
		return fmt.Errorf("tor does not let itself be owned: %w", err)
	}
	d.events, _, err = d.control(ctx, socket)
	return err
}

func (d *daemon) control(ctx context.Context, socket string) (*textproto.Conn, *control.Conn, error) {
	for {
		raw, err := net.Dial("unix", socket)
		if err == nil {
			_ = raw.SetDeadline(time.Now().Add(replyTime))
			c := textproto.NewConn(raw)
			ctl := control.NewConn(c)
			if err := ctl.Authenticate(""); err != nil {
				c.Close()
				return nil, nil, fmt.Errorf("tor's control socket: %w", err)
			}
			return c, ctl, raw.SetDeadline(time.Time{})
		}
		select {
		case <-d.done:
			return nil, nil, d.err
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("tor did not open its control socket: %w", context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ask sends a request; its words must hold no line ends. Any 25x is success.
func (d *daemon) ask(words string) (string, error) {
	if strings.ContainsAny(words, "\r\n") {
		return "", &sdk.Error{Kind: sdk.Invalid, Op: "tor", Text: "a request with a line end"}
	}
	d.asking.Lock()
	defer d.asking.Unlock()
	// A tor that does not answer is ended, which ends the wait.
	t := time.AfterFunc(replyTime, d.kill)
	defer t.Stop()
	r, err := d.ctl.SendRequest("%s", words)
	if r != nil && r.Err != nil && r.Err.Code >= 250 && r.Err.Code <= 259 {
		err = nil
	}
	if err != nil {
		return "", &sdk.Error{Kind: sdk.Unavailable, Op: "tor", Err: err}
	}
	return strings.Join(r.DataWithReply(), "\n"), nil
}

// follow gives tor's events to f, one at a time, until tor has ended.
func (d *daemon) follow(f func(control.Event), codes ...control.EventCode) error {
	c := control.NewConn(d.events)
	ch := make(chan control.Event, 64)
	over := make(chan struct{})
	ready := make(chan error, 1)
	go func() {
		defer close(over)
		t := time.AfterFunc(replyTime, d.kill)
		err := c.AddEventListener(ch, codes...)
		t.Stop()
		ready <- err
		for err == nil {
			err = c.HandleNextEvent()
		}
		if d.foreign {
			d.err = fmt.Errorf("the control connection has ended: %w", err)
			close(d.done)
		}
	}()
	go func() {
		for {
			select {
			case e := <-ch:
				f(e)
			case <-over:
				return
			}
		}
	}()
	return <-ready
}

func (d *daemon) kill() {
	if d.foreign {
		d.hangUp()
		return
	}
	_ = d.cmd.Process.Kill() // it may have ended already
}

// hangUp closes the control connections. A tor of ours ends with them.
func (d *daemon) hangUp() {
	for _, c := range []*textproto.Conn{d.conn, d.events} {
		if c != nil {
			c.Close()
		}
	}
}

// stop ends tor and returns when it has ended.
func (d *daemon) stop() {
	d.once.Do(func() {
		d.hangUp()
		if d.foreign {
			return
		}
		for _, sig := range []os.Signal{syscall.SIGINT, os.Kill} {
			_ = d.cmd.Process.Signal(sig) // it may have ended already
			t := time.NewTimer(stopStep)
			select {
			case <-d.done:
				t.Stop()
				return
			case <-t.C:
			}
		}
	})
	if !d.foreign {
		<-d.done
	}
}
