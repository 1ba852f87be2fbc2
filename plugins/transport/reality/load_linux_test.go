package reality

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// flood is many strangers who connect, send what they have and keep silent.
type flood struct {
	addr   string
	rate   int // a second
	wide   bool
	first  func(i int) []byte
	opened atomic.Int64
	failed atomic.Int64
}

// run opens connections until ctx ends, and ends all of them then.
func (f *flood) run(ctx context.Context) {
	var wg sync.WaitGroup
	due := make(chan int, f.rate)
	for range 64 {
		wg.Go(func() {
			for i := range due {
				f.one(ctx, &wg, i)
			}
		})
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	for n := 0; ; {
		select {
		case <-ctx.Done():
			close(due)
			wg.Wait()
			return
		case <-tick.C:
		}
		for want := int(time.Since(began).Seconds() * float64(f.rate)); n < want; n++ {
			select {
			case due <- n:
			default: // this machine makes no more
			}
		}
	}
}

func (f *flood) one(ctx context.Context, wg *sync.WaitGroup, i int) {
	from := anywhere()
	if !f.wide {
		from.IP = net.IPv4(127, 9, 9, byte(1+rand.N(250)))
	}
	c, err := (&net.Dialer{LocalAddr: from, Timeout: 5 * time.Second, KeepAlive: -1}).Dial("tcp", f.addr)
	if err != nil {
		f.failed.Add(1)
		return
	}
	f.opened.Add(1)
	if b := f.first(i); b != nil {
		_, _ = c.Write(b)
	}
	wg.Go(func() {
		defer reset(c)
		defer context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(aLongTimeAgo) })()
		_, _ = io.Copy(io.Discard, c)
	})
}

// anywhere is an address of loopback.
func anywhere() *net.TCPAddr {
	return &net.TCPAddr{IP: net.IPv4(127, byte(1+rand.N(254)), byte(rand.N(256)), byte(1+rand.N(254)))}
}

// comeIn dials every 100 ms for so long and gives the times from dial to the first echo.
func comeIn(t *testing.T, e transport.Endpoint, d time.Duration) []time.Duration {
	t.Helper()
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
		wg.Go(func() {
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			c, err := (&dialer{now: time.Now}).dial(ctx, e, transport.Dial{
				Roots: testAuthority().roots, DialTCP: (&net.Dialer{LocalAddr: anywhere()}).DialContext,
			})
			if err == nil {
				defer c.Close()
				err = echoOver(c, 64)
			}
			if err != nil {
				t.Errorf("after %v: %v", time.Since(began), err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(began))
		})
	}
	wg.Wait()
	slices.Sort(took)
	return took
}

// TestLoadSilent: clients come in while strangers open connections and say nothing, or
// half a hello, or a whole one and no more, from one network or from everywhere. With
// COMMUCAT_SOAK 2,000 a second come for 20 s. It reports the times and judges success alone.
func TestLoadSilent(t *testing.T) {
	rate, lasts := 300, time.Second
	if soak() {
		rate, lasts = 2000, 20*time.Second
	}
	p, _ := testParams(t)
	p.name = siteName
	hello := shape{params: p, profile: "chrome", now: time.Now(), plain: true}.record(t)
	quantile := func(d []time.Duration, q float64) time.Duration {
		if len(d) == 0 {
			return 0
		}
		return d[int(q*float64(len(d)-1))].Round(100 * time.Microsecond)
	}
	for _, tc := range []struct {
		name  string
		cover string
		wide  bool
		first func(i int) []byte
	}{
		{"silence from one network, own site", coverSelf, false, func(int) []byte { return nil }},
		{"silence and half hellos from everywhere, nginx", nginxCover(t), true, func(i int) []byte { return [][]byte{nil, hello[:300]}[i%2] }},
		{"hellos from everywhere, own site", coverSelf, true, func(int) []byte { return hello }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			raw := baseConfig(t, tc.cover)
			if tc.cover == coverSelf {
				raw["certificate"], raw["key"] = sdk.NewFile("chain.pem", testAuthority().quickChain), string(testAuthority().quickKey)
			}
			r := startServer(t, raw)
			r.echoAll()
			e := r.endpoint()
			calm := comeIn(t, e, lasts/4)
			f := &flood{addr: r.addr, rate: rate, wide: tc.wide, first: tc.first}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); f.run(ctx) }()
			took := comeIn(t, e, lasts)
			cancel()
			<-done
			t.Logf("%d strangers, %d who did not get through, %d at once at the end; %d clients: p50 %v, p99 %v, most %v; without strangers %v, %v, %v",
				f.opened.Load(), f.failed.Load(), r.ln.crowd.size(), len(took), quantile(took, 0.5), quantile(took, 0.99), quantile(took, 1),
				quantile(calm, 0.5), quantile(calm, 0.99), quantile(calm, 1))
			if f.opened.Load() == 0 {
				t.Error("no stranger came")
			}
		})
	}
}
