package plugintest

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/host"
	"github.com/commucat/commucat/sdk/transport"
)

// open streams of a process case: both ends of each.
type twoEnds struct{ client, server net.Conn }

// streams opens n streams and gives both ends, in any order.
func (k *pluginKit) streams(t T, env *Lender, n int) (joinedHalves, []twoEnds) {
	t.Helper()
	got := make(chan net.Conn, n)
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	j := k.join(t, env, func(c net.Conn) {
		got <- c
		<-over
	})
	ends := make([]twoEnds, n)
	for i := range ends {
		ends[i].client = dialOne(t, j.guest.dial)
		if _, err := ends[i].client.Write([]byte("!")); err != nil {
			t.Fatal(err)
		}
		select {
		case ends[i].server = <-got:
		case <-time.After(patience):
			t.Fatal("nothing was accepted")
		}
		if _, err := ends[i].server.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	return j, ends
}

// A drained process takes nobody in, and is ready when its streams have ended.
func processDrain(t T, k *pluginKit) {
	j, ends := k.streams(t, k.lender(t), 3)
	if j.server.Stats().Pumped == 0 {
		t.Skip("its streams do not need the process")
	}
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := j.server.Drain(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("drained with open streams: %v", err)
	}
	wakes(t, "accept after a drain", nil, func() error { _, err := j.ln.Accept(); return err })
	done := make(chan error, 1)
	long, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() { done <- j.server.Drain(long) }()
	for _, e := range ends {
		if _, err := e.client.Write([]byte("?")); err != nil {
			t.Errorf("a stream ended with the drain: %v", err)
		}
		if _, err := e.server.Read(make([]byte, 1)); err != nil {
			t.Errorf("a stream ended with the drain: %v", err)
		}
		e.client.Close()
		e.server.Close()
	}
	if err := <-done; err != nil {
		t.Errorf("drain: %v", err)
	}
}

// kill ends a process without a warning.
func kill(t T, p *host.Process) {
	t.Helper()
	process, err := os.FindProcess(p.PID())
	if err == nil {
		err = process.Kill()
	}
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.Done():
	case <-time.After(patience):
		t.Fatal("the end of the process was not noticed")
	}
	if err = p.Err(); sdk.KindOf(err) != sdk.Unavailable {
		t.Errorf("why it ended: %v", err)
	}
}

// A process that is killed takes its streams with it: both ends see it, nothing hangs,
// and everything that is asked afterwards is answered.
func processKilled(t T, k *pluginKit) {
	j, ends := k.streams(t, k.lender(t), 5)
	pumped := j.server.Stats().Pumped
	accepted := make(chan error, 1)
	go func() {
		_, err := j.ln.Accept()
		accepted <- err
	}()
	kill(t, j.server)
	if pumped > 0 {
		for _, e := range ends {
			wakes(t, "the relay's end", nil, readOne(e.server))
			wakes(t, "the client's end", nil, readOne(e.client))
			wakes(t, "writing", nil, fill(e.server))
		}
	}
	select {
	case err := <-accepted:
		if err == nil {
			t.Error("Accept goes on")
		}
	case <-time.After(patience):
		t.Error("Accept hangs")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := j.server.Ping(ctx); !errors.Is(err, sdk.Unavailable) {
		t.Errorf("ping: %v", err)
	}
	if _, err := j.opened.Listen(ctx); err == nil {
		t.Error("a dead process listens")
	}
	if err := j.opened.Probe(ctx); err == nil {
		t.Error("a dead process answers")
	}
	if _, err := transport.Open(ctx, find(t, j.server, j.server.Plugins()[0].Name()), nil, nil); err == nil {
		t.Error("a dead process opens")
	}
	for what, close := range map[string]func() error{"listener": j.ln.Close, "transport": j.opened.Close, "process": j.server.Close} {
		wakes(t, what, os.ErrProcessDone, func() error { return errors.Join(close(), os.ErrProcessDone) })
	}
}

// Clients come back to a process that was started again on the same sockets. The ones
// that came meanwhile wait in the kernel's queue.
func processAgain(t T, k *pluginKit) {
	env := k.lender(t)
	j := k.join(t, env, echo)
	for round := range 3 {
		if err := roundTrip(dialOne(t, j.guest.dial), 100); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		kill(t, j.server)
		var p sdk.Plugin
		p, j.server = k.half(t)
		j.opened = k.open(t, p, env, false)
		j.ln = listen(t, j.opened)
		serve(j.ln, false, echo)
		if _, ok := j.ln.(transport.Server); ok && k.o.Endpoint == nil {
			j.guest = k.invite(t, j.ln, j.guest.half, j.guest.id) // keys may be new
		}
	}
	if err := roundTrip(dialOne(t, j.guest.dial), 100); err != nil {
		t.Error(err)
	}
}

// The process gives back what streams and listeners used.
func processKeeps(t T, k *pluginKit) {
	env := k.lender(t)
	j := k.join(t, env, echo)
	cycle := func() {
		for range 20 {
			c := dialOne(t, j.guest.dial)
			if err := roundTrip(c, 10); err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
		if strings.HasPrefix(j.ln.Addr().Network(), "tcp") { // two readers of one packet socket disturb each other
			_ = listen(t, j.opened).Close()
		}
	}
	cycle()
	settled := func(limit int) int {
		for until := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			n := files(j.server.PID())
			if n <= limit || time.Now().After(until) {
				return n
			}
		}
	}
	time.Sleep(time.Second)
	before := files(j.server.PID())
	if before < 0 {
		t.Skip("the system does not say")
	}
	// One that stays is a pool's, perhaps; one that stays of each cycle is lost.
	for seen := []int{before}; ; {
		cycle()
		after := settled(before)
		if after <= before {
			break
		}
		if seen = append(seen, after); len(seen) > 3 {
			t.Errorf("descriptors of the process: %v", seen)
			break
		}
		before = after
	}
	for until := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		s := j.server.Stats()
		if s.Pumped == 0 && s.Sockets == 0 {
			break
		}
		if time.Now().After(until) {
			t.Errorf("streams that were closed still count: %+v", s)
			break
		}
	}
}
