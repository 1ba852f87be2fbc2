package host_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/host"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/transport"
)

const hostile = "github.com/commucat/commucat/sdk/host/internal/hostile"

// patience bounds what must happen.
const patience = 20 * time.Second

// record is a log that a test reads.
type record struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.String()
}

func (r *record) logger() *slog.Logger { return slog.New(slog.NewTextHandler(r, nil)) }

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// starts what cannot be started.
func TestStartRefuses(t *testing.T) {
	file := plugintest.Build(t, hostile)
	for _, tc := range []struct {
		mode, text string
		kind       sdk.ErrorKind
		limit      time.Duration
	}{
		{"silent", "did not answer in time", sdk.Other, time.Second},
		{"noise", "is it one?", sdk.Invalid, patience},
		{"dies", "ended before it could be used: it ended with status 2: panic: at once", sdk.Unavailable, patience},
		{"outside", "outside of its folder", sdk.Other, patience},
		{"elsewhere", "outside of its folder", sdk.Other, patience},
		{"generation", "another generation", sdk.Unsupported, patience},
		{"future", "it speaks protocol 1000, this program 1: this program is too old for the plugin", sdk.Unsupported, patience},
		{"liar", `"../hostile" is no name`, sdk.Invalid, patience},
		{"garbage", "no JSON", sdk.Invalid, patience},
		{"huge", "longer than is allowed", sdk.Invalid, patience},
	} {
		t.Run(tc.mode, func(t *testing.T) {
			var log record
			ctx, cancel := context.WithTimeout(t.Context(), tc.limit)
			defer cancel()
			p, err := host.Start(ctx, host.Options{File: file, Name: "hostile", Args: []string{tc.mode}, Log: log.logger(), Runtime: runtimeFolder(t)})
			if err == nil {
				p.Close()
				t.Fatal("it was started")
			}
			if sdk.KindOf(err) != tc.kind || !strings.Contains(err.Error(), tc.text) || !strings.HasPrefix(err.Error(), "plugin hostile: ") || strings.Contains(err.Error(), "\n") {
				t.Errorf("kind %v: %v", sdk.KindOf(err), err)
			}
		})
	}
	if _, err := host.Start(t.Context(), host.Options{}); !errors.Is(err, sdk.Invalid) {
		t.Error(err)
	}
	text, err := os.Open("hostile_test.go")
	if err != nil {
		t.Fatal(err)
	}
	defer text.Close()
	if _, err := host.Start(t.Context(), host.Options{File: text}); err == nil || !strings.Contains(err.Error(), "may not be executed") {
		t.Error(err)
	}
	if _, err := host.Describe(t.Context(), text); err == nil || !strings.Contains(err.Error(), "may not be executed") {
		t.Error(err)
	}
	if _, err := host.Describe(t.Context(), file); !errors.Is(err, sdk.Invalid) || !strings.Contains(err.Error(), "longer than is allowed") {
		t.Error(err)
	}
}

// runtimeFolder is a short folder that must be empty at the end.
func runtimeFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("left behind: %v", err)
		}
	})
	return dir
}

// opened starts the hostile plugin and opens it.
func opened(t *testing.T, mode string, env sdk.Env, log *record) (*host.Process, transport.Opened) {
	t.Helper()
	p := plugintest.Start(t, plugintest.Build(t, hostile), host.Options{Name: "hostile", Log: log.logger(), Runtime: runtimeFolder(t)})
	if env == nil {
		env = sdk.NewEnv(sdk.EnvOptions{Log: log.logger().With("plugin", "hostile")})
	}
	o, err := transport.Open(t.Context(), p.Plugins()[0], env, map[string]any{"mode": mode})
	if err != nil {
		t.Fatal(err)
	}
	return p, o
}

func TestProcessThatEnds(t *testing.T) {
	for _, tc := range []struct{ mode, reason string }{
		{"panic", "it ended with status 2: panic: boom \ufffd[31m"},
		{"exit", "it ended with status 3"},
		{"let go", "it was killed by signal 9"},
		{"orphan", "it ended by itself"},
	} {
		t.Run(tc.mode, func(t *testing.T) {
			var log record
			p, o := opened(t, tc.mode, nil, &log)
			if err := p.Err(); err != nil {
				t.Error(err)
			}
			_, err := o.Listen(t.Context())
			if sdk.KindOf(err) != sdk.Unavailable || !strings.Contains(err.Error(), tc.reason) {
				t.Errorf("listen: %v", err)
			}
			select {
			case <-p.Done():
			case <-time.After(patience):
				t.Fatal("its end was not noticed")
			}
			if err := p.Err(); sdk.KindOf(err) != sdk.Unavailable || !strings.Contains(err.Error(), tc.reason) || strings.Contains(err.Error(), "\n") {
				t.Errorf("why: %v", err)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			if tc.mode != "orphan" {
				return
			}
			_, pid, ok := strings.Cut(log.String(), "orphan=")
			n, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(pid, "\n", 2)[0]))
			if !ok || err != nil {
				t.Fatalf("%q", log.String())
			}
			until(t, "what it started ends", func() bool {
				b, err := os.ReadFile("/proc/" + strconv.Itoa(n) + "/stat")
				return err != nil || strings.Contains(string(b), ") Z ")
			})
		})
	}
}

// A plugin that does not answer holds nobody up for longer than its context.
func TestProcessThatHangs(t *testing.T) {
	var log record
	p, o := opened(t, "hang", nil, &log)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := o.Listen(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := o.Probe(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if _, err := o.Dial(ctx, transport.Endpoint{}, transport.Dial{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := p.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	began := time.Now()
	if err := p.Close(); err != nil || time.Since(began) > patience {
		t.Error(err, time.Since(began))
	}
}

// One that ignores the drain and everything else is killed.
func TestProcessThatIsDeaf(t *testing.T) {
	p := plugintest.Start(t, plugintest.Build(t, hostile), host.Options{Args: []string{"deaf"}, Runtime: runtimeFolder(t)})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := p.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := p.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := p.Close(); err != nil || !errors.Is(p.Err(), sdk.Closed) {
		t.Error(err, p.Err())
	}
}

func TestForeignDescriptors(t *testing.T) {
	for _, mode := range []string{"foreign", "truncated"} {
		t.Run(mode, func(t *testing.T) {
			var log record
			p, o := opened(t, mode, nil, &log)
			before := descriptors(t)
			ln, err := o.Listen(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			c := accept(t, ln)
			_ = c.SetReadDeadline(time.Now().Add(patience))
			if b := make([]byte, 4); mustRead(t, c, b) != "good" {
				t.Errorf("%q", b)
			}
			c.Close()
			switch s := p.Stats(); mode {
			case "foreign":
				until(t, "all are counted", func() bool { return p.Stats().Foreign == 20 })
			case "truncated":
				if s.Truncated != 6 || s.Malformed != 3 || s.Foreign != 4 {
					t.Errorf("%+v", s)
				}
			}
			if strings.Count(log.String(), "refused") > 15 {
				t.Error(log.String())
			}
			ln.Close()
			until(t, "descriptors are closed", func() bool { return descriptors(t) <= before })
		})
	}
}

// accept is the next stream; what never comes is an error, not a test that hangs.
func accept(t *testing.T, ln net.Listener) net.Conn {
	t.Helper()
	defer time.AfterFunc(patience, func() { ln.Close() }).Stop()
	c, err := ln.Accept()
	if err != nil {
		t.Fatal("accept: ", err)
	}
	return c
}

func mustRead(t *testing.T, r io.Reader, b []byte) string {
	t.Helper()
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func descriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func threads(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// The sender keeps duplicates and makes them blocking all the time: reads still wait
// without a thread, heed deadlines and end with Close.
func TestDuplicatesAreHarmless(t *testing.T) {
	var log record
	_, o := opened(t, "duplicates", nil, &log)
	ln, err := o.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const n = 200
	conns := make([]net.Conn, n)
	for i := range conns {
		conns[i] = accept(t, ln)
	}
	before := threads(t)
	ended := make(chan error, 2*n)
	for i, c := range conns {
		if i%2 == 0 {
			_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			go func() {
				_, err := c.Read(make([]byte, 1))
				ended <- err
			}()
			continue
		}
		go func() {
			var err error
			for p := make([]byte, 64<<10); err == nil; {
				_, err = c.Write(p)
			}
			ended <- err
		}()
	}
	time.Sleep(100 * time.Millisecond)
	if now := threads(t); now > before+50 {
		t.Errorf("%d threads, then %d", before, now)
	}
	for range n / 2 {
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	}
	for _, c := range conns {
		c.Close()
	}
	for range n / 2 {
		select {
		case err := <-ended:
			if !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatal("a write outlives Close")
		}
	}
}

// A socket that lingers at its close holds nobody up.
func TestLingerIsHarmless(t *testing.T) {
	var log record
	_, o := opened(t, "linger", nil, &log)
	ln, err := o.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		c := accept(t, ln)
		var err error
		_ = c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
		for err == nil {
			_, err = c.Write(make([]byte, 64<<10))
		}
		done := make(chan struct{})
		go func() {
			c.Close()
			close(done)
		}()
		select {
		case <-done:
		case <-time.After(patience):
			t.Fatal("Close waits for the peer")
		}
	}
}

func TestHostileLog(t *testing.T) {
	var log record
	p, o := opened(t, "log", nil, &log)
	ln, err := o.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	until(t, "lines are dropped", func() bool { return p.Stats().LogDropped > 39_000 })
	p.Close()
	text := log.String()
	if n := strings.Count(text, "\n"); n > 1000 {
		t.Errorf("%d lines", n)
	}
	for _, want := range []string{`msg="a record"`, "count=7", "plugin=hostile", "were dropped", `{\"@message\":1}`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	for _, c := range []string{"\x1b", "\x00", "\x07", "\u202e", "\r"} {
		if strings.Contains(text, c) {
			t.Errorf("%q came through", c)
		}
	}
	for line := range strings.SplitSeq(text, "\n") {
		if len(line) > 10<<10 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
}

func TestHostileHealth(t *testing.T) {
	var log record
	env := plugintest.NewLender(t)
	_, o := opened(t, "health", env, &log)
	if err := o.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "the last one arrives", func() bool {
		_, err := env.Health()
		return err != nil && err.Error() == "reason 9999 \ufffd[31m"
	})
	if n, _ := env.Health(); n > 1000 {
		t.Errorf("%d reports", n)
	}
	_, o = opened(t, "error", env, &log)
	if err := o.Probe(t.Context()); err == nil || len(err.Error()) > 5000 || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("%d bytes of error", len(err.Error()))
	}
}

// What is accepted without end waits in the kernel, and stops what hands it over.
func TestEndlessStreamsWait(t *testing.T) {
	var log record
	p, o := opened(t, "endless", nil, &log)
	before := descriptors(t)
	ln, err := o.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if now := descriptors(t); now > before+4 {
		t.Errorf("%d descriptors, then %d", before, now)
	}
	for range 2000 {
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	if s := p.Stats(); s.Pumped != 0 {
		t.Errorf("%+v", s)
	}
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
}

// A flood of requests for sockets neither stops the host nor leaks.
func TestEndlessBinds(t *testing.T) {
	var log record
	env := plugintest.NewLender(t)
	p, o := opened(t, "bind", env, &log)
	if _, err := o.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestCommand(t *testing.T) {
	var seen []string
	p := plugintest.Start(t, plugintest.Build(t, tlsPlugin), host.Options{Command: func(c *exec.Cmd) error {
		seen = c.Env
		c.Env = append(c.Env, "GOMEMLIMIT=100MiB")
		if c.Path != "/proc/self/fd/4" || len(c.ExtraFiles) != 2 {
			t.Errorf("%s with %d files", c.Path, len(c.ExtraFiles))
		}
		return nil
	}})
	b, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID()) + "/environ")
	if err != nil || !strings.Contains(string(b), "GOMEMLIMIT=100MiB") || strings.Contains(string(b), "HOME=") {
		t.Errorf("%q %v", b, err)
	}
	if len(seen) > 8 {
		t.Errorf("the environment holds %q", seen)
	}
	if target, err := os.Readlink("/proc/" + strconv.Itoa(p.PID()) + "/fd/0"); err != nil || target != os.DevNull {
		t.Errorf("the standard input is %s, %v", target, err)
	}
	wrong := errors.New("no sandbox here")
	_, err = host.Start(t.Context(), host.Options{File: plugintest.Build(t, tlsPlugin), Command: func(*exec.Cmd) error { return wrong }})
	if !errors.Is(err, wrong) && !strings.Contains(err.Error(), wrong.Error()) {
		t.Error(err)
	}
}
