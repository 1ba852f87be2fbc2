package amnesiawg

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

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
	child, in, out := again(t, "TestCrowdChild", fmt.Sprintf("%s=%d %d", crowd, registered, active))
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
	sink, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	elsewhere := sink.LocalAddr().(*net.UDPAddr).AddrPort()
	here := netip.AddrPortFrom(netip.MustParseAddr(e.Host), e.Ports[0])
	var without time.Duration
	for _, phase := range []struct {
		name string
		to   netip.AddrPort
		kind func() []byte
	}{
		{"no flood", here, nil},
		// What the flood itself takes of the processors.
		{"random bytes to a socket that nobody reads", elsewhere, scrap},
		{"random bytes", here, scrap},
		{"initiations that know the link", here, func() []byte { return knock(e) }},
	} {
		stop := func() int { return 0 }
		if phase.kind != nil {
			stop = flood(t, phase.to, rate, phase.kind)
		}
		before := processor(t, child.Process.Pid)
		d := delays(t, conns, span, every)
		used := processor(t, child.Process.Pid) - before
		n := stop()
		t.Logf("%s, %.0f a second: p50 %v, p99 %v of %d; relay's process %.0f %% of a core",
			phase.name, float64(n)/span.Seconds(), at(d, 50), at(d, 99), len(d), 100*used.Seconds()/span.Seconds())
		if phase.kind == nil {
			without = at(d, 99)
		} else if full && phase.to == here && at(d, 99) > 2*max(without, time.Millisecond) {
			t.Errorf("%s: p99 %v, without %v", phase.name, at(d, 99), without)
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

// again starts this program once more, for one test with an environment of its own.
func again(t *testing.T, test, environment string) (child *exec.Cmd, in io.WriteCloser, out io.ReadCloser) {
	t.Helper()
	child = exec.Command("/proc/self/exe", "-test.run=^"+test+"$", "-test.timeout=5m")
	child.Env = append(os.Environ(), environment)
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if out, err = child.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	return child, in, out
}

// flooder is the environment of the process that floods: where to, how many a second.
const flooder = "COMMUCAT_AMNESIAWG_FLOOD"

// flood has another process send datagrams at a rate, a second, until stop, which tells
// how many they were.
func flood(t *testing.T, to netip.AddrPort, rate int, kind func() []byte) (stop func() int) {
	t.Helper()
	child, in, out := again(t, "TestFloodChild", fmt.Sprintf("%s=%s %d", flooder, to, rate))
	say := json.NewEncoder(in)
	for range floodKinds {
		if err := say.Encode(kind()); err != nil {
			t.Fatal(err)
		}
	}
	said := json.NewDecoder(bufio.NewReader(out))
	var began int
	if err := said.Decode(&began); err != nil {
		t.Fatal(err)
	}
	return func() int {
		in.Close()
		var sent int
		if err := said.Decode(&sent); err != nil {
			t.Error(err)
		}
		_, _ = io.Copy(io.Discard, out)
		if err := child.Wait(); err != nil {
			t.Error(err)
		}
		return sent
	}
}

// floodKinds is how many datagrams are sent again and again.
const floodKinds = 512

// TestFloodChild is a stranger. It sends as cheaply as it can: what it takes of the
// processors the devices do not have.
func TestFloodChild(t *testing.T) {
	var to string
	var rate int
	if n, _ := fmt.Sscan(os.Getenv(flooder), &to, &rate); n != 2 {
		t.Skip("only as a child of TestBudgetCrowd")
	}
	said, say := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	iovs := make([]unix.Iovec, floodKinds)
	msgs := make([]struct {
		hdr unix.Msghdr
		len uint32
	}, floodKinds)
	for i := range msgs {
		var d []byte
		if err := said.Decode(&d); err != nil {
			t.Fatal(err)
		}
		iovs[i].Base = &d[0]
		iovs[i].SetLen(len(d))
		msgs[i].hdr.Iov = &iovs[i]
		msgs[i].hdr.SetIovlen(1)
	}
	at := netip.MustParseAddrPort(to)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
	if err := say.Encode(0); err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	clock := time.NewTicker(2 * time.Millisecond)
	defer clock.Stop()
	sent := 0
	for began := time.Now(); ; {
		for due := int(time.Since(began).Seconds() * float64(rate)); sent < due; {
			first := sent % floodKinds
			n := min(due-sent, floodKinds-first)
			// What does not fit is lost.
			_, _, _ = unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[first])), uintptr(n), 0, 0, 0)
			sent += n
		}
		select {
		case <-over:
			if err := say.Encode(sent); err != nil {
				t.Fatal(err)
			}
			return
		case <-clock.C:
		}
	}
}

// processor is how long a process has run.
func processor(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// After the name, which may hold anything: the 12th and 13th field, in 1/100 s.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var user, system int64
	if n, _ := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); n != 2 {
		t.Fatal("no figure")
	}
	return time.Duration(user+system) * 10 * time.Millisecond
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
