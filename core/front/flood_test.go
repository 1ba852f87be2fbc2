package front

import (
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/commucat/commucat/core/admission"
	"github.com/commucat/commucat/core/metrics"
)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func serialOf(t testing.TB, addr string) int64 {
	t.Helper()
	c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Error(err)
		return 0
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

// TestReloadUnderLoad: changed files are used without a failed handshake; files
// that do not fit keep the old certificate.
func TestReloadUnderLoad(t *testing.T) {
	dir := t.TempDir()
	m := metrics.New(metrics.Options{})
	files, err := OpenFiles([]Pair{writePair(t, dir, 1)}, nil, m)
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, Options{Certificates: files, Metrics: m})
	var seen [4]atomic.Int64
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					seen[serialOf(t, s.addr)].Add(1)
				}
			}
		})
	}
	wait := func(serial int) {
		t.Helper()
		deadline := time.After(30 * time.Second)
		for before := seen[serial].Load(); seen[serial].Load() < before+3; {
			select {
			case <-deadline:
				t.Fatalf("certificate %d is not used", serial)
			case <-time.After(time.Millisecond):
			}
		}
	}
	wait(1)
	p := writePair(t, dir, 2)
	wait(2)
	if err := os.WriteFile(p.Certificate, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := files.Reload(); err == nil {
		t.Error("junk was accepted")
	}
	wait(2)
	writePair(t, dir, 3)
	wait(3)
	close(stop)
	load.Wait()
	if seen[0].Load() != 0 {
		t.Errorf("%d failed handshakes", seen[0].Load())
	}
}

func TestCertificateFileErrors(t *testing.T) {
	dir := t.TempDir()
	for _, pairs := range [][]Pair{nil, {{dir + "/none", dir + "/none"}}} {
		if _, err := OpenFiles(pairs, nil, nil); err == nil {
			t.Errorf("%v accepted", pairs)
		}
	}
	p := writePair(t, dir, 1)
	if _, err := OpenFiles([]Pair{{p.Key, p.Certificate}}, nil, nil); err == nil || strings.Contains(err.Error(), "BEGIN") {
		t.Errorf("got %v", err)
	}
}

// TestT45RefusedBeforeTLS: what admission refuses is closed without a byte and
// leaves nothing behind; another source goes on being served.
func TestT45RefusedBeforeTLS(t *testing.T) {
	g := admission.New(admission.Options{Narrow: admission.Budget{Burst: 20, Rate: .001}, Wide: admission.Budget{Burst: 1e6, Rate: 1e6}})
	s := start(t, Options{Admission: g})
	dial := func(from string) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}
		return d.Dial("tcp", s.addr)
	}
	answered := 0
	for range 200 {
		c, err := dial("127.0.0.9")
		if err != nil {
			continue
		}
		t := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
		_ = t.SetDeadline(time.Now().Add(30 * time.Second))
		if t.Handshake() == nil {
			answered++
		}
		c.Close()
	}
	if answered != 20 {
		t.Errorf("%d handshakes, want 20", answered)
	}
	c, err := dial("127.0.0.10")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake(); err != nil {
		t.Errorf("honest client: %v", err)
	}
}

// TestBudgetT42MemoryOfStrangers: connections that only opened TCP, and connections
// after TLS, stay within their share.
func TestBudgetT42MemoryOfStrangers(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector multiplies memory")
	}
	s := start(t, Options{Admission: admission.New(admission.Options{})})
	const n = 400
	for _, tc := range []struct {
		name  string
		limit int64
		open  func() (net.Conn, error)
	}{
		{"tcp only", 14 << 10, func() (net.Conn, error) { return net.Dial("tcp", s.addr) }},
		// Both ends live in this process: a TLS client costs about as much again.
		{"after tls, both ends", 2 * 40 << 10, func() (net.Conn, error) {
			return tls.Dial("tcp", s.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
		}},
	} {
		before := memory()
		var conns []net.Conn
		for range n {
			c, err := tc.open()
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
		}
		time.Sleep(200 * time.Millisecond) // the server's side has no event to wait for
		each := (memory() - before) / n
		t.Logf("%s: %d bytes each", tc.name, each)
		if each > tc.limit {
			t.Errorf("%s: %d bytes each, limit %d", tc.name, each, tc.limit)
		}
		for _, c := range conns {
			c.Close()
		}
	}
}

func memory() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// TestForeignClients speaks with curl and openssl where they are installed.
func TestForeignClients(t *testing.T) {
	s := start(t, Options{})
	run := func(stdin string, args ...string) (string, error) {
		if _, err := exec.LookPath(args[0]); err != nil {
			t.Skip(args[0] + " is not installed")
		}
		c := exec.Command(args[0], args[1:]...)
		c.Stdin = strings.NewReader(stdin)
		out, err := c.CombinedOutput()
		return string(out), err
	}
	t.Run("curl http/2", func(t *testing.T) {
		out, err := run("", "curl", "-sk", "--http2", "-w", "%{http_version} %{http_code}", "https://"+s.addr+"/")
		if err != nil || out != "site GET\n2 200" {
			t.Errorf("%q %v", out, err)
		}
	})
	t.Run("curl http/1.1", func(t *testing.T) {
		out, err := run("", "curl", "-sk", "--http1.1", "-d", "x", "-w", "%{http_version} %{http_code}", "https://"+s.addr+"/connect")
		if err != nil || out != "site POST\n1.1 404" {
			t.Errorf("%q %v", out, err)
		}
	})
	t.Run("openssl 1.3", func(t *testing.T) {
		out, _ := run("", "openssl", "s_client", "-connect", s.addr, "-tls1_3", "-alpn", "h2,http/1.1", "-servername", "relay.example")
		if !strings.Contains(out, "TLSv1.3") || !strings.Contains(out, "ALPN protocol: h2") {
			t.Errorf("%s", out)
		}
	})
	t.Run("openssl 1.2", func(t *testing.T) {
		out, err := run("", "openssl", "s_client", "-connect", s.addr, "-tls1_2")
		if err == nil || !strings.Contains(out, "protocol version") {
			t.Errorf("%v %s", err, out)
		}
	})
	t.Run("openssl http/1.1", func(t *testing.T) {
		out, _ := run("GET / HTTP/1.0\r\n\r\n", "openssl", "s_client", "-connect", s.addr, "-quiet", "-ign_eof")
		if !strings.Contains(out, "200 OK") || !strings.Contains(out, "site GET") {
			t.Errorf("%s", out)
		}
	})
}

// TestKeyAgreement: the hybrid group is preferred.
func TestKeyAgreement(t *testing.T) {
	s := start(t, Options{})
	c, err := tls.Dial("tcp", s.addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if st := c.ConnectionState(); st.CurveID != tls.X25519MLKEM768 || st.Version != tls.VersionTLS13 {
		t.Errorf("%v %x", st.CurveID, st.Version)
	}
}

// TestStalledReader: a client that reads nothing loses its connection.
func TestStalledReader(t *testing.T) {
	ended := make(chan error, 1)
	s := start(t, Options{StallTimeout: 300 * time.Millisecond, Cover: endless(ended)})
	c, err := tls.Dial("tcp", s.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("the writer is held for ever")
	}
}
