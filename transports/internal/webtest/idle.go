package webtest

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/transport"
)

// idleEnv carries the site to the process that plays the clients.
const idleEnv = "COMMUCAT_IDLE_CLIENTS"

type idlePlan struct {
	Endpoint transport.Endpoint
	Pin      [32]byte
	Tokens   []string
}

// IdleClients plays the clients of [Idle] if this process was started for it:
// it connects, sends a byte on each stream and waits for its input to end. A test calls it first.
func IdleClients(t testing.TB, d transport.Dialer) {
	raw := os.Getenv(idleEnv)
	if raw == "" {
		return
	}
	var plan idlePlan
	if err := json.Unmarshal([]byte(raw), &plan); err != nil {
		t.Fatal(err)
	}
	var all []net.Conn // a conn nobody holds would be collected and closed
	for _, token := range plan.Tokens {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		c, err := d.Dial(ctx, plan.Endpoint, transport.Dial{
			Token: func(_, _, _ string) string { return token }, Pins: [][32]byte{plan.Pin},
		})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(all)
	os.Exit(0)
}

// Idle measures what n idle sessions cost this process each, in bytes of heap
// and stacks, with the clients in a process of their own. The relay's end
// waits in Read. method is that of the tokens.
func Idle(t testing.TB, name, method string, n int, start func(accept func(net.Conn)) *Site) uint64 {
	t.Helper()
	ready := make(chan struct{}, n)
	var ended atomic.Int64
	site := start(func(c net.Conn) {
		var p [1]byte
		if _, err := io.ReadFull(c, p[:]); err == nil {
			ready <- struct{}{}
		}
		_, _ = c.Read(p[:])
		ended.Add(1)
	})
	plan := idlePlan{Endpoint: site.Endpoint, Pin: site.Dial.Pins[0]}
	for range n {
		plan.Tokens = append(plan.Tokens, site.Token(method, Path, ""))
	}
	raw, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	before := memory()
	cmd := exec.CommandContext(context.Background(), os.Args[0], "-test.run=^"+name+"$")
	cmd.Env = append(os.Environ(), idleEnv+"="+string(raw))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = in.Close()
		_ = cmd.Wait()
	}()
	limit := time.After(60 * time.Second)
	for range n {
		select {
		case <-ready:
		case <-limit:
			t.Fatal("the clients did not come")
		}
	}
	after := memory()
	if n := ended.Load(); n > 0 {
		t.Fatalf("%d sessions ended too early", n)
	}
	return (after - before) / uint64(n)
}

func memory() uint64 {
	for range 3 {
		runtime.GC()
	}
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
