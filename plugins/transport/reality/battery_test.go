package reality

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The battery sends the same probe to the bare cover and to the port that wears it, and
// compares everything that the prober can see except time: bytes (what is random or
// encrypted by its length), alerts, and how and when in the exchange the connection
// ends. Time is reported.

// probe is what one connection does. Steps are sent one after the other; a step with
// pause is sent as single small writes.
type probe struct {
	kind  string
	steps []step
	// then says what follows: the end of the stream at once, or a wait for
	// silence before it.
	endAtOnce bool
}

type step struct {
	data   []byte
	pieces int // 0 is one write
}

func send(b ...[]byte) []step { return []step{{data: bytes.Join(b, nil)}} }

// outcome is what a prober saw.
type outcome struct {
	seen string // records, or other bytes
	end  string
	took time.Duration // to the first byte or end
}

// Silence of hushTime is an end; a first answer is given answerTime.
const (
	hushTime   = 150 * time.Millisecond
	answerTime = 100 * time.Millisecond
)

// maker makes a probe; what is random in it depends on the seed where both ends must get
// the same.
type maker func(seed uint64) probe

func (p probe) run(addr string) (o outcome) {
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		return outcome{end: "dial: " + err.Error()}
	}
	c := raw.(*net.TCPConn)
	defer c.Close()
	began := time.Now()
	var got bytes.Buffer
	for i, s := range p.steps {
		if i > 0 {
			// What follows a hello is sent when the answer is there.
			drain(c, &got, answerTime, &o.took, began)
			drain(c, &got, answerTime/4, &o.took, began)
		}
		size := max(1, len(s.data))
		if s.pieces > 0 {
			size = (len(s.data) + s.pieces - 1) / s.pieces
		}
		for piece := range slices.Chunk(s.data, size) {
			if _, err := c.Write(piece); err != nil {
				break // how it ended is read below
			}
			if s.pieces > 0 {
				time.Sleep(time.Millisecond) // so that pieces arrive as such
			}
		}
	}
	var ends []string
	if !p.endAtOnce {
		end := drain(c, &got, hushTime, &o.took, began)
		if end == "fin" {
			// Has it gone, or only ended its own side?
			_, _ = c.Write([]byte{0})
			if gone, _ := awaitGone(c, time.Now().Add(2*hushTime)); gone {
				end = "fin, gone"
			}
		}
		ends = append(ends, end)
	}
	if len(ends) == 0 || ends[0] == "open" {
		_ = c.CloseWrite()
		ends = append(ends, drain(c, &got, 5*time.Second, &o.took, began))
	}
	o.end = strings.Join(ends, ", ")
	o.seen = describe(got.Bytes(), p)
	return o
}

func drain(c net.Conn, got *bytes.Buffer, hush time.Duration, took *time.Duration, began time.Time) string {
	buf := make([]byte, 16<<10)
	for {
		_ = c.SetReadDeadline(time.Now().Add(hush))
		n, err := c.Read(buf)
		if *took == 0 && (n > 0 || err != nil && !isTimeout(err)) {
			*took = time.Since(began)
		}
		got.Write(buf[:n])
		switch {
		case err == nil && hush == answerTime:
			return "answered"
		case err == nil:
		case isTimeout(err):
			return "open"
		case errors.Is(err, io.EOF):
			return "fin"
		case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
			return "rst"
		default:
			return err.Error()
		}
	}
}

// describe writes records as type, version and length, what is in clear as far as it
// is not random, and other bytes as they are.
func describe(b []byte, p probe) string {
	var out []string
	for len(b) > 0 {
		if len(b) < recordHeader || b[0] < 20 || b[0] > 23 || b[1] != 3 || len(b) < recordHeader+recordSize(b) {
			text := string(b)
			if i := strings.Index(text, "Date: "); i >= 0 {
				text = text[:i] + text[min(len(text), i+len("Date: Mon, 02 Jan 2006 15:04:05 GMT")):]
			}
			out = append(out, fmt.Sprintf("%q", text))
			break
		}
		n := recordHeader + recordSize(b)
		line := fmt.Sprintf("%d %x %d", b[0], b[1:3], n-recordHeader)
		switch body := b[recordHeader:n]; b[0] {
		case typeAlert, typeChangeCipherSpec:
			line += fmt.Sprintf(" %x", body[:min(len(body), 2)])
		case typeHandshake:
			line += describeHandshake(body, p)
		}
		out = append(out, line)
		b = b[n:]
	}
	return strings.Join(out, "\n")
}

func describeHandshake(body []byte, p probe) string {
	h, ok := parseServerHello(body)
	if !ok {
		if len(body) > 0 && body[0] == 11 { // Certificate in clear
			return fmt.Sprintf(" certificate %x", sha256.Sum256(body))
		}
		return fmt.Sprintf(" message %d", body[:min(1, len(body))])
	}
	session := body[sessionOffset : sessionOffset+int(body[sessionOffset-1])]
	echoed := false
	for _, s := range p.steps {
		echoed = echoed || bytes.Contains(s.data, session)
	}
	rest := body[sessionOffset+len(session):]
	masked := bytes.ReplaceAll(rest, h.share, bytes.Repeat([]byte{'k'}, len(h.share)))
	if !h.tls13 {
		return fmt.Sprintf(" ServerHello 1.2 suite %x", h.suite)
	}
	return fmt.Sprintf(" ServerHello retry %v echo %v %x", h.retry, echoed, sha256.Sum256(masked))
}

func (o outcome) same(q outcome) bool { return o.seen == q.seen && o.end == q.end }

// tally is the battery's account.
type tally struct {
	mu          sync.Mutex
	bare, worn  map[string][]time.Duration
	runs        atomic.Int64
	differences map[string]string
}

// compare runs a probe made twice, at the bare cover and at the port. A difference
// counts when the port never answers as the cover has done in some tries: nobody's clock
// is exact, a reset may overtake the last words, and whether a server that closes over
// unread bytes resets depends on how many had arrived.
func (y *tally) compare(kind maker, seed uint64, bare, worn string, tries int) {
	var report, name string
	var covers, ports []outcome
	for range tries {
		p, q := kind(seed), kind(seed)
		name = p.kind
		a, b := p.run(bare), q.run(worn)
		y.runs.Add(1)
		y.mu.Lock()
		y.bare[p.kind], y.worn[p.kind] = append(y.bare[p.kind], a.took), append(y.worn[p.kind], b.took)
		y.mu.Unlock()
		covers, ports = append(covers, a), append(ports, b)
		if slices.ContainsFunc(covers, b.same) || slices.ContainsFunc(ports, a.same) {
			return
		}
		report = fmt.Sprintf("cover (%s):\n%s\nport (%s):\n%s", a.end, a.seen, b.end, b.seen)
	}
	y.mu.Lock()
	y.differences[name] = report
	y.mu.Unlock()
}

// soak is whether the largest counts are asked for.
func soak() bool { return os.Getenv("COMMUCAT_SOAK") != "" }

// TestLoadProbeBattery sends 10,000 probes in all, each kind many times with other
// random bytes; with the race detector each kind once to each cover.
func TestLoadProbeBattery(t *testing.T) {
	all := covers(t)
	count := 10_000/len(all) + 1
	switch {
	case raceDetector:
		count = 0
	case soak():
		count *= 10
	}
	for name, cover := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bare := cover
			if cover == coverSelf {
				bare = bareOwn(t)
			}
			raw := baseConfig(t, cover)
			raw["strangers"] = 4096
			r := startServer(t, raw)
			r.echoAll()
			kinds := probeKinds(t, r)
			if len(kinds) < 60 {
				t.Fatalf("only %d kinds", len(kinds))
			}
			total := max(count, len(kinds))
			y := &tally{bare: map[string][]time.Duration{}, worn: map[string][]time.Duration{}, differences: map[string]string{}}
			var wg sync.WaitGroup
			next := make(chan int)
			for range 16 { // nearly all of them wait for silence
				wg.Go(func() {
					for i := range next {
						y.compare(kinds[i%len(kinds)], uint64(i), bare, r.addr, 4)
					}
				})
			}
			for i := range total {
				next <- i
			}
			close(next)
			wg.Wait()
			for kind, text := range y.differences {
				// Once more, alone.
				for _, make := range kinds {
					if make(0).kind != kind {
						continue
					}
					alone := &tally{bare: map[string][]time.Duration{}, worn: map[string][]time.Duration{}, differences: map[string]string{}}
					alone.compare(make, 0, bare, r.addr, 12)
					if again, still := alone.differences[kind]; still {
						t.Errorf("%s\n%s", kind, again)
					} else {
						t.Logf("%s differed under load only:\n%s", kind, text)
					}
				}
			}
			t.Logf("%d kinds, %d comparisons", len(kinds), y.runs.Load())
			y.times(t)
			if n := r.ln.figures.entered.Load(); n != 1 {
				t.Errorf("%d clients were let in, want the one whose hello was captured", n)
			}
		})
	}
}

// times reports how much later the port answers.
func (y *tally) times(t *testing.T) {
	var bare, worn []time.Duration
	for kind := range y.bare {
		bare, worn = append(bare, y.bare[kind]...), append(worn, y.worn[kind]...)
	}
	slices.Sort(bare)
	slices.Sort(worn)
	at := func(d []time.Duration, q float64) time.Duration { return d[int(q*float64(len(d)-1))] }
	for _, q := range []float64{0.1, 0.5, 0.9} {
		t.Logf("first answer, quantile %.1f: cover %v, port %v", q, at(bare, q), at(worn, q))
	}
}

// bareOwn serves what cover = "self" serves, on a port.
func bareOwn(t testing.TB) string {
	t.Helper()
	o := newOwn(pageHandler(), testAuthority().pair, testLog(t))
	t.Cleanup(o.close)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = o.server.ServeTLS(ln, "", ""); close(done) }()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return ln.Addr().String()
}

// capture lets one client in and keeps what it sent first.
func capture(t testing.TB, r *rig) []byte {
	t.Helper()
	var first []byte
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := (&dialer{now: time.Now}).dial(ctx, r.endpoint(), withTap(&first))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := echoOver(c, 1000); err != nil {
		t.Fatal(err)
	}
	return first
}
