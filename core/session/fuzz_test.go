package session

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/relay"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/transport"
)

// FuzzHandshake feeds whole connections. Whatever comes, nothing may be stored or
// attached, and no answer may be anything but Auth and the generic error.
func FuzzHandshake(f *testing.F) {
	h := newHouse(f, func(o *Options, a *account.Options) {
		o.Limits.Handshake = 10 * time.Second // each connection is closed long before
		a.Registration = account.Open
	})
	d := newDevice(f, "dev-a", "alice")
	for _, caps := range []ccp.Capabilities{ccp.AllCapabilities, ccp.ProofBinding | ccp.Records | ccp.Ack} {
		conn, _ := h.serve(transport.Facts{})
		rec := &recorder{Conn: conn}
		c := h.client(f, d, rec)
		c.caps = caps
		if err := c.first(); err != nil {
			f.Fatal(err)
		}
		if err := c.third(); err != nil {
			f.Fatal(err)
		}
		conn.Close()
		b := rec.out.Bytes()
		f.Add(b, false)
		f.Add(b[:len(b)/2], true)
		f.Add(append(append([]byte(nil), b...), 16, 1, 2, 3), true)
	}
	var v struct {
		Transcript []struct {
			Frame string `json:"frame_hex"`
		} `json:"session_transcript_xk"`
	}
	readVectors(f, &v)
	f.Add(unhex(f, v.Transcript[0].Frame), true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, in []byte, compat bool) {
		conn, ended := h.serve(transport.Facts{Transport: "fuzz", Compat: compat})
		go func() {
			_, _ = conn.Write(in)
			time.Sleep(5 * time.Millisecond)
			conn.Close()
		}()
		out, _ := io.ReadAll(conn)
		<-ended
		h.mu.Lock()
		h.conns = nil
		h.mu.Unlock()
		for len(out) > 0 {
			fr, n, err := ccp.Decode(out)
			if errors.Is(err, ccp.ErrIncomplete) {
				break // the close came into the middle of the answer
			}
			if err != nil || (fr.Type != ccp.TypeAuth && fr.Type != ccp.TypeError) {
				t.Fatalf("answered %x", out)
			}
			out = out[n:]
		}
		if h.relay.attached() != 0 || h.dir.Count("device") != 0 {
			t.Fatal("something came of it")
		}
	})
}

// FuzzStream cuts a frame stream anywhere: the frames that come out, and whether the
// stream is refused, do not depend on the cuts.
func FuzzStream(f *testing.F) {
	h := newHouse(f, nil)
	frame, _ := ccp.Append(nil, ccp.Frame{Type: ccp.TypeMsg, Channel: 300, Sequence: 9, Payload: []byte("abc")})
	f.Add(frame, uint8(1))
	f.Add(append(append([]byte(nil), frame...), frame[:5]...), uint8(3))
	f.Add([]byte{0x80, 0x80, 1, 5, 0, 1, 0}, uint8(2))
	f.Add([]byte{0xff, 0xff, 0xff, 0x0f}, uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		run := func(step int) (got []string, ended string) {
			s := &Session{srv: h.Server, conn: &script{}, caps: ccp.AllCapabilities, stop: make(chan struct{})}
			s.clock.s = s
			s.link = &sinkLink{func(f ccp.Frame) { got = append(got, fmt.Sprint(f.Type, f.Channel, f.Sequence, string(f.Payload))) }}
			k := &intake{}
			for rest := in; len(rest) > 0; rest = rest[min(step, len(rest)):] {
				if !s.plaintext(k, rest[:min(step, len(rest))]) {
					break
				}
			}
			ended = k.ended
			s.doneFrame(k)
			return got, ended
		}
		whole, wholeEnd := run(max(len(in), 1))
		cut, cutEnd := run(int(step)%16 + 1)
		if !slices.Equal(whole, cut) || wholeEnd != cutEnd {
			t.Errorf("whole %q %q, cut %q %q", whole, wholeEnd, cut, cutEnd)
		}
	})
}

type sinkLink struct{ f func(ccp.Frame) }

func (l *sinkLink) Handle(f ccp.Frame) error { l.f(f); return nil }
func (*sinkLink) Alive(uint64)               {}
func (*sinkLink) Logs() []relay.LogState     { return nil }
func (*sinkLink) Fence() uint64              { return 1 }
func (*sinkLink) Cursor() uint64             { return 0 }
func (*sinkLink) Start()                     {}
func (*sinkLink) Detach()                    {}
