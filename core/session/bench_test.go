package session

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/relay"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/transport"
)

// script is a conn that plays the client's side from memory: what the server writes
// goes to onWrite, which answers what the server reads next.
type script struct {
	net.Conn
	in      []byte
	onWrite func([]byte) []byte
}

func (s *script) Read(b []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b, s.in)
	s.in = s.in[n:]
	return n, nil
}

func (s *script) Write(b []byte) (int, error) {
	if s.onWrite != nil {
		s.in = append(s.in, s.onWrite(b)...)
	}
	return len(b), nil
}

func (s *script) Close() error         { return nil }
func (s *script) RemoteAddr() net.Addr { return transport.Addr{} }

// capture keeps what a client writes instead of sending it.
type capture struct {
	net.Conn
	out []byte
}

func (c *capture) Write(b []byte) (int, error) { c.out = append(c.out, b...); return len(b), nil }

// BenchmarkHandshake is the whole handshake of a known device at the server, storage
// in memory and the client's work left out: by pattern.
func BenchmarkHandshake(b *testing.B) {
	for _, bm := range []struct {
		name string
		caps ccp.Capabilities
	}{
		{"XK", ccp.AllCapabilities &^ ccp.PQ}, {"XKpsk3", ccp.AllCapabilities},
	} {
		b.Run(bm.name, func(b *testing.B) {
			h := newHouse(b, nil)
			d := newDevice(b, "dev-a", "alice")
			h.join(b, d).conn.Close()
			h.Server.opt.Relay = lightRelay{}
			b.ReportAllocs()
			b.StopTimer()
			for range b.N {
				wire := &capture{}
				c := h.client(b, d, wire)
				c.caps = bm.caps
				if err := c.hello1(); err != nil {
					b.Fatal(err)
				}
				s := &script{in: wire.out}
				step := 0
				s.onWrite = func(w []byte) []byte {
					if step++; step > 1 {
						return nil
					}
					b.StopTimer()
					defer b.StartTimer()
					wire.out = nil
					c.in = append(c.in, w...)
					if err := c.answer(); err != nil {
						b.Error(err)
						return nil
					}
					if c.third() != nil || c.confirm() != nil {
						b.Error("client")
					}
					return wire.out
				}
				b.StartTimer()
				h.Serve(s)
				b.StopTimer()
			}
		})
	}
}

// BenchmarkResponder is the public-key work alone: Noise, and the proof.
func BenchmarkResponder(b *testing.B) {
	h := newHouse(b, nil)
	d := newDevice(b, "dev-a", "alice")
	b.ReportAllocs()
	b.StopTimer()
	for range b.N {
		wire := &capture{}
		c := h.client(b, d, wire)
		c.caps = ccp.AllCapabilities &^ ccp.PQ
		if err := c.hello1(); err != nil {
			b.Fatal(err)
		}
		o := newOpening(h.Server, &script{in: wire.out})
		o.buf = h.pool.get(smallBuf)
		if err := o.readHello(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := o.openFirst(); err != nil {
			b.Fatal(err)
		}
		m2, err := o.hs.WriteMessage(nil, []byte("{}"))
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.hs.ReadMessage(nil, m2); err != nil {
			b.Fatal(err)
		}
		m3, err := c.hs.WriteMessage(nil, nil)
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if _, err := o.hs.ReadMessage(nil, m3); err != nil {
			b.Fatal(err)
		}
		if _, _, err := o.hs.Split(); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
	}
}

// BenchmarkPushDense is one delivery of 256 bytes, queued, sealed and written, many
// at a time.
func BenchmarkPushDense(b *testing.B) {
	h := newHouse(b, nil)
	c := h.join(b, newDevice(b, "dev-a", "alice"))
	s := h.relay.link("dev-a").box.(*Session)
	wake := make(chan struct{})
	defer close(wake)
	s.conn = &idleConn{wake: wake}
	d := relay.Delivery{Position: 1, Kind: ccp.TypeMsg, Channel: 9, ID: ccp.MessageID{Counter: 1}, Device: "0123456789abcdef", User: "u-1", Body: make([]byte, 256)}
	_ = c
	b.ReportAllocs()
	for b.Loop() {
		for range 16 {
			if !s.Push(d) {
				b.Fatal("refused")
			}
		}
		for {
			s.mu.Lock()
			idle := !s.writing
			s.mu.Unlock()
			if idle {
				break
			}
			runtime.Gosched()
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/16, "ns/msg")
}

// BenchmarkIntake is one frame of 256 bytes opened and handed over, 64 in a read.
func BenchmarkIntake(b *testing.B) {
	h := newHouse(b, nil)
	c := h.join(b, newDevice(b, "dev-a", "alice"))
	h.relay.handle = func(*fakeLink, ccp.Frame) error { return nil }
	s := h.relay.link("dev-a").box.(*Session)
	frame, _ := ccp.Append(nil, ccp.Frame{Type: ccp.TypeMsg, Channel: 9, Sequence: 9, Payload: make([]byte, 256)})
	in := &intake{}
	b.ReportAllocs()
	b.StopTimer()
	for range b.N {
		in.buf = h.pool.get(largeBuf)
		for range 64 {
			var err error
			if in.buf, err = c.send.AppendRecords(in.buf, frame, 0); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		s.consume(in)
		b.StopTimer()
		if in.ended != "" {
			b.Fatal(in.ended)
		}
		h.pool.put(in.buf)
		in.buf = nil
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/msg")
}

// TestBudgetPumpAllocations: a message costs no allocation of its own, in or out.
func TestBudgetPumpAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	h := newHouse(t, nil)
	c := h.join(t, newDevice(t, "dev-a", "alice"))
	h.relay.handle = func(*fakeLink, ccp.Frame) error { return nil }
	s := h.relay.link("dev-a").box.(*Session)
	wake := make(chan struct{})
	defer close(wake)
	s.conn = &idleConn{wake: wake}
	d := relay.Delivery{Position: 1, Kind: ccp.TypeMsg, Channel: 9, ID: ccp.MessageID{Counter: 1}, Device: "0123456789abcdef", User: "u-1", Body: make([]byte, 256)}
	batch := []piece(nil)
	out := testing.AllocsPerRun(200, func() {
		s.mu.Lock()
		s.writing = true // no writer: this test is it
		s.queue = batch[:0]
		s.mu.Unlock()
		for range 16 {
			s.Push(d)
		}
		batch = s.queue
		if err := s.sendBatch(batch, modeRecords); err != nil {
			t.Fatal(err)
		}
		for i := range batch {
			s.srv.pool.put(batch[i].b)
		}
	})
	if out > 1 {
		t.Errorf("%v allocations for 16 deliveries", out)
	}
	frame, _ := ccp.Append(nil, ccp.Frame{Type: ccp.TypeMsg, Channel: 9, Sequence: 9, Payload: make([]byte, 256)})
	rec := make([]byte, 0, 8<<10)
	in := &intake{}
	ins := testing.AllocsPerRun(200, func() {
		var err error
		rec = rec[:0]
		for range 16 {
			if rec, err = c.send.AppendRecords(rec, frame, 0); err != nil {
				t.Fatal(err)
			}
		}
		in.buf = append(h.pool.get(midBuf), rec...)
		s.consume(in)
		h.pool.put(in.buf)
		in.buf = nil
	})
	if ins > 1 {
		t.Errorf("%v allocations for 16 frames", ins)
	}
}

// idleConn is a conn whose reader waits in a channel, as cheap as can be.
type idleConn struct {
	script
	wake chan struct{}
}

func (c *idleConn) Read(b []byte) (int, error) {
	if len(c.in) > 0 {
		return c.script.Read(b)
	}
	<-c.wake
	return 0, io.EOF
}

// TestBudgetIdleMemory is this package's share of T-43: an idle session holds its struct,
// two ciphers, a timer and one parked goroutine with a small stack.
func TestBudgetIdleMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("needs figures without the race detector")
	}
	const n, budget = 400, 6 << 10
	h := newHouse(t, func(o *Options, a *account.Options) { a.Registration = account.Open })
	h.Server.opt.Relay = lightRelay{}
	wake := make(chan struct{})
	var ends sync.WaitGroup
	for i := range n {
		d := newDevice(t, fmt.Sprintf("dev-%d", i), fmt.Sprintf("user-%d", i))
		wire := &capture{}
		c := h.client(t, d, wire)
		c.caps &^= ccp.PQ
		if err := c.hello1(); err != nil {
			t.Fatal(err)
		}
		conn := &idleConn{wake: wake}
		conn.in = wire.out
		step, up := 0, make(chan struct{})
		conn.onWrite = func(w []byte) []byte {
			switch step++; step {
			case 1:
				wire.out = nil
				c.in = append([]byte(nil), w...)
				if c.answer() != nil || c.third() != nil || c.confirm() != nil {
					t.Error("client")
				}
				return wire.out
			case 2:
				c, wire, d = nil, nil, nil
				conn.onWrite, conn.in = nil, nil
				close(up)
			}
			return nil
		}
		ends.Go(func() { h.Serve(conn) })
		<-up
	}
	for deadline := time.Now().Add(5 * time.Second); ; {
		if _, opening := h.Sessions(); opening == 0 || time.Now().After(deadline) {
			break
		}
		runtime.Gosched()
	}
	with := memory()
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	stacks := ms.StackInuse / n
	close(wake)
	ends.Wait()
	each := (with - memory()) / n
	t.Logf("session %d, stacks %d", unsafe.Sizeof(Session{}), stacks)
	t.Logf("%d bytes an idle session, a small fake conn included", each)
	if each > budget {
		t.Errorf("more than %d bytes", budget)
	}
}

// lightRelay holds nothing.
type lightRelay struct{}

type lightLink struct{}

func (lightRelay) Attach(context.Context, relay.Outbox, uint64) (Link, error) {
	return lightLink{}, nil
}

func (lightLink) Handle(ccp.Frame) error { return nil }
func (lightLink) Alive(uint64)           {}
func (lightLink) Logs() []relay.LogState { return nil }
func (lightLink) Fence() uint64          { return 1 }
func (lightLink) Cursor() uint64         { return 0 }
func (lightLink) Start()                 {}
func (lightLink) Detach()                {}

func memory() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
