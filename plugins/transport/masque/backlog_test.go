package masque

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/qlogwriter"
)

func TestWaiting(t *testing.T) {
	full := func(w *waiting) { // one less than what waits
		for range backlogMost - 1 {
			w.comes()
		}
	}
	next := func(w *waiting) (returned *bool) {
		returned = new(bool)
		go func() { w.comes(); *returned = true }()
		synctest.Wait()
		return returned
	}
	for name, test := range map[string]func(*testing.T, *waiting){
		"room comes when enough were taken": func(t *testing.T, w *waiting) {
			full(w)
			returned := next(w)
			for range backlogMost - backlogLess - 1 {
				w.taken()
			}
			if synctest.Wait(); *returned {
				t.Error("let in too early")
			}
			w.taken()
			if synctest.Wait(); !*returned {
				t.Error("not let in")
			}
		},
		"a reader that does not come is not waited for": func(t *testing.T, w *waiting) {
			full(w)
			returned := next(w)
			time.Sleep(backlogTime)
			if synctest.Wait(); !*returned {
				t.Error("waits still")
			}
			full(w) // the count began anew
			if *next(w) {
				t.Error("does not wait any more")
			}
			w.over()
			synctest.Wait()
		},
		"the end of the stream lets in": func(t *testing.T, w *waiting) {
			full(w)
			returned := next(w)
			w.over()
			if synctest.Wait(); !*returned {
				t.Error("waits still")
			}
			full(w)
			w.comes()
			w.over()
		},
		"more taken than counted is not owed": func(t *testing.T, w *waiting) {
			w.taken()
			w.taken()
			full(w)
			if *next(w) {
				t.Error("does not wait")
			}
			w.over()
			synctest.Wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, &waiting{patience: backlogTime, room: make(chan struct{}, 1)}) })
		})
	}
	var none *waiting
	none.comes()
	none.taken()
	none.over()
}

// TestBacklog sends more than HTTP/3's queue holds to a stream whose reader is slow.
func TestBacklog(t *testing.T) {
	const burst = 120 // less than the connection's queue
	waits := &backlog{patience: time.Minute, streams: make(map[uint64]*waiting)}
	patient := func(context.Context, bool, quic.ConnectionID) qlogwriter.Trace { return waits }
	pem, err := makeCertificate("localhost", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(pem, pem)
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var (
		got     []byte
		all     = make(chan struct{})
		release = make(chan struct{})
		served  sync.WaitGroup
	)
	h3 := &http3.Server{
		EnableDatagrams: true, TLSConfig: http3.ConfigureTLSConfig(serverTLS(cert, http3.NextProtoH3)),
		QUICConfig: &quic.Config{EnableDatagrams: true, Tracer: patient}, ConnContext: withConn,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			str, err := w.(http3.HTTPStreamer).HTTPStream()
			if err != nil {
				return
			}
			f := newFlowH3(str, new(sync.Pool))
			f.datagrams(connOf(r.Context()), str)
			_ = f.run(func(b []byte) {
				if len(got) == 0 {
					<-release
				}
				if got = append(got, b...); len(got) == burst {
					close(all)
				}
			})
		}),
	}
	served.Go(func() { _ = h3.Serve(udp) })
	t.Cleanup(func() {
		_ = h3.Close()
		_ = udp.Close()
		served.Wait()
	})

	own, err := net.ListenUDP("udp", nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := connectQUIC(t.Context(), own, udp.LocalAddr(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}}, clientQUIC())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodConnect, fmt.Sprintf("https://%s/", udp.LocalAddr()), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Proto = protocolUDP
	str, resp, err := exchange(t.Context(), c, r)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
	f := newFlowH3(str, new(sync.Pool))
	f.datagrams(c.conn, str)
	want := make([]byte, burst)
	for i := range want {
		want[i] = byte(i)
	}
	if err := f.send(want, 1); err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(20 * time.Second)
	for !waits.full() { // the reader has one, the queue all that it may have
		if time.Now().After(end) {
			t.Fatal("nobody waits")
		}
		time.Sleep(time.Millisecond)
	}
	close(release)
	select {
	case <-all:
	case <-time.After(time.Until(end)):
		t.Fatal("datagrams were lost") // and got may still be written
	}
	if string(got) != string(want) {
		t.Errorf("got %v", got)
	}
	f.stop()
}

// full says that a stream's queue is full, and somebody waits.
func (b *backlog) full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.streams {
		w.mu.Lock()
		full := w.full
		w.mu.Unlock()
		if full {
			return true
		}
	}
	return false
}
