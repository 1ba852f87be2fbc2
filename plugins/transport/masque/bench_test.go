package masque

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// upload is how much each round sends; both ends are in this process.
const upload = 96 << 20

// rawQUIC gives a plain stream of the same library with the same settings: what the
// CONNECT stream is measured by.
func rawQUIC(b *testing.B, batches bool, accept func(net.Conn)) func(context.Context) (net.Conn, error) {
	b.Helper()
	pem, err := makeCertificate("localhost", time.Now())
	if err != nil {
		b.Fatal(err)
	}
	cert, err := tls.X509KeyPair(pem, pem)
	if err != nil {
		b.Fatal(err)
	}
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	tr := &quic.Transport{Conn: plain{udp, batches}.conn()}
	ln, err := tr.Listen(serverTLS(cert, "raw"), &quic.Config{EnableDatagrams: true})
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		for {
			c, err := ln.Accept(context.Background())
			if err != nil {
				return
			}
			go func() {
				s, err := c.AcceptStream(context.Background())
				if err == nil {
					accept(quicStream{s, c, nil})
				}
			}()
		}
	}()
	b.Cleanup(func() {
		_ = tr.Close()
		_ = udp.Close()
	})
	return func(ctx context.Context) (net.Conn, error) {
		own, err := net.ListenUDP("udp", nil)
		if err != nil {
			return nil, err
		}
		tr := &quic.Transport{Conn: plain{own, batches}.conn()}
		c, err := tr.Dial(ctx, udp.LocalAddr(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"raw"}}, clientQUIC())
		if err != nil {
			return nil, err
		}
		s, err := c.OpenStream()
		return quicStream{s, c, tr}, err
	}
}

// plain is a socket as quic-go has it, or with our batches.
type plain struct {
	*net.UDPConn
	batches bool
}

func (p plain) conn() net.PacketConn {
	if p.batches {
		ready, _ := forQUIC(p.UDPConn)
		return ready
	}
	enlarge(p.UDPConn) // and no UDP_GRO, which quic-go cannot read
	return &unbatched{UDPConn: p.UDPConn}
}

// unbatched hides the size of its buffers, as socket does, and nothing else.
type unbatched struct {
	*net.UDPConn
	asked int
}

func (u *unbatched) SyscallConn() (syscall.RawConn, error) {
	if u.asked++; u.asked <= 2 {
		return nil, errors.ErrUnsupported
	}
	return u.UDPConn.SyscallConn()
}

func (u *unbatched) SetReadBuffer(int) error  { return nil }
func (u *unbatched) SetWriteBuffer(int) error { return nil }

type quicStream struct {
	*quic.Stream
	c  *quic.Conn
	tr *quic.Transport // the client's
}

func (s quicStream) LocalAddr() net.Addr  { return s.c.LocalAddr() }
func (s quicStream) RemoteAddr() net.Addr { return s.c.RemoteAddr() }
func (s quicStream) CloseWrite() error    { return s.Stream.Close() }

func (s quicStream) Close() error {
	err := s.c.CloseWithError(0, "")
	if s.tr != nil {
		_ = s.tr.Close()
		_ = s.tr.Conn.Close()
	}
	return err
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkUpload measures all paths in one run, in turns, and reports medians:
//
//	go test ./plugins/transport/masque -run '^$' -bench Upload -benchtime 5x
func BenchmarkUpload(b *testing.B) {
	type path struct {
		name string
		dial func(context.Context) (net.Conn, error)
		mbs  []float64
		cpu  []float64
	}
	got := make(chan int64, 1)
	sink := func(c net.Conn) {
		n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 64<<10))
		got <- n
		_ = c.Close()
	}
	r := start(b, map[string]any{"guest_sessions": 1000}, sink)
	paths := []*path{
		{name: "raw", dial: rawQUIC(b, false, sink)},
		{name: "batched", dial: rawQUIC(b, true, sink)},
		{name: "stream", dial: r.client(b, map[string]any{"mode": modeStream})},
		{name: "websocket", dial: r.client(b, map[string]any{"mode": modeWebSocket})},
		{name: "udp", dial: r.client(b, map[string]any{"mode": modeUDP})},
		{name: "datagram", dial: r.client(b, map[string]any{"mode": modeDatagram})},
	}
	if only := os.Getenv("MASQUE_BENCH_PATH"); only != "" {
		paths = slices.DeleteFunc(paths, func(p *path) bool { return !slices.Contains(strings.Split(only, ","), p.name) })
	}
	block := make([]byte, 64<<10)
	for b.Loop() {
		for _, p := range paths {
			c, err := p.dial(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			began, used := time.Now(), cpu()
			for range upload / len(block) {
				if _, err := c.Write(block); err != nil {
					b.Fatal(err)
				}
			}
			if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				b.Fatal(err)
			}
			if n := <-got; n != upload {
				b.Fatalf("%s: %d bytes arrived", p.name, n)
			}
			took := time.Since(began)
			p.mbs = append(p.mbs, upload/1e6/took.Seconds())
			p.cpu = append(p.cpu, (cpu()-used).Seconds()/(float64(upload)/(1<<30)))
			_ = c.Close()
		}
	}
	median := func(v []float64) float64 { slices.Sort(v); return v[len(v)/2] }
	for _, p := range paths {
		m, u := median(p.mbs), median(p.cpu)
		b.ReportMetric(m, p.name+"-MB/s")
		b.ReportMetric(u, p.name+"-cpu-s/GiB")
		b.Logf("%-10s %6.0f MB/s (%.0f to %.0f) ratio %.3f, %5.2f CPU s/GiB ratio %.3f", p.name, m, p.mbs[0], p.mbs[len(p.mbs)-1],
			m/median(paths[0].mbs), u, u/median(paths[0].cpu))
	}
}
