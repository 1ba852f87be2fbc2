package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// patience bounds what needs another process.
const patience = time.Minute

// The test binary is also a parent that is killed, and its program, which does not notice.
func TestMain(m *testing.M) {
	switch os.Getenv("AGENT_TEST") {
	case "program":
		time.Sleep(2 * patience)
	case "parent":
		cmd := exec.Command(os.Args[0])
		cmd.Env = []string{"AGENT_TEST=program"}
		if err := Start(cmd, func() { _ = cmd.Wait() }); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(cmd.Process.Pid)
		_, _ = io.Copy(io.Discard, os.Stdin)
	default:
		goleak.VerifyTestMain(m)
	}
}

// A program ends with a parent that is killed.
func TestProgramEndsWithItsParent(t *testing.T) {
	parent := exec.Command(os.Args[0])
	parent.Env = []string{"AGENT_TEST=parent"}
	stdin, err := parent.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err == nil && !lives(pid) {
		err = errors.New("its program does not run")
	}
	_ = parent.Process.Kill()
	_ = parent.Wait()
	if err != nil {
		t.Fatalf("the parent said %q: %v", line, err)
	}
	for until := time.Now().Add(patience); lives(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatal("the program lives on")
		}
	}
}

// lives says that a process runs; one that has ended may stay until somebody waits for it.
func lives(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

func TestStartOfNothing(t *testing.T) {
	if err := Start(exec.Command("/nonexistent/program"), func() { t.Error("it lives") }); err == nil {
		t.Error("it was started")
	}
}

func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		lives := []time.Duration{0, 0, 0, 0, 0, time.Minute, 2 * time.Minute, 0}
		want := []time.Duration{1, 2, 4, 5, 5, 5, 1, 2}
		var starts []time.Duration
		var ends []time.Time
		n, failed := 0, errors.New("it ended")
		go Keep(ctx, Pauses{Least: time.Second, Most: 5 * time.Second, Well: time.Minute}, func() error {
			if n > 0 {
				starts = append(starts, time.Since(ends[n-1])/time.Second)
			}
			if n == len(lives) {
				cancel()
				return nil
			}
			time.Sleep(lives[n])
			n++
			return failed
		}, func(err error) {
			if err != failed {
				t.Error(err)
			}
			ends = append(ends, time.Now())
		})
		<-ctx.Done()
		synctest.Wait()
		if fmt.Sprint(starts) != fmt.Sprint(want) {
			t.Errorf("pauses of %v, want %v", starts, want)
		}
	})
}

func TestArrivals(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := Receive(ln, patience, slog.New(slog.DiscardHandler), func(c net.Conn) (transport.Facts, error) {
		b := make([]byte, 1)
		if _, err := io.ReadFull(c, b); err != nil || b[0] == '!' {
			return transport.Facts{}, errors.New("refused")
		}
		return transport.Facts{Circuit: string(b)}, nil
	})
	dial := func(words string) net.Conn {
		c, err := net.Dial("tcp", a.Local().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := io.WriteString(c, words); err != nil {
			t.Fatal(err)
		}
		return c
	}
	silent, refused := dial(""), dial("!")
	if _, err := refused.Read(make([]byte, 1)); err == nil {
		t.Error("who was refused is open")
	}
	dial("7rest") // the silent one holds nobody up
	got, err := a.Accept()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(got, b); err != nil || string(b) != "rest" {
		t.Errorf("%q, %v", b, err)
	}
	if f := transport.FactsOf(got); f.Circuit != "7" {
		t.Errorf("%+v", f)
	}
	if _, ok := got.(transport.Attached).Attached().(*net.TCPConn); !ok {
		t.Errorf("a %T cannot be handed over", got)
	}
	if err := transport.CloseWrite(got); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("half-close: %v", err)
	}
	waiting := dial("8") // nobody accepts it
	a.Close()
	for name, c := range map[string]net.Conn{"silent": silent, "waiting": waiting} {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("the %s one is open", name)
		}
	}
	if _, err := a.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	_ = got.Close()
}

type half struct {
	net.Listener
	health error
	ended  bool
}

func (h *half) Health() error { return h.health }
func (h *half) Close()        { h.ended = true }
func (h *half) Dial(context.Context, transport.Endpoint, transport.Dial) (net.Conn, error) {
	return nil, sdk.Denied
}

type listener struct{ *half }

func (l listener) Close() error { return nil }

func TestPlugin(t *testing.T) {
	type config struct{}
	server, client := &half{}, &half{}
	p := Define(transport.Descriptor{Name: "x"}, Halves[config]{
		Listen: func(context.Context, sdk.Env, config) (Listener, error) { return listener{server}, nil },
		Client: func(sdk.Env, config) Client { return client },
	})
	o, err := transport.Open(t.Context(), p, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Probe(t.Context()); !errors.Is(err, sdk.Unavailable) {
		t.Errorf("without a listener: %v", err)
	}
	if _, err := o.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := o.Probe(t.Context()); err != nil {
		t.Error(err)
	}
	server.health = sdk.Full
	if err := o.Probe(t.Context()); !errors.Is(err, sdk.Full) || !strings.HasPrefix(err.Error(), "transport x: ") {
		t.Error(err)
	}
	if _, err := o.Dial(t.Context(), transport.Endpoint{}, transport.Dial{}); !errors.Is(err, sdk.Denied) || !strings.HasPrefix(err.Error(), "transport x: ") {
		t.Error(err)
	}
	if _, _, err := o.(transport.KeyMaker).NewKey(); !errors.Is(err, sdk.Unsupported) {
		t.Error(err)
	}
	if err := o.Close(); err != nil || !client.ended {
		t.Errorf("the client half is open: %v", err)
	}
}
