package reality

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/transport"
)

// tamperer stands on the way between a client and a server and flips one bit of the
// server's flight. It keeps what the server says and does after that.
type tamperer struct {
	bytes.Buffer
	end string
}

// run takes one connection for a server; at is the record whose last bit is flipped.
func (y *tamperer) run(t *testing.T, server string, p params, at int) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		client, err := ln.Accept()
		if err != nil {
			return
		}
		defer client.Close()
		up, err := net.Dial("tcp", server)
		if err != nil {
			return
		}
		defer up.Close()
		wg.Go(func() { // the client's side, with its end
			defer func() { _ = transport.CloseWrite(up) }()
			buf := make([]byte, 4096)
			for {
				n, err := client.Read(buf)
				if _, werr := up.Write(buf[:n]); err != nil || werr != nil {
					return
				}
			}
		})
		var flight []byte
		for {
			lengths, rest := recordLengths(flight)
			if len(lengths) > at && rest == len(flight) {
				for i, n := 0, 0; i <= at; i++ {
					if n += lengths[i]; i == at {
						flight[n-1] ^= 1
					}
				}
				break
			}
			b := make([]byte, 4096)
			_ = up.SetReadDeadline(time.Now().Add(10 * time.Second))
			n, err := up.Read(b)
			if flight = append(flight, b[:n]...); err != nil {
				return
			}
		}
		_, _ = client.Write(flight)
		var took time.Duration
		y.end = drain(up, &y.Buffer, 10*time.Second, &took, time.Now())
	})
	at2 := transport.AddrPort(ln.Addr())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := (&dialer{now: time.Now}).dial(ctx, p.endpoint(at2.Addr().String(), at2.Port()), transport.Dial{Roots: testAuthority().roots})
	if err == nil {
		_ = c.Close()
		t.Error("the client did not notice")
	}
	wg.Wait()
}

// TestTampered: somebody on the way who changes the server's answer makes the client send
// an alert. Only the client's keys open it, so the cover could not read it; the port must
// still do what the cover does with an alert that it can read.
func TestTampered(t *testing.T) {
	for name, cover := range covers(t) {
		t.Run(name, func(t *testing.T) {
			bare := cover
			if cover == coverSelf {
				bare = bareOwn(t)
			}
			r := startServer(t, baseConfig(t, cover))
			r.echoAll()
			p, err := parseParams(r.endpoint(), "")
			if err != nil {
				t.Fatal(err)
			}
			for _, at := range []int{2, 3, 5} {
				var a, b tamperer
				a.run(t, bare, p, at)
				b.run(t, r.addr, p, at)
				if seen, want := fmt.Sprintf("%s %s", describe(b.Bytes(), probe{}), b.end), fmt.Sprintf("%s %s", describe(a.Bytes(), probe{}), a.end); seen != want {
					t.Errorf("record %d: port: %s, cover: %s", at, seen, want)
				}
			}
		})
	}
}

// TestBurst: what a stranger sends at once reaches the cover at once. In pieces the cover
// may have closed between them, and its reset overtake its end.
func TestBurst(t *testing.T) {
	bare := nginxCover(t)
	r := startServer(t, baseConfig(t, bare))
	p, err := parseParams(r.endpoint(), "")
	if err != nil {
		t.Fatal(err)
	}
	s := shape{params: p, profile: "chrome", now: time.Now(), plain: true}
	burst := append(s.record(t), bytes.Repeat(record(typeApplicationData, make([]byte, 53)), 60)...)
	ends := map[string]map[string]int{}
	for name, addr := range map[string]string{"cover": bare, "port": r.addr} {
		ends[name] = map[string]int{}
		for range 60 {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = c.Write(burst)
			var got bytes.Buffer
			var took time.Duration
			ends[name][drain(c, &got, 10*time.Second, &took, time.Now())]++
			_ = c.Close()
		}
	}
	if len(ends["cover"]) == 1 && fmt.Sprint(ends["cover"]) != fmt.Sprint(ends["port"]) {
		t.Errorf("%v", ends)
	}
}
