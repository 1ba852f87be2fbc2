package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
)

// script collects what the relay was sent.
type script struct {
	mu   sync.Mutex
	got  []string
	logs map[[8]byte]bool
	more chan struct{}
}

func newScript() *script {
	return &script{logs: make(map[[8]byte]bool), more: make(chan struct{}, 1)}
}

func (s *script) add(m ccp.Send) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, fmt.Sprintf("%d:%s", m.ID.Counter, m.Body))
	s.logs[m.ID.Log] = true
	select {
	case s.more <- struct{}{}:
	default:
	}
	return len(s.got)
}

func (s *script) wait(t *testing.T, want string) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		s.mu.Lock()
		got := strings.Join(s.got, " ")
		s.mu.Unlock()
		if got == want {
			return
		}
		select {
		case <-s.more:
		case <-limit:
			t.Fatalf("relay got %s\nwant %s", got, want)
		}
	}
}

func TestOutboxSurvives(t *testing.T) {
	r := newRelay(t)
	opt, dir := r.options(0), t.TempDir()
	for i := range 3 { // three lives of a program that never connects
		s, err := OpenStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		opt.Store = s
		c, err := New(opt)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Send(Draft{To: []string{"dev-b", "dev-c"}, Body: []byte{byte('a' + i)}, TTL: time.Hour}); err != nil {
			t.Fatal(err)
		}
		if c.Pending() != i+1 {
			t.Fatalf("life %d: %d pending", i, c.Pending())
		}
		c.Close()
		s.Close()
	}
	got := newScript()
	r.frame = func(p *peer, f ccp.Frame) {
		if f.Type == ccp.TypeSend {
			s := parseSend(t, f)
			if string(s.Body) != "d" && (len(s.To) != 2 || string(s.To[1]) != "dev-c" || s.TTL != 3600) {
				t.Errorf("send %+v", s)
			}
			if got.add(s) == 3 {
				p.ackRange(s.ID.Log, 1, 3)
			}
		}
	}
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	opt.Store = s
	u := start(t, opt)
	got.wait(t, "1:a 2:b 3:c")
	k := u.say("d") // not acknowledged
	u.close()
	if _, err := k.Wait(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestRepeatAfterLostAck(t *testing.T) {
	r := newRelay(t)
	got := newScript()
	r.frame = func(p *peer, f ccp.Frame) {
		if f.Type != ccp.TypeSend {
			return
		}
		s := parseSend(t, f)
		switch got.add(s) {
		case 3:
			p.conn.Close() // the Acks of all three are lost
		case 4:
			p.ackRange(s.ID.Log, 2, 2)
		}
	}
	first := true
	r.ack = func(a *ccp.Established) {
		if !first { // 1 and 3 are known as done
			a.Ext.Resume.Logs = []ccp.LogState{{Log: [8]byte{0xa1}, Done: [][2]uint64{{1, 1}, {3, 3}}}, {Log: [8]byte{9}, Done: [][2]uint64{{1, 99}}}}
		}
		first = false
	}
	opt := r.options(ccp.AllCapabilities)
	c, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	var tickets []*Ticket
	for _, b := range []string{"a", "b", "c"} {
		k, err := c.Send(Draft{To: []string{"dev-b"}, Body: []byte(b)})
		if err != nil {
			t.Fatal(err)
		}
		tickets = append(tickets, k)
	}
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- c.Run(ctx) }()
	for _, k := range tickets {
		if _, err := k.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	got.wait(t, "1:a 2:b 3:c 2:b")
	stop()
	if err := <-over; err != nil {
		t.Error(err)
	}
	c.Close()
	if left, _ := opt.Store.Outbox(); len(left) != 0 {
		t.Errorf("left in the store: %v", left)
	}
}

func TestWindow(t *testing.T) {
	r := newRelay(t)
	const n = 700
	var mu sync.Mutex
	out, most, total := 0, 0, 0
	release := make(chan struct{}, n)
	r.ready = func(p *peer) {
		r.wg.Go(func() {
			for i := range uint64(n) {
				if _, ok := <-release; !ok {
					return
				}
				mu.Lock()
				out--
				mu.Unlock()
				p.ackRange([8]byte{0xa1}, i+1, i+1)
			}
		})
	}
	reached := make(chan struct{})
	r.frame = func(p *peer, f ccp.Frame) {
		if f.Type != ccp.TypeSend {
			return
		}
		mu.Lock()
		out++
		total++
		most = max(most, out)
		if total == 256 {
			close(reached)
		}
		over := total >= 256
		mu.Unlock()
		if over {
			release <- struct{}{}
		}
	}
	u := start(t, r.options(0))
	u.connected()
	tickets := make([]*Ticket, n)
	for i := range tickets {
		tickets[i] = u.say("x")
	}
	<-reached
	for range 255 {
		release <- struct{}{}
	}
	for _, k := range tickets {
		if _, err := u.wait(k); err != nil {
			t.Fatal(err)
		}
	}
	if most > ccp.SendWindow {
		t.Errorf("%d in flight", most)
	}
}

// TestSpan: a message without an answer holds back those far behind it, which
// would push it out of the duplicate tables.
func TestSpan(t *testing.T) {
	o, err := openOutbox(memory(), func() {}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range maxSpan + 100 {
		if _, err := o.put(draft(t, "x")); err != nil {
			t.Fatal(err)
		}
	}
	var seq uint32
	now := time.Now()
	for {
		_, n, err := o.gather(nil, 256, 1<<20, now, &seq)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		o.acknowledge(&ccp.SendAck{Log: o.log, Done: [][2]uint64{{2, 1 << 60}}}, now)
	}
	if seq != maxSpan {
		t.Fatalf("%d sent", seq)
	}
	o.acknowledge(&ccp.SendAck{Log: o.log, Done: [][2]uint64{{1, 1}}}, now)
	if _, n, _ := o.gather(nil, 256, 1<<20, now, &seq); n != 100 || o.base != maxSpan+1 {
		t.Fatalf("then %d", n)
	}
	o.close(ErrClosed)
}

func draft(t testing.TB, body string) *item {
	d := Draft{To: []string{"dev-b"}, Body: []byte(body)}
	it, err := d.item()
	if err != nil {
		t.Fatal(err)
	}
	return it
}

func TestUnavailable(t *testing.T) {
	r := newRelay(t)
	got := newScript()
	failed := false
	var when, again time.Time
	r.frame = func(p *peer, f ccp.Frame) {
		if f.Type != ccp.TypeSend {
			return
		}
		s := parseSend(t, f)
		got.add(s)
		switch {
		case s.ID.Counter == 2 && !failed:
			failed, when = true, time.Now()
			p.refuse(s, ccp.CodeUnavailable, 200)
		case s.ID.Counter > 2 && again.IsZero() && failed && time.Since(when) < 150*time.Millisecond:
			// dropped, as a relay does until it sees 2 again
		default:
			if s.ID.Counter == 2 {
				again = time.Now()
			}
			p.ackRange(s.ID.Log, s.ID.Counter, s.ID.Counter)
		}
	}
	opt := r.options(0)
	c, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	var last *Ticket
	for _, b := range []string{"a", "b", "c", "d"} {
		last, _ = c.Send(Draft{To: []string{"dev-b"}, Body: []byte(b)})
	}
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- c.Run(ctx) }()
	if _, err := last.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	got.wait(t, "1:a 2:b 3:c 4:d 2:b 3:c 4:d")
	if again.Sub(when) < 190*time.Millisecond {
		t.Errorf("repeated after %v", again.Sub(when))
	}
	stop()
	<-over
	c.Close()
}

func TestRefusals(t *testing.T) {
	r := newRelay(t)
	r.frame = func(p *peer, f ccp.Frame) {
		if f.Type != ccp.TypeSend {
			return
		}
		s := parseSend(t, f)
		if code := string(s.Body); code != "partly" {
			p.refuse(s, code, 0)
			return
		}
		b, _ := ccp.AppendSendAck(nil, ccp.SendAck{
			Log: s.ID.Log, Done: [][2]uint64{{s.ID.Counter, s.ID.Counter}},
			Refused: []ccp.Refusal{{Counter: s.ID.Counter, Device: []byte("dev-c"), Error: []byte("full")}},
		})
		_ = p.send(ccp.TypeAck, 0, b)
	}
	u := start(t, r.options(0))
	for _, code := range []string{ccp.CodeUnreachable, ccp.CodeNotMember, ccp.CodeNoChannel, ccp.CodeBadKind, ccp.CodeFull, ccp.CodeTooLarge, "a_new_code"} {
		_, err := u.wait(u.say(code))
		if got, ok := IsRefused(err); !ok || got != code {
			t.Errorf("%s: %v", code, err)
		}
	}
	res, err := u.wait(u.say("partly"))
	if err != nil || len(res.Refused) != 1 || res.Refused[0] != (Refusal{"dev-c", "full"}) {
		t.Errorf("got %v, %v", res, err)
	}
	if u.Pending() != 0 {
		t.Error("refused messages stay")
	}
}

// TestBadID: a new log begins when everything else has its answer.
func TestBadID(t *testing.T) {
	r := newRelay(t)
	got := newScript()
	r.frame = func(p *peer, f ccp.Frame) {
		if f.Type != ccp.TypeSend {
			return
		}
		s := parseSend(t, f)
		n := got.add(s)
		switch {
		case n == 1: // kept until the error about 2 is out
		case n == 2:
			p.refuse(s, ccp.CodeBadID, 0)
			p.ackRange(s.ID.Log, 1, 1)
		case string(s.Body) == "never":
			p.refuse(s, ccp.CodeBadID, 0)
		default:
			p.ackRange(s.ID.Log, s.ID.Counter, s.ID.Counter)
		}
	}
	u := start(t, r.options(0))
	a := u.say("a")
	b := u.say("b")
	if res, err := u.wait(a); err != nil || res.ID.Counter != 1 {
		t.Fatal(res, err)
	}
	res, err := u.wait(b)
	if err != nil || res.ID.Counter != 1 || res.ID.Log == [8]byte{0xa1} {
		t.Fatalf("b: %v, %v", res, err)
	}
	got.wait(t, "1:a 2:b 1:b")
	if _, err := u.wait(u.say("never")); !isKind(err, Refused) {
		t.Errorf("an id that is always bad: %v", err)
	}
	if len(got.logs) > 3 {
		t.Errorf("%d logs", len(got.logs))
	}
}

// TestRestoredCopy: the relay knows counters that this profile never used.
func TestRestoredCopy(t *testing.T) {
	for _, high := range []uint64{3, 60} { // 3 was made here, but never sent
		r := newRelay(t)
		r.frame = ackAll
		r.ack = func(a *ccp.Established) {
			a.Ext.Resume.Logs = []ccp.LogState{{Log: [8]byte{0xa1}, Done: [][2]uint64{{1, high}}}}
		}
		c, err := New(r.options(0))
		if err != nil {
			t.Fatal(err)
		}
		var ks []*Ticket
		for range 3 {
			k, err := c.Send(Draft{To: []string{"dev-b"}})
			if err != nil {
				t.Fatal(err)
			}
			ks = append(ks, k)
		}
		ctx, stop := context.WithCancel(t.Context())
		over := make(chan error, 1)
		go func() { over <- c.Run(ctx) }()
		for i, k := range ks {
			if res, err := k.Wait(t.Context()); err != nil || res.ID.Log == [8]byte{0xa1} || res.ID.Counter != uint64(i+1) {
				t.Errorf("got %v, %v", res, err)
			}
		}
		stop()
		<-over
		c.Close()
	}
}

// counting counts transactions and can be made to fail or wait.
type counting struct {
	*MemoryStore
	puts  int
	fail  error
	block chan struct{}
}

func (s *counting) PutOutbox(o []Outgoing) error {
	if s.block != nil {
		<-s.block
	}
	s.puts++
	if s.fail != nil {
		return s.fail
	}
	return s.MemoryStore.PutOutbox(o)
}

func TestGroupCommit(t *testing.T) {
	s := &counting{MemoryStore: memory(), block: make(chan struct{})}
	o, err := openOutbox(s, func() {}, nil)
	if err != nil {
		t.Fatal(err)
	}
	const n = 50
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if _, err := o.put(draft(t, "x")); err != nil {
				t.Error(err)
			}
		})
	}
	for { // all but the leader have joined the second group
		o.mu.Lock()
		pending := o.pending
		o.mu.Unlock()
		if pending == n {
			break
		}
		time.Sleep(time.Millisecond)
	}
	close(s.block)
	wg.Wait()
	if s.puts > 2 {
		t.Errorf("%d transactions for %d messages", s.puts, n)
	}
	s.fail = errors.New("disk full")
	if k, err := o.put(draft(t, "x")); k != nil || !isKind(err, Invalid) || !errors.Is(err, s.fail) {
		t.Errorf("got %v, %v", k, err)
	}
	s.fail = nil
	if _, err := o.put(draft(t, "x")); err != nil || o.open() != n+1 {
		t.Errorf("after a failure: %v, %d", err, o.open())
	}
	if _, high := o.high(); high != n+1 {
		t.Errorf("a failure spent a counter: %d", high)
	}
	o.close(ErrClosed)
}

func TestFullOutbox(t *testing.T) {
	r := newRelay(t)
	c, err := New(r.options(0))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 4 {
		if _, err := c.Send(Draft{To: []string{"b"}, Body: make([]byte, MaxBody-100)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Send(Draft{To: []string{"b"}, Body: make([]byte, 1<<20)}); !isKind(err, Full) {
		t.Fatalf("got %v", err)
	}
	if _, err := c.Send(Draft{To: []string{"b"}, Body: []byte("small")}); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedStore(t *testing.T) {
	make1 := func(t *testing.T) string {
		dir := t.TempDir()
		s, err := OpenStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint64(200) {
			if err := s.PutOutbox([]Outgoing{{Counter: i + 1, Kind: ccp.TypeMsg, To: []string{"b"}, Body: make([]byte, 1000)}}); err != nil {
				t.Fatal(err)
			}
		}
		s.Close()
		return dir
	}
	for name, harm := range map[string]func([]byte) []byte{
		"cut":     func(b []byte) []byte { return b[:len(b)/3] },
		"garbage": func(b []byte) []byte { return []byte(strings.Repeat("what ", 20000)) },
		"pages": func(b []byte) []byte {
			for i := 8192; i < len(b); i++ {
				b[i] ^= 0x5a
			}
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := make1(t)
			file := filepath.Join(dir, storeFile)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, harm(b), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := OpenStore(dir)
			if !isKind(err, Invalid) || !strings.Contains(err.Error(), "move it away") || strings.Contains(err.Error(), "runtime error") {
				t.Fatalf("got %v, %v", s, err)
			}
		})
	}
	if dir := t.TempDir(); os.Mkdir(filepath.Join(dir, storeFile), 0o700) != nil {
		t.Fatal("no folder")
	} else if _, err := OpenStore(dir); !isKind(err, Invalid) || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("a folder in its place: %v", err)
	}
	s := &counting{MemoryStore: memory()}
	_ = s.MemoryStore.PutOutbox([]Outgoing{{Counter: 1, Kind: ccp.TypeMsg, To: []string{"b"}}})
	s.state.Next = 1 << 40
	if _, err := openOutbox(s, func() {}, nil); !isKind(err, Invalid) {
		t.Errorf("a gap of 2^40: %v", err)
	}
}

// TestSendAllocates keeps a Send cheap: item, payload and the copy of the name.
func TestSendAllocates(t *testing.T) {
	o, err := openOutbox(memory(), func() {}, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := Draft{To: []string{"0123456789abcdef0123456789abcdef"}, Body: make([]byte, 256)}
	n := testing.AllocsPerRun(1000, func() {
		it, err := d.item()
		if err == nil {
			_, err = o.put(it)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	if n > 4 {
		t.Errorf("%v allocations", n)
	}
	o.close(ErrClosed)
}
