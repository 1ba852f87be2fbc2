package client

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/noise"
)

// cpu reports the CPU time of the process per operation: both sides of the
// connection.
func cpu(b *testing.B) func() {
	var from syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &from)
	return func() {
		var to syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &to)
		d := to.Utime.Nano() - from.Utime.Nano() + to.Stime.Nano() - from.Stime.Nano()
		b.ReportMetric(float64(d)/float64(b.N), "cpu-ns/op")
	}
}

// BenchmarkSend is a message of 256 bytes from Send to Wait, 64 outstanding. The
// relay gathers its Acks as a real one does.
func BenchmarkSend(b *testing.B) {
	r := newRelay(b)
	r.ready = func(p *peer) {
		// A fast loop instead of the scripted one: no copy of the frames.
		ackFast(p)
	}
	u := start(b, r.options(0))
	u.connected()
	ctx, body := context.Background(), make([]byte, 256)
	d := Draft{To: []string{"0123456789abcdef0123456789abcdef"}, Body: body}
	var ring [64]*Ticket
	b.ReportAllocs()
	b.ResetTimer()
	done := cpu(b)
	for i := range b.N {
		if k := ring[i%64]; k != nil {
			if _, err := k.Wait(ctx); err != nil {
				b.Fatal(err)
			}
		}
		k, err := u.Send(d)
		if err != nil {
			b.Fatal(err)
		}
		ring[i%64] = k
	}
	for _, k := range ring {
		if k != nil {
			_, _ = k.Wait(ctx)
		}
	}
	done()
}

func ackFast(p *peer) {
	var (
		in, plain, out []byte
		buf            = make([]byte, 64<<10)
		s              ccp.Send
		ranges         [1][2]uint64
		payload        []byte
	)
	for {
		n, err := p.conn.Read(buf)
		if err != nil {
			return
		}
		in = append(in, buf[:n]...)
		used, from, to := 0, uint64(0), uint64(0)
		for {
			text, n, err := p.open.Next(in[used:])
			if err != nil {
				if err != noise.ErrIncomplete {
					return
				}
				break
			}
			plain, used = append(plain, text...), used+n
		}
		in = in[:copy(in, in[used:])]
		parsed := 0
		for {
			f, n, err := ccp.Decode(plain[parsed:])
			if err != nil {
				break
			}
			parsed += n
			if f.Type == ccp.TypeSend && s.Parse(f.Payload) == nil {
				if from == 0 {
					from = s.ID.Counter
				}
				to = s.ID.Counter
			}
		}
		plain = plain[:copy(plain, plain[parsed:])]
		if from == 0 {
			continue
		}
		ranges[0] = [2]uint64{from, to}
		payload, _ = ccp.AppendSendAck(payload[:0], ccp.SendAck{Log: s.ID.Log, Done: ranges[:]})
		p.seq++
		f, _ := ccp.Append(nil, ccp.Frame{Type: ccp.TypeAck, Sequence: p.seq, Payload: payload})
		out, _ = p.seal.AppendRecords(out[:0], f, noise.DefaultRecord)
		if _, err := p.conn.Write(out); err != nil {
			return
		}
	}
}

// BenchmarkShow is a message of 256 bytes from the relay's write to the handler.
func BenchmarkShow(b *testing.B) {
	const burst = 64
	r := newRelay(b)
	opt := r.options(0)
	shown, all := 0, make(chan struct{})
	total := (b.N + burst - 1) / burst * burst
	opt.Handle = func(Message) error {
		if shown++; shown == total {
			close(all)
		}
		return nil
	}
	c, err := New(opt)
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- c.Run(ctx) }()
	p := <-r.arrived
	if _, err := c.Connected(ctx); err != nil {
		b.Fatal(err)
	}
	d, err := ccp.AppendDeliver(nil, ccp.Deliver{
		Kind: ccp.TypeMsg, Position: 1, ID: ccp.MessageID{Log: [8]byte{1}, Counter: 1},
		Device: []byte("0123456789abcdef0123456789abcdef"), User: []byte("user"), Body: make([]byte, 256),
	})
	if err != nil {
		b.Fatal(err)
	}
	var frames, records []byte
	b.ReportAllocs()
	b.ResetTimer()
	done := cpu(b)
	for n := uint64(0); n < uint64(total); {
		frames = frames[:0]
		for range burst {
			n++
			binary.BigEndian.PutUint64(d[2:], n)
			binary.BigEndian.PutUint64(d[18:], n)
			p.seq++
			frames, _ = ccp.Append(frames, ccp.Frame{Type: ccp.TypeDeliver, Sequence: p.seq, Payload: d})
		}
		records, _ = p.seal.AppendRecords(records[:0], frames, noise.DefaultRecord)
		if _, err := p.conn.Write(records); err != nil {
			b.Fatal(err)
		}
		for n > MaxInbox/2 && c.behind() > MaxInbox/4 {
			runtime.Gosched()
		}
	}
	<-all
	done()
	b.StopTimer()
	stop()
	<-over
	c.Close()
}

// behind is how many stored messages the handler has not taken.
func (c *Client) behind() int {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	return c.in.held
}

// BenchmarkConnect is a handshake and what the client makes of the Ack, by a profile that
// knows the relay's promises; both sides are in the figures.
func BenchmarkConnect(b *testing.B) {
	for _, pattern := range []string{"XK", "IK"} {
		for _, file := range []bool{false, true} {
			name := pattern
			if file {
				name += "/file"
			}
			b.Run(name, func(b *testing.B) {
				r := newRelay(b)
				var entry [8]byte
				r.ack = func(a *ccp.Established) {
					// As a relay does: another credential each time.
					binary.BigEndian.PutUint32(entry[:], uint32(time.Now().Add(30*24*time.Hour).Unix()))
					rand.Read(entry[4:])
					a.Ext.Entry = &ccp.Entry{ID: entry, Key: [16]byte{1}}
				}
				opt := r.options(ccp.AllCapabilities)
				if file {
					dir := b.TempDir()
					if err := opt.Profile.Save(dir); err != nil {
						b.Fatal(err)
					}
					store, err := OpenStore(dir)
					if err != nil {
						b.Fatal(err)
					}
					defer store.Close()
					opt.Store = store
				}
				c, err := New(opt)
				if err != nil {
					b.Fatal(err)
				}
				defer c.Close()
				b.ReportAllocs()
				b.ResetTimer()
				done := cpu(b)
				for range b.N {
					c.useXK = pattern == "XK"
					s, err := c.connect(b.Context(), raceDelay)
					if err != nil {
						b.Fatal(err)
					}
					s.conn.Close()
				}
				done()
			})
		}
	}
}
