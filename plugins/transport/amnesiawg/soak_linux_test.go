package amnesiawg

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/conf"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
	"github.com/commucat/commucat/sdk/transport"
)

// crowd is the child process's environment: how many devices it registers, and how
// many of their keys it tells.
const crowd = "COMMUCAT_AMNESIAWG_CROWD"

// told is what the child says: how one device reaches it.
type told struct {
	To  transport.Endpoint
	Key []byte
}

// TestCrowdChild is the relay of TestBudgetCrowd, in a process of its own.
func TestCrowdChild(t *testing.T) {
	var registered, active int
	if n, _ := fmt.Sscan(os.Getenv(crowd), &registered, &active); n != 2 {
		t.Skip("only as the child of TestBudgetCrowd")
	}
	s := relay(t, t.TempDir(), map[string]any{"guests": registered})
	out := json.NewEncoder(os.Stdout)
	to := invite(t, s, transport.Guest{})
	// As a relay hands over the keys of its devices.
	var page []transport.Guest
	for i := range registered {
		private, public, err := conf.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		page = append(page, transport.Guest{ID: fmt.Sprint("device ", i), Public: public})
		if len(page) == transport.MaxRegister || i >= registered-active-1 {
			if err := s.(transport.Registrar).Register(t.Context(), page); err != nil {
				t.Fatal(err)
			}
			page = page[:0]
		}
		if i >= registered-active {
			if err := out.Encode(told{to, private}); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent has enough
}

// TestBudgetCrowd: many registered devices, some of them active, and strangers who flood the
// port. With COMMUCAT_SOAK=1 in full size, and then the figures are judged.
func TestBudgetCrowd(t *testing.T) {
	registered, active, rate, span, every := 300, 4, 2_000, 500*time.Millisecond, 5*time.Millisecond
	full := os.Getenv("COMMUCAT_SOAK") == "1"
	if full {
		registered, active, rate, span, every = 10_000, 100, 50_000, 8*time.Second, 100*time.Millisecond
	}
	child := exec.Command("/proc/self/exe", "-test.run=^TestCrowdChild$", "-test.timeout=5m")
	child.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", crowd, registered, active))
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_, _ = io.Copy(io.Discard, out)
		if err := child.Wait(); err != nil {
			t.Error(err)
		}
	})
	said := json.NewDecoder(bufio.NewReader(out))
	conns := make([]net.Conn, active)
	var to transport.Endpoint
	for i := range conns {
		var d told
		if err := said.Decode(&d); err != nil {
			t.Fatal(err)
		}
		to = d.To
		conns[i] = echoes(t, dialer(t, nil), d.To, d.Key)
	}
	e, err := conf.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	resident := memory(t, child.Process.Pid)
	t.Logf("%d registered, %d active: %d MiB resident", registered, active, resident>>20)
	if resident > 80<<20 && !raceDetector {
		t.Errorf("%d bytes resident", resident)
	}
	quiet := delays(t, conns, span, every)
	t.Logf("quiet: p50 %v, p99 %v of %d", at(quiet, 50), at(quiet, 99), len(quiet))
	for name, kind := range map[string]func() []byte{
		"random bytes":                   scrap,
		"initiations that know the link": func() []byte { return knock(e) },
	} {
		stop := flood(t, to, rate, kind)
		d := delays(t, conns, span, every)
		n := stop()
		t.Logf("%s, %.0f a second: p50 %v, p99 %v of %d", name, float64(n)/span.Seconds(), at(d, 50), at(d, 99), len(d))
		if full && at(d, 99) > 2*max(at(quiet, 99), time.Millisecond) {
			t.Errorf("%s: p99 %v, without %v", name, at(d, 99), at(quiet, 99))
		}
	}
	if n := memory(t, child.Process.Pid); n > 80<<20 && !raceDetector {
		t.Errorf("%d bytes resident after the floods", n)
	} else {
		t.Logf("after the floods: %d MiB resident", n>>20)
	}
}

// delays measures round trips of all streams.
func delays(t *testing.T, conns []net.Conn, span, every time.Duration) []time.Duration {
	t.Helper()
	var mu sync.Mutex
	var all []time.Duration
	var running sync.WaitGroup
	end := time.Now().Add(span)
	for i, c := range conns {
		running.Go(func() {
			b := make([]byte, 64)
			time.Sleep(every * time.Duration(i) / time.Duration(len(conns)))
			for time.Now().Before(end) {
				began := time.Now()
				_ = c.SetDeadline(began.Add(20 * time.Second))
				_, err := c.Write(b)
				if err == nil {
					_, err = io.ReadFull(c, b)
				}
				if err != nil {
					t.Error(err)
					return
				}
				d := time.Since(began)
				mu.Lock()
				all = append(all, d)
				mu.Unlock()
				time.Sleep(max(0, every-d))
			}
		})
	}
	running.Wait()
	slices.Sort(all)
	return all
}

func at(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)-1)*percent/100].Round(time.Microsecond)
}

// scrap is a datagram of who knows nothing.
func scrap() []byte {
	d := make([]byte, 300)
	_, _ = rand.Read(d)
	return d
}

// knock is an initiation of who knows the relay's public key and parameters, and has no
// key of its own there.
func knock(e conf.Endpoint) []byte {
	msg := make([]byte, obfs.InitiationSize)
	_, _ = rand.Read(msg)
	obfs.SetType(msg, e.Wire.Type[obfs.Initiation].Pick())
	obfs.NewMAC(obfs.MAC1Key(e.Server)).Sign(msg)
	return e.Wire.Handshake(obfs.Initiation, msg)
}

// flood sends datagrams at a rate, a second, until stop, which tells how many they were.
func flood(t *testing.T, to transport.Endpoint, rate int, kind func() []byte) (stop func() int64) {
	t.Helper()
	c, err := net.Dial("udp", net.JoinHostPort(to.Host, fmt.Sprint(to.Port)))
	if err != nil {
		t.Fatal(err)
	}
	all := make([][]byte, 512)
	for i := range all {
		all[i] = kind()
	}
	var sent atomic.Int64
	over := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		const tick = 2 * time.Millisecond
		clock := time.NewTicker(tick)
		defer clock.Stop()
		began := time.Now()
		for {
			for due := int64(time.Since(began).Seconds() * float64(rate)); sent.Load() < due; sent.Add(1) {
				_, _ = c.Write(all[sent.Load()%int64(len(all))]) // what does not fit is lost
			}
			select {
			case <-over:
				return
			case <-clock.C:
			}
		}
	})
	return func() int64 {
		close(over)
		running.Wait()
		c.Close()
		return sent.Load()
	}
}

// memory is what a process has in memory.
func memory(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	t.Fatal("no figure")
	return 0
}
