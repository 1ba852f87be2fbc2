package client

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/transport"
)

func bodies(ms []Message) string {
	var out []string
	for _, m := range ms {
		out = append(out, string(m.Body))
	}
	return strings.Join(out, " ")
}

// TestDuplicates over reconnects: the relay repeats what was not acknowledged.
func TestDuplicates(t *testing.T) {
	r := newRelay(t)
	round := 0
	r.ready = func(p *peer) {
		round++
		for i := range uint64(20 * round) {
			if p.deliver(i+1, i+1, strconv.FormatUint(i+1, 10)) != nil {
				return
			}
		}
	}
	u := start(t, r.options(0))
	for i := 1; i <= 3; i++ {
		u.heard(20 * i)
		if i < 3 {
			u.cut()
		}
	}
	ms := u.heard(60)
	for i, m := range ms {
		if string(m.Body) != strconv.Itoa(i+1) {
			t.Fatalf("shown: %s", bodies(ms))
		}
	}
	if len(ms) != 60 {
		t.Fatalf("%d shown", len(ms))
	}
	if _, last := r.seen(); last.Cursor < 20 {
		t.Errorf("cursor %d", last.Cursor)
	}
}

func TestDone(t *testing.T) {
	r := newRelay(t)
	done := make(chan uint64, 16)
	r.frame = func(p *peer, f ccp.Frame) {
		if f.Type == ccp.TypeDone {
			d, err := ccp.ParseDone(f.Payload)
			if err != nil {
				t.Error(err)
			}
			done <- d.Cursor
		}
	}
	u := start(t, r.options(0))
	u.connected()
	p := <-r.arrived
	began := time.Now()
	_ = p.deliver(5, 1, "a")
	if c := <-done; c != 5 || time.Since(began) < doneAfter/2 {
		t.Errorf("cursor %d after %v", c, time.Since(began))
	}
	_ = p.deliver(7, 2, "b")
	u.heard(2)
	u.stop() // leaves in order: acknowledged before the end
	if c := <-done; c != 7 {
		t.Errorf("cursor %d", c)
	}
	if err := <-u.ended; err != nil {
		t.Error(err)
	}
	u.ended <- nil
}

func TestHandlerError(t *testing.T) {
	r := newRelay(t)
	r.ready = func(p *peer) {
		for i := range uint64(5) {
			_ = p.deliver(i+1, i+1, strconv.FormatUint(i+1, 10))
		}
	}
	opt := r.options(0)
	var calls atomic.Int64
	tried := make(chan struct{})
	opt.Handle = func(m Message) error {
		if calls.Add(1); string(m.Body) == "3" {
			close(tried)
			return errors.New("enough")
		}
		return nil
	}
	u := start(t, opt)
	<-tried
	u.connected() // the connection stays
	p := <-r.arrived
	_ = p.deliver(6, 6, "6")
	for { // it is stored all the same
		if st, _ := opt.Store.State(); st.Cursor == 6 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	u.close()
	if calls.Load() != 3 || bodies(u.heard(2)) != "1 2" {
		t.Fatalf("%d calls, shown %s", calls.Load(), bodies(u.shown))
	}
	opt.Handle = nil
	again := start(t, opt)
	if got := bodies(again.heard(4)); got != "3 4 5 6" {
		t.Fatalf("then shown %s", got)
	}
}

// TestNoHandler: messages stay for a client that has one.
func TestNoHandler(t *testing.T) {
	r := newRelay(t)
	r.ready = func(p *peer) { _ = p.deliver(1, 1, "kept") }
	opt := r.options(0)
	c, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() { over <- c.Run(t.Context()) }()
	for {
		if st, _ := opt.Store.State(); st.Cursor == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	c.Close()
	if err := <-over; !errors.Is(err, ErrClosed) {
		t.Errorf("Run after Close: %v", err)
	}
	r.ready = nil
	if got := bodies(start(t, opt).heard(1)); got != "kept" {
		t.Error(got)
	}
}

func TestEphemeralAndStrangeDeliveries(t *testing.T) {
	r := newRelay(t)
	opt := r.options(0)
	u := start(t, opt)
	u.connected()
	p := <-r.arrived
	d := ccp.Deliver{Kind: ccp.TypeTyping, ID: ccp.MessageID{Log: [8]byte{1}, Counter: 1}, Device: []byte("dev-a"), Body: []byte(`{}`)}
	_ = p.deliverAs(d)
	if m := u.heard(1)[0]; !m.Ephemeral || m.Kind != ccp.TypeTyping {
		t.Fatalf("%+v", m)
	}
	// A message that cannot be read counts as received, so that it is not sent
	// again and again.
	good, _ := ccp.AppendDeliver(nil, ccp.Deliver{Kind: ccp.TypeMsg, Position: 4, ID: ccp.MessageID{Counter: 9}})
	good[0] = 0x7f
	_ = p.send(ccp.TypeDeliver, 0, good)
	_ = p.deliver(5, 2, "next")
	if m := u.heard(2)[1]; string(m.Body) != "next" {
		t.Fatalf("%+v", m)
	}
	if st, _ := opt.Store.State(); st.Cursor != 5 {
		t.Errorf("cursor %d", st.Cursor)
	}
	// Positions only grow.
	_ = p.deliver(5, 3, "same position")
	if e := u.event("disconnected"); !strings.Contains(e.Err.Error(), "out of order") {
		t.Errorf("got %v", e.Err)
	}
}

// TestStoredWhileRead is the case in which a message is stored between two reads
// of the store: it must come by one way only.
func TestStoredWhileRead(t *testing.T) {
	s := memory()
	n := 0
	var in *inbox
	shown := make(chan uint64, 4096)
	in, err := openInbox(s, 0, func(m Message) error { shown <- m.Position; return nil })
	if err != nil {
		t.Fatal(err)
	}
	in.start()
	const total = 3000
	go func() {
		for n < total {
			for range 1 + n%3 {
				n++
				d := ccp.Deliver{Position: uint64(n), ID: ccp.MessageID{Counter: uint64(n)}, Device: []byte("a")}
				if err := in.collect(&d, Message{Position: d.Position, ID: d.ID, Device: "a"}); err != nil {
					t.Error(err)
				}
			}
			if n%100 < 3 {
				in.mu.Lock()
				in.unread = true // as after an overflow
				in.mu.Unlock()
			}
			if _, _, err := in.commit(); err != nil {
				t.Error(err)
			}
		}
	}()
	for want := uint64(1); want <= total; want++ {
		if got := <-shown; got != want {
			t.Fatalf("shown %d, want %d", got, want)
		}
	}
	in.end()
	in.wait()
	select {
	case got := <-shown:
		if got <= total {
			t.Errorf("%d twice", got)
		}
	default:
	}
}

// TestCrowded: a handler that is far behind leaves messages at the relay, and
// they come when there is room. It says so by a Done that covers nothing new.
func TestCrowded(t *testing.T) {
	r := newRelay(t)
	lives := make(chan struct{})
	var before atomic.Uint64 // the last Done's cursor
	var once sync.Once
	r.frame = func(_ *peer, f ccp.Frame) {
		if f.Type != ccp.TypeDone {
			return
		}
		d, err := ccp.ParseDone(f.Payload)
		if err != nil {
			t.Error(err)
		}
		if before.Swap(d.Cursor) == d.Cursor {
			once.Do(func() { close(lives) })
		}
	}
	const total = MaxInbox + 300
	r.ready = func(p *peer) {
		_, last := r.seen()
		for i := last.Cursor + 1; i <= total; i++ {
			if p.deliver(i, i, strconv.FormatUint(i, 10)) != nil {
				return
			}
		}
	}
	opt := r.options(0)
	gate := make(chan struct{})
	opt.Handle = func(Message) error { <-gate; return nil }
	u := start(t, opt)
	for {
		u.in.mu.Lock()
		starving := u.in.starving
		u.in.mu.Unlock()
		if starving {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if n, _, _ := opt.Store.(Sizer).Unshown(); n > MaxInbox {
		t.Errorf("%d stored", n)
	}
	select {
	case <-lives:
	case <-time.After(20 * time.Second):
		t.Error("the relay was not told that this end lives")
	}
	close(gate)
	for i, m := range u.heard(total) {
		if string(m.Body) != strconv.Itoa(i+1) {
			t.Fatalf("%d: %s", i, m.Body)
		}
	}
}

// failing is a store whose writing fails when told.
type failing struct {
	*MemoryStore
	arrive, shown error
}

func (s *failing) Arrive(a Arrival) error {
	if s.arrive != nil {
		return s.arrive
	}
	return s.MemoryStore.Arrive(a)
}

func (s *failing) Shown(p []uint64) error {
	if s.shown != nil {
		return s.shown
	}
	return s.MemoryStore.Shown(p)
}

func TestStoreFails(t *testing.T) {
	full := errors.New("disk full")
	for _, s := range []*failing{{memory(), full, nil}, {memory(), nil, full}} {
		r := newRelay(t)
		done := false
		r.frame = func(_ *peer, f ccp.Frame) { done = done || f.Type == ccp.TypeDone }
		r.ready = func(p *peer) { _ = p.deliver(1, 1, "x") }
		opt := r.options(0)
		opt.Store = s
		u := start(t, opt)
		if err := <-u.ended; !isKind(err, Invalid) || !errors.Is(err, full) {
			t.Errorf("Run: %v", err)
		}
		if s.arrive != nil && done {
			t.Error("a message that is not stored was acknowledged")
		}
	}
}

func TestStores(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) Store{
		"memory": func(*testing.T) Store { return memory() },
		"file": func(t *testing.T) Store {
			s, err := OpenStore(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			defer s.Close()
			key := WindowKey{Device: "dev-a", Log: [8]byte{1}}
			w, err := s.Window(key)
			if err != nil || w.High() != 0 {
				t.Fatal(w, err)
			}
			w.Note(7)
			ms := []Message{{Position: 3, Device: "dev-a", Body: []byte("x")}, {Position: 4, Body: []byte("y")}, {Position: 4, Body: []byte("z")}}
			if err := s.Arrive(Arrival{Messages: ms, Windows: map[WindowKey]*ccp.Window{key: w}, Cursor: 4}); err != nil {
				t.Fatal(err)
			}
			w.Note(8) // the store has its own copy
			if w, _ = s.Window(key); w.High() != 7 {
				t.Error("the window is shared")
			}
			if n, size, err := s.(Sizer).Unshown(); n != 3 || size < 3 || err != nil {
				t.Error(n, size, err)
			}
			for _, want := range []string{"x y z", "y z", "z", ""} {
				got, err := s.Inbox(10)
				if err != nil || bodies(got) != want {
					t.Fatalf("got %s, %v", bodies(got), err)
				}
				if len(got) > 0 {
					if err := s.Shown([]uint64{got[0].Position}); err != nil {
						t.Fatal(err)
					}
				}
			}
			st := State{Resume: make([]byte, 32), ResumeUntil: time.Unix(9, 0).UTC(), ResumeKey: Hex32{1}, Confirmed: time.Unix(8, 0).UTC()}
			if err := s.SaveSession(st); err != nil {
				t.Fatal(err)
			}
			for i := range 4 {
				if err := s.PutOutbox([]Outgoing{{Counter: uint64(i + 1), Kind: ccp.TypeMsg, Channel: 4, Body: []byte{byte(i)}}}); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(s.DeleteOutbox([]uint64{2, 99}), s.Restart([8]byte{5})); err != nil {
				t.Fatal(err)
			}
			out, err := s.Outbox()
			if err != nil || len(out) != 3 || out[1].Counter != 2 || out[1].Body[0] != 2 {
				t.Fatal(out, err)
			}
			got, err := s.State()
			st.Log, st.Next, st.Cursor = [8]byte{5}, 4, 4
			if diff := cmp.Diff(st, got); diff != "" || err != nil {
				t.Error(diff, err)
			}
			// Duplicate tables are bounded; those in use stay.
			many := make(map[WindowKey]*ccp.Window)
			for i := range maxWindows + 10 {
				many[WindowKey{Device: strconv.Itoa(i)}] = w
			}
			if err := errors.Join(s.Arrive(Arrival{Windows: many}), s.Arrive(Arrival{Windows: map[WindowKey]*ccp.Window{key: w}})); err != nil {
				t.Fatal(err)
			}
			if w, _ := s.Window(key); w.High() != 7 {
				t.Error("a table in use was forgotten")
			}
		})
	}
}

// TestKilled kills a program in the middle of arriving messages, again and again:
// each message is shown once, but for the one whose handler ran at the kill.
func TestKilled(t *testing.T) {
	if addr := os.Getenv("CLIENT_TEST_RELAY"); addr != "" {
		child(t, addr)
		return
	}
	const total, each = 300, 40
	r := newRelay(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { defer conn.Close(); _ = r.serve(conn) })
		}
	})
	defer l.Close()
	r.ready = func(p *peer) {
		_, last := r.seen()
		from := last.Cursor + 1
		if from > 5 {
			from -= 5 // some were stored and their Done was lost
		}
		// No more for one life, so that a child that runs on while a slow machine
		// kills it leaves work for the next.
		for i := from; i <= min(last.Cursor+each, total); i++ {
			if p.deliver(i, i, strconv.FormatUint(i, 10)) != nil {
				return
			}
		}
	}
	dir := t.TempDir()
	if err := r.profile(0).Save(dir); err != nil {
		t.Fatal(err)
	}
	var shown []int
	doubled, kills := 0, 0
	for len(shown) == 0 || shown[len(shown)-1] < total {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$", "-test.v")
		cmd.Env = append(os.Environ(), "CLIENT_TEST_RELAY="+l.Addr().String(), "CLIENT_TEST_DIR="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines, stopAt := bufio.NewScanner(out), 8+7*kills%23
		for lines.Scan() {
			n, err := strconv.Atoi(strings.TrimPrefix(lines.Text(), "shown "))
			if err != nil {
				continue
			}
			if len(shown) > 0 && n == shown[len(shown)-1] {
				doubled++
			} else {
				shown = append(shown, n)
			}
			if stopAt--; stopAt == 0 || n == total {
				_ = cmd.Process.Kill() // SIGKILL; what it had shown until then is read
			}
		}
		_ = cmd.Wait()
		if kills++; kills > 40 {
			t.Fatalf("no progress: %v", shown)
		}
	}
	for i, n := range shown {
		if n != i+1 {
			t.Fatalf("shown %v", shown)
		}
	}
	if kills < 3 || doubled > kills {
		t.Errorf("%d kills, %d shown again", kills, doubled)
	}
}

func child(t *testing.T, addr string) {
	dir := os.Getenv("CLIENT_TEST_DIR")
	p, err := LoadProfile(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Options{Profile: p, Store: s, Handle: func(m Message) error {
		fmt.Printf("shown %s\n", m.Body)
		return nil
	}, Dialers: []transport.Dialer{&fixed{name: "pipe", dial: func() net.Conn {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Error(err)
			conn, _ = net.Pipe()
		}
		return conn
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Run(t.Context())
}
