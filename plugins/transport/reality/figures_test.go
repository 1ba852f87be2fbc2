//go:build unix

package reality

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/transport"
)

// TestFigures measures beside crypto/tls in one run, both ends in this process, when
// COMMUCAT_SOAK is set. It reports and judges nothing.
func TestFigures(t *testing.T) {
	if !soak() {
		t.Skip("set COMMUCAT_SOAK=1 on an idle machine")
	}
	for name, pair := range map[string]tls.Certificate{"RSA": testAuthority().pair, "ECDSA": testAuthority().quick} {
		r := startServer(t, baseConfig(t, goCoverWith(t, pair)))
		e := r.endpoint()
		paths := []path{
			{"crypto/tls", plainTLS(t, pair), func(ctx context.Context, addr string) (net.Conn, error) {
				d := tls.Dialer{Config: &tls.Config{ServerName: siteName, RootCAs: testAuthority().roots}}
				return d.DialContext(ctx, "tcp", addr)
			}},
			{"reality", r.ln, func(ctx context.Context, _ string) (net.Conn, error) { return dialRig(ctx, e, "chrome") }},
		}
		flows := map[string][]flow{}
		for range 5 {
			for _, p := range paths {
				flows[p.name] = append(flows[p.name], p.upload(t, 512<<20))
			}
		}
		for _, p := range paths {
			base := median(flows["crypto/tls"])
			m := median(flows[p.name])
			t.Logf("certificate %s: %-10s %5.0f MB/s (%.2f), %.2f CPU s/GiB (%.2f)", name, p.name, m.rate, m.rate/base.rate, m.cpu, m.cpu/base.cpu)
		}
		shakes := map[string][]flow{}
		for range 3 {
			for _, p := range paths {
				shakes[p.name] = append(shakes[p.name], p.handshakes(t, 4, 2*time.Second))
			}
		}
		for _, p := range paths {
			m, base := median(shakes[p.name]), median(shakes["crypto/tls"])
			t.Logf("certificate %s: %-10s %5.0f handshakes/s (%.2f), %.2f CPU ms each (%.2f)", name, p.name, m.rate, m.rate/base.rate, 1000*m.cpu, m.cpu/base.cpu)
		}
	}
}

type path struct {
	name string
	ln   net.Listener
	dial func(ctx context.Context, addr string) (net.Conn, error)
}

func plainTLS(t *testing.T, pair tls.Certificate) net.Listener {
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return transport.Handshakes(ln)
}

type flow struct{ rate, cpu float64 } // MB/s and seconds a GiB, or handshakes a second and seconds each

func median(f []flow) flow {
	slices.SortFunc(f, func(a, b flow) int { return int(a.rate - b.rate) })
	m := f[len(f)/2]
	slices.SortFunc(f, func(a, b flow) int { return int(1e6 * (a.cpu - b.cpu)) })
	m.cpu = f[len(f)/2].cpu
	return m
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (p path) upload(t *testing.T, size int64) flow {
	t.Helper()
	c, err := p.dial(t.Context(), p.ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("!")); err != nil {
		t.Fatal(err)
	}
	s, err := p.ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	done := make(chan error, 1)
	began, used := time.Now(), cpu()
	go func() {
		buf := make([]byte, 64<<10)
		for left := size + 1; left > 0; {
			n, err := s.Read(buf)
			if left -= int64(n); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	b := make([]byte, 256<<10)
	for left := size; left > 0; left -= int64(len(b)) {
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil && err != io.EOF {
		t.Fatal(err)
	}
	took := time.Since(began)
	return flow{float64(size) / 1e6 / took.Seconds(), (cpu() - used).Seconds() / (float64(size) / (1 << 30))}
}

func (p path) handshakes(t *testing.T, workers int, d time.Duration) flow {
	t.Helper()
	stop := make(chan struct{})
	go func() {
		for {
			c, err := p.ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = c.Write([]byte("!"))
				_, _ = c.Read(make([]byte, 1))
			}()
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	var n atomic.Int64
	var wg sync.WaitGroup
	used := cpu()
	until := time.Now().Add(d)
	for range workers {
		wg.Go(func() {
			for time.Now().Before(until) {
				c, err := p.dial(context.Background(), p.ln.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
					t.Error(err)
				}
				_ = c.Close()
				n.Add(1)
			}
		})
	}
	wg.Wait()
	used = cpu() - used
	close(stop)
	if c, err := p.dial(context.Background(), p.ln.Addr().String()); err == nil { // lets Accept return
		_ = c.Close()
	}
	return flow{float64(n.Load()) / d.Seconds(), used.Seconds() / float64(n.Load())}
}
