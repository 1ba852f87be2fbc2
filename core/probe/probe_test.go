package probe

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve answers every connection with what act makes of it.
func serve(t *testing.T, act func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); act(c) }()
		}
	}()
	return l.Addr().String()
}

func TestRawDifferences(t *testing.T) {
	silent := serve(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)) })
	banner := serve(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = c.Write([]byte("hello"))
	})
	opt := Options{Wait: 100 * time.Millisecond, Only: []string{"tcp ssh", "tcp redis"}}
	r, err := Run(context.Background(), silent, silent, opt)
	if err != nil || !r.Equal() || len(r.Results) != 4 {
		t.Errorf("%v %v", err, r)
	}
	r, err = Run(context.Background(), banner, silent, opt)
	if err != nil || len(r.Differences()) != 4 || !strings.Contains(r.String(), "hello") {
		t.Errorf("%v %v", err, r)
	}
}

func TestUnreachableAndCancelled(t *testing.T) {
	if _, err := Run(context.Background(), "127.0.0.1:1", "127.0.0.1:1", Options{}); err == nil {
		t.Error("no error")
	}
	addr := serve(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 1<<20)) })
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := Run(ctx, addr, addr, Options{Wait: time.Minute, Only: []string{"tcp silence"}}); err == nil {
		t.Error("no error")
	}
	if d := time.Since(begin); d > 30*time.Second {
		t.Errorf("took %v", d)
	}
}

// An answer without an end does not keep the run, and neither does a side that hangs: what
// was found until then is in the report.
func TestEndlessAndHanging(t *testing.T) {
	endless := serve(t, func(c net.Conn) {
		for {
			if _, err := c.Write([]byte("x")); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	var far []Progress
	opt := Options{Wait: 20 * time.Millisecond, Only: []string{"tcp ssh"}, Progress: func(p Progress) { far = append(far, p) }}
	r, err := Run(t.Context(), endless, endless, opt)
	if err != nil || len(r.Results) != 2 || r.Results[0].Target.End != "open" {
		t.Errorf("%v %v", err, r)
	}
	if len(far) != 2 || far[1].Done != 2 || far[1].All != 2 {
		t.Error(far)
	}
	hangs := serve(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	opt = Options{Wait: time.Hour, Parallel: 1, Only: []string{"tcp ssh"}, Progress: func(Progress) { cancel() }}
	closes := serve(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)) })
	r, err = Run(ctx, closes, closes, opt)
	if !errors.Is(err, context.Canceled) || len(r.Results) != 1 {
		t.Errorf("%v %v", err, r)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if r, err = Run(ctx, hangs, hangs, opt); !errors.Is(err, context.DeadlineExceeded) || len(r.Results) != 0 {
		t.Errorf("%v %v", err, r)
	}
}

// Where nothing is alike, an input is not sent eight times.
func TestHopeless(t *testing.T) {
	var came atomic.Int32
	banner := serve(t, func(c net.Conn) {
		came.Add(1)
		_, _ = c.Write([]byte("hello"))
	})
	closes := serve(t, func(net.Conn) {})
	const rounds = 4 * hopeless
	r, err := Run(t.Context(), banner, closes, Options{Wait: time.Second, Rounds: rounds, Only: []string{"tcp ssh"}})
	if err != nil || len(r.Differences()) != 2*rounds {
		t.Errorf("%v, %d differences", err, len(r.Differences()))
	}
	if most := int32(Tries*(hopeless+8) + 2*2*rounds + 1); came.Load() > most {
		t.Errorf("%d connections, want %d at most", came.Load(), most)
	}
}

func TestInputsRepeat(t *testing.T) {
	opt := Options{Paths: []string{"/p"}}.withDefaults("relay.example:443")
	kinds := Kinds(opt)
	names := map[string]bool{}
	for i, k := range Kinds(opt) {
		if k.Name != kinds[i].Name || names[k.Name] && k.Name != "" {
			t.Errorf("name %q: twice, or in another order", k.Name)
		}
		names[k.Name] = true
		if strings.HasPrefix(k.Name, "hello") {
			continue // key shares are the library's own
		}
		a, b := k.input(source(1, k.Name, 0), opt), kinds[i].input(source(1, k.Name, 0), opt)
		if !slices.Equal(a, b) {
			t.Errorf("%s: inputs differ", k.Name)
		}
	}
	if len(names) < 60 {
		t.Errorf("%d kinds", len(names))
	}
	if tok := token(rand.New(rand.NewPCG(1, 2))); len(tok) != 48 {
		t.Errorf("token of %d characters", len(tok))
	}
	if tok := splitToken(rand.New(rand.NewPCG(1, 2)), 1); len(tok) != 48+1+34 {
		t.Errorf("split token of %d characters", len(tok))
	}
}

func TestTexts(t *testing.T) {
	const preamble = "HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nA: b\r\n\r\n"
	if got := http1Text(preamble); strings.Contains(got, "2024") || !strings.Contains(got, "A: b") {
		t.Errorf("%q", got)
	}
	in := frame(4, 0, 0, "") + frame(1, 4, 1, block(":status", "200", "date", "now")) + frame(0, 0, 1, "ab") + frame(0, 1, 1, "cd") + frame(8, 0, 0, "\x00\x00\x00\x05")
	want := "stream 0\n  settings 0 \n  windows 5\nstream 1\n  headers 4\n    :status: 200\n    date: …\n  data end\n  abcd\n"
	if got := http2Text([]byte(in)); got != want {
		t.Errorf("%q", got)
	}
	if got := tlsText([]byte("\x15\x03\x03\x00\x02\x02\x28\x17\x03\x03\x00\x01a\x17\x03\x03\x00\x01b")); got != "alert 0228\nencrypted\n" {
		t.Errorf("%q", got)
	}
}

func FuzzTexts(f *testing.F) {
	f.Add([]byte(frame(1, 4, 1, block(":status", "200"))))
	f.Add([]byte("\x16\x03\x03\x00\x04\x02\x00\x00\x00"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _, _ = http2Text(b), tlsText(b), http1Text(string(b))
	})
}

func TestSmirnov(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	sample := func(shift float64) []float64 {
		s := make([]float64, 300)
		for i := range s {
			s[i] = r.NormFloat64() + shift
		}
		slices.Sort(s)
		return s
	}
	if d, p := smirnov(sample(0), sample(0)); p < .01 || d > .15 {
		t.Errorf("same: d=%v p=%v", d, p)
	}
	if _, p := smirnov(sample(0), sample(.5)); p > .001 {
		t.Errorf("shifted: p=%v", p)
	}
	if _, p := smirnov([]float64{1, 1}, []float64{1, 1}); p != 1 {
		t.Errorf("equal: p=%v", p)
	}
}
