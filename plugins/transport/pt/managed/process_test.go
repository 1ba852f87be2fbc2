package managed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The test binary is also the child: "child NAME".
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "child" {
		child(os.Args[2])
		return
	}
	goleak.VerifyTestMain(m)
}

func child(name string) {
	wait := func() { _, _ = io.Copy(io.Discard, os.Stdin) }
	switch name {
	case "good":
		fmt.Println("VERSION 1\nCMETHOD other socks5 127.0.0.1:1\nCMETHOD fake socks5 127.0.0.1:4321\nCMETHODS DONE")
		wait()
	case "server":
		fmt.Printf("VERSION 1\nSMETHOD fake %s ARGS:opts=%s\nSMETHODS DONE\n", strings.TrimPrefix(os.Getenv("TOR_PT_SERVER_BINDADDR"), "fake-"),
			strings.NewReplacer("=", `\=`, ",", `\,`).Replace(os.Getenv("TOR_PT_SERVER_TRANSPORT_OPTIONS")))
		wait()
	case "version":
		fmt.Println("VERSION-ERROR no-version")
	case "version 2":
		fmt.Println("VERSION 2")
		wait()
	case "env":
		fmt.Println("ENV-ERROR TOR_PT_STATE_LOCATION is bad")
	case "lacks":
		fmt.Println("VERSION 1\nCMETHODS DONE")
		wait()
	case "fails":
		fmt.Println("VERSION 1\nCMETHOD-ERROR fake the port is taken\nCMETHODS DONE")
		wait()
	case "dies":
		fmt.Fprintln(os.Stderr, "out of luck")
		os.Exit(3)
	case "silent":
		wait()
	case "chatter":
		fmt.Println("VERSION 1\nCMETHOD fake socks5 127.0.0.1:4321\nCMETHODS DONE")
		for range 20000 {
			fmt.Println(`LOG SEVERITY=notice MESSAGE="again and again"`)
		}
		fmt.Println("STATUS TRANSPORT=fake CONNECT=Success\n" + strings.Repeat("x", 1<<20))
		wait()
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("VERSION 1\nCMETHOD fake socks5 127.0.0.1:4321\nCMETHODS DONE")
		time.Sleep(time.Minute)
	case "proxied":
		fmt.Println("VERSION 1\nPROXY DONE\nCMETHOD fake socks5 127.0.0.1:4321\nCMETHODS DONE")
		wait()
	case "parent":
		// What it starts has its output, and another standard input.
		r, w, err := os.Pipe()
		if err != nil {
			os.Exit(3)
		}
		grandchild := exec.Command(os.Args[0], "child", "late")
		grandchild.Stdin, grandchild.Stdout = r, os.Stdout
		grandchild.ExtraFiles = []*os.File{w} // nobody closes it
		if grandchild.Start() != nil {
			os.Exit(3)
		}
		fmt.Printf("VERSION 1\nSMETHOD fake 127.0.0.1:4000 ARGS:pid=%d\nSMETHODS DONE\n", grandchild.Process.Pid)
		wait()
	case "late":
		time.Sleep(time.Minute)
	case "environment":
		fmt.Printf("VERSION 1\nCMETHOD-ERROR fake %s\nCMETHODS DONE\n", strings.Join(os.Environ(), "|"))
		wait()
	}
}

func start(t *testing.T, name string, change func(*Options)) (*Process, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Command: self, Args: []string{"child", name}, State: t.TempDir(), Method: "fake"}
	if change != nil {
		change(&o)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p, err := Start(ctx, o)
	if err == nil {
		t.Cleanup(p.Stop)
	}
	return p, err
}

func TestChild(t *testing.T) {
	p, err := start(t, "good", nil)
	if err != nil {
		t.Fatal(err)
	}
	if m := p.Method(); m.Addr.Port() != 4321 || m.Protocol != "socks5" || p.Err() != nil {
		t.Errorf("%+v, %v", m, p.Err())
	}
	p.Stop()
	if p.Err() == nil {
		t.Error("it ended without saying so")
	}
	p.Stop() // again
}

func TestServerChild(t *testing.T) {
	p, err := start(t, "server", func(o *Options) {
		o.Server = &Server{Bind: netip.MustParseAddrPort("127.0.0.1:4000"), Options: Args{{"k", "v"}}}
	})
	if err != nil {
		t.Fatal(err)
	}
	if m := p.Method(); m.Addr.Port() != 4000 || m.Args.Get("opts") != "fake:k=v" {
		t.Errorf("%+v", m)
	}
}

func TestChildrenThatFail(t *testing.T) {
	for name, tt := range map[string]struct {
		want  string
		fatal bool
	}{
		"version":   {"no version of the protocol", true},
		"version 2": {`version "2"`, true},
		"env":       {"TOR_PT_STATE_LOCATION is bad", true},
		"lacks":     {`no transport "fake"`, true},
		"fails":     {"the port is taken", false},
		"dies":      {"out of luck", false},
	} {
		p, err := start(t, name, nil)
		var fatal *Fatal
		if p != nil || err == nil || !strings.Contains(err.Error(), tt.want) || errors.As(err, &fatal) != tt.fatal {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := start(t, "", func(o *Options) { o.Command = "/nonexistent/program" })
	if fatal := new(Fatal); !errors.As(err, &fatal) {
		t.Errorf("no program: %v", err)
	}
}

func TestStartIsBounded(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if _, err := Start(ctx, Options{Command: self, Args: []string{"child", "silent"}, State: t.TempDir(), Method: "fake"}); !errors.Is(err, enough) {
		t.Error(err)
	}
}

// locked is a buffer for several goroutines.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// A child that talks without end is read, and the log stays short.
func TestChatter(t *testing.T) {
	out := new(locked)
	p, err := start(t, "chatter", func(o *Options) { o.Log = slog.New(slog.NewTextHandler(out, nil)) })
	if err != nil {
		t.Fatal(err)
	}
	p.Stop()
	if n := strings.Count(out.b.String(), "\n"); n == 0 || n > linesPerMinute+1 {
		t.Errorf("%d lines of log", n)
	}
}

// Who ignores the end of its input and SIGTERM is killed.
func TestStubborn(t *testing.T) {
	if testing.Short() {
		t.Skip("takes as long as the steps of Stop")
	}
	p, err := start(t, "stubborn", nil)
	if err != nil {
		t.Fatal(err)
	}
	p.Stop()
	if err := p.Err(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Error(err)
	}
}

// A child that says nothing of the proxy would go out past it.
func TestProxyIsUsedOrRefused(t *testing.T) {
	byProxy := func(o *Options) { o.Proxy = "socks5://127.0.0.1:9" }
	if _, err := start(t, "proxied", byProxy); err != nil {
		t.Error(err)
	}
	p, err := start(t, "good", byProxy)
	if fatal := new(Fatal); p != nil || !errors.As(err, &fatal) || !strings.Contains(err.Error(), "proxy") {
		t.Errorf("a child that does not know the proxy: %v", err)
	}
}

// Stop returns although something that the child has started holds its output.
func TestStopWithAGrandchild(t *testing.T) {
	p, err := start(t, "parent", func(o *Options) { o.Server = &Server{Bind: netip.MustParseAddrPort("127.0.0.1:4000")} })
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(p.Method().Args.Get("pid"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	p.Stop()
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("the grandchild has ended before: nothing was tried (%v)", err)
	}
}

// Nothing of our environment but PATH reaches a child.
func TestEnvironmentOfChild(t *testing.T) {
	t.Setenv("COMMUCAT_SECRET", "never")
	_, err := start(t, "environment", nil)
	if err == nil || strings.Contains(err.Error(), "never") || !strings.Contains(err.Error(), "TOR_PT_EXIT_ON_STDIN_CLOSE=1") {
		t.Error(err)
	}
}
