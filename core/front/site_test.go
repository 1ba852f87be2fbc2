package front

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// deadlines records what a response controller is told.
type deadlines struct {
	*httptest.ResponseRecorder
	set []time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.set = append(d.set, t)
	return nil
}

// TestW31BodyOnTheSite: a body has half a minute and a second more for every
// 4 KiB; at its end the deadline is lifted, so that a long answer goes on.
func TestW31BodyOnTheSite(t *testing.T) {
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	begin := time.Now()
	h := Site(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b := make([]byte, 40960)
		_, _ = io.ReadFull(r.Body, b)
		_, _ = io.ReadAll(r.Body)
	}))
	if inner, ok := Site(h).(site); !ok || inner.handler == nil {
		t.Fatal("not wrapped")
	} else if _, twice := inner.handler.(site); twice {
		t.Error("wrapped twice")
	}
	h.ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader(strings.Repeat("a", 40960))))
	if len(w.set) < 3 {
		t.Fatalf("%d deadlines", len(w.set))
	}
	near := func(got time.Time, after time.Duration) bool {
		d := got.Sub(begin) - after
		return d > -time.Second && d < 2*time.Second
	}
	if !near(w.set[0], 30*time.Second) || !near(w.set[len(w.set)-2], 40*time.Second) || !w.set[len(w.set)-1].IsZero() {
		t.Errorf("deadlines %v", w.set)
	}
	w.set = nil
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if len(w.set) != 0 {
		t.Error("a request without a body was given a deadline")
	}
}

// TestT48NothingStaysBehind: connect and close in several ways, many times.
func TestT48NothingStaysBehind(t *testing.T) {
	s := start(t, Options{})
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}
	cycle := func(n int) {
		for i := range n {
			c, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			switch i % 4 {
			case 1:
				_ = tls.Client(c, conf).Handshake()
			case 2:
				_, _ = io.WriteString(c, "GET / HTTP/1.1\r\n\r\n")
			case 3:
				k := tls.Client(c, conf)
				_, _ = io.WriteString(k, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				_, _ = k.Read(make([]byte, 64))
			}
			c.Close()
		}
	}
	cycle(40)
	before := descriptors(t)
	cycle(400)
	for deadline := time.Now().Add(30 * time.Second); descriptors(t) > before+4; {
		if time.Now().After(deadline) {
			t.Fatalf("%d descriptors, %d before", descriptors(t), before)
		}
		time.Sleep(10 * time.Millisecond) // the server's closes have no event to wait for
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc")
	}
	return len(list)
}
