package relay

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/storage"
)

// benchBox acknowledges every 64 messages, as a client does.
type benchBox struct {
	fakeBox
	last  atomic.Uint64
	count atomic.Int64
	wake  chan struct{}
}

func (b *benchBox) Push(d Delivery) bool {
	b.last.Store(d.Position)
	if b.count.Add(1)%64 == 0 {
		select {
		case b.wake <- struct{}{}:
		default:
		}
	}
	return true
}

func (b *benchBox) Control(ccp.Type, uint32, []byte) bool { return true }

func benchPeer(b *bed, device string) (*Link, *benchBox) {
	b.acc.add(device, allCaps)
	box := &benchBox{wake: make(chan struct{}, 1)}
	box.device, box.session, box.caps = device, "s-"+device, allCaps
	l, err := b.hub.Attach(b.t.Context(), box, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	l.Start()
	return l, box
}

// acker sends Done as soon as 64 more messages have arrived.
func acker(l *Link, box *benchBox, stop chan struct{}) {
	var buf []byte
	for {
		select {
		case <-box.wake:
		case <-stop:
			return
		}
		buf, _ = ccp.AppendDone(buf[:0], ccp.Done{Cursor: box.last.Load()})
		if l.Handle(ccp.Frame{Type: ccp.TypeDone, Payload: buf}) != nil {
			return
		}
	}
}

// stores are what the figures are taken with: one that keeps nothing, and one in
// memory.
func benchStores(b *testing.B, f func(b *testing.B, change func(*Options))) {
	b.Run("store=noop", func(b *testing.B) {
		s := newFakeStore()
		s.noop = true
		f(b, func(o *Options) { o.Store = s.store(); o.Traits = storage.Traits{Batch: 512, Lanes: 1} })
	})
	b.Run("store=memory", func(b *testing.B) {
		s := newFakeStore()
		f(b, func(o *Options) { o.Store = s.store(); o.Traits = storage.Traits{Batch: 512, Lanes: 1} })
	})
}

// BenchmarkOneToOne is send, commit, deliver and done of 256-byte messages
// between pairs of devices.
func BenchmarkOneToOne(b *testing.B) {
	for _, pairs := range []int{1, 50} {
		b.Run(fmt.Sprintf("pairs=%d", pairs), func(b *testing.B) {
			benchStores(b, func(b *testing.B, change func(*Options)) {
				bed := newBed(b, change)
				stop := make(chan struct{})
				defer close(stop)
				senders := make([]*Link, pairs)
				var delivered []*benchBox
				for i := range pairs {
					to := fmt.Sprintf("r%d.1", i)
					l, box := benchPeer(bed, to)
					go acker(l, box, stop)
					delivered = append(delivered, box)
					senders[i], _ = benchPeer(bed, fmt.Sprintf("s%d.1", i))
				}
				b.ReportAllocs()
				b.ResetTimer()
				done := make(chan struct{})
				for i, l := range senders {
					n := b.N / pairs
					if i == 0 {
						n += b.N % pairs
					}
					go func() {
						pump(l, fmt.Sprintf("r%d.1", i), 0, n)
						done <- struct{}{}
					}()
				}
				for range senders {
					<-done
				}
				drainAll(senders)
				b.StopTimer()
				n := 0
				for _, d := range delivered {
					n += int(d.count.Load())
				}
				b.ReportMetric(float64(n)/float64(b.N), "delivered/op")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			})
		})
	}
}

// pump sends n messages from one reader goroutine.
func pump(l *Link, to string, channel uint32, n int) {
	s := ccp.Send{Kind: ccp.TypeMsg, Body: make([]byte, 256), ID: ccp.MessageID{Log: [8]byte{1}}}
	if channel == 0 {
		s.To = [][]byte{[]byte(to)}
	}
	s.ID.Counter = 1
	frame, err := ccp.AppendSend(nil, s)
	if err != nil {
		panic(err)
	}
	for i := range n {
		binary.BigEndian.PutUint64(frame[9:], uint64(i+1))
		if err := l.Handle(ccp.Frame{Type: ccp.TypeSend, Channel: channel, Payload: frame}); err != nil {
			panic(err)
		}
	}
}

// drainAll waits until nothing is in flight.
func drainAll(links []*Link) {
	for _, l := range links {
		l.in.mu.Lock()
		for l.in.inflight > 0 || l.in.working {
			l.in.room.Wait()
		}
		l.in.mu.Unlock()
	}
}

// BenchmarkFanOut is one message to 100 devices; figures are per delivery.
func BenchmarkFanOut(b *testing.B) {
	const members = 100
	benchStores(b, func(b *testing.B, change func(*Options)) {
		bed := newBed(b, change)
		stop := make(chan struct{})
		defer close(stop)
		sender, _ := benchPeer(bed, "s.1")
		create := ccp.GroupCreate{GroupID: "g"}
		for i := range members {
			d := fmt.Sprintf("r%d.1", i)
			l, box := benchPeer(bed, d)
			go acker(l, box, stop)
			create.Members = append(create.Members, d)
		}
		bed.hub.opt.Limits.NewContacts = 1000
		payload := `{"group_id":"g","members":["` + joinQuoted(create.Members) + `"]}`
		if err := sender.Handle(ccp.Frame{Type: ccp.TypeGroupCreate, Channel: 5, Payload: []byte(payload)}); err != nil {
			b.Fatal(err)
		}
		drainAll([]*Link{sender})
		b.ReportAllocs()
		b.ResetTimer()
		pump(sender, "", 5, (b.N+members-1)/members)
		drainAll([]*Link{sender})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
	})
}

func joinQuoted(list []string) string {
	out := ""
	for i, s := range list {
		if i > 0 {
			out += `","`
		}
		out += s
	}
	return out
}

func BenchmarkSeal(b *testing.B) {
	v := newVault([32]byte{1}, zeroReader{})
	e := envelope{kind: ccp.TypeMsg, device: "device-one", user: "user-one", body: make([]byte, 256)}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = v.appendSealed(buf[:0], &e, "device-two", [16]byte{1})
	}
}

type zeroReader struct{}

func (zeroReader) Read(b []byte) (int, error) { return len(b), nil }
