package syslog_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/ledger/syslog"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/plugintest/selfsigned"
)

// server is a collector that gives out the messages it reads.
type server struct {
	net.Listener
	messages chan string
	conns    chan net.Conn
	ca       string
}

func listen(t testing.TB) *server {
	t.Helper()
	c := selfsigned.New(t)
	pair, err := tls.X509KeyPair(c.Cert, c.Key)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	s := &server{Listener: ln, messages: make(chan string, 10_000), conns: make(chan net.Conn, 100), ca: c.CertFile}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.conns <- c
			go s.read(c)
		}
	}()
	t.Cleanup(func() { ln.Close() })
	return s
}

// read takes frames apart as RFC 5425 says.
func (s *server) read(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		text, err := r.ReadString(' ')
		if err != nil {
			return
		}
		n, err := strconv.Atoi(strings.TrimSuffix(text, " "))
		if err != nil {
			s.messages <- "bad length " + text
			return
		}
		m := make([]byte, n)
		if _, err := io.ReadFull(r, m); err != nil {
			return
		}
		s.messages <- string(m)
	}
}

func (s *server) config() map[string]any {
	return map[string]any{"address": s.Addr().String(), "ca": s.ca}
}

func (s *server) next(t *testing.T) string {
	t.Helper()
	select {
	case m := <-s.messages:
		return m
	case <-time.After(20 * time.Second):
		t.Fatal("no message came")
		return ""
	}
}

func open(t *testing.T, raw map[string]any) ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(t.Context(), syslog.Plugin, nil, raw)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(t.Context()) })
	return l
}

func TestConformance(t *testing.T) {
	plugintest.Ledger(t, syslog.Plugin, plugintest.LedgerOptions{Config: listen(t).config()})
}

var message = regexp.MustCompile(`^<85>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z - commucat \d+ test ` +
	`\[commucat@32473 seq="(\d+)" digest="[0-9a-f]{64}" prev="[0-9a-f]{64}" hash="[0-9a-f]{64}"\] \x{feff}(\{.*\})$`)

func TestMessage(t *testing.T) {
	s := listen(t)
	records := plugintest.LedgerRecords(t, ledger.Record{}, 2)
	if err := open(t, s.config()).Submit(t.Context(), records); err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		m := message.FindStringSubmatch(s.next(t))
		if m == nil || m[1] != fmt.Sprint(r.Seq) || m[2] != string(r.Metadata) {
			t.Errorf("%q", m)
		}
	}
}

// seqs reads messages until the one with the number last, and returns the set.
func (s *server) seqs(t *testing.T, last uint64) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for seen[fmt.Sprint(last)] == 0 {
		m := message.FindStringSubmatch(s.next(t))
		if m == nil {
			t.Fatal("not a message")
		}
		seen[m[1]]++
	}
	return seen
}

// Every connection is cut; what was on its way comes again.
func TestCut(t *testing.T) {
	s := listen(t)
	l := open(t, s.config())
	var after ledger.Record
	seen := map[string]bool{}
	for range 20 {
		records := plugintest.LedgerRecords(t, after, 5)
		after = records[len(records)-1]
		for {
			err := l.Submit(t.Context(), records)
			if err == nil {
				break
			}
			if !errors.Is(err, sdk.Unavailable) {
				t.Fatal(err)
			}
		}
		c := <-s.conns
		for m := range s.seqs(t, after.Seq) {
			seen[m] = true
		}
		if err := c.(*tls.Conn).NetConn().Close(); err != nil {
			t.Fatal(err)
		}
		// The next Submit finds the end or fails; in both cases a new connection
		// is made.
		drain := make([]byte, 1)
		_, _ = c.Read(drain)
		if len(s.conns) > 0 {
			t.Fatal("more than one connection")
		}
		waitEnded(t, l, &after, s)
	}
	for i := uint64(1); i <= after.Seq; i++ {
		if !seen[fmt.Sprint(i)] {
			t.Errorf("record %d is lost", i)
		}
	}
}

// waitEnded sends until a new connection stands.
func waitEnded(t *testing.T, l ledger.Ledger, after *ledger.Record, s *server) {
	t.Helper()
	for len(s.conns) == 0 {
		if err := l.Submit(t.Context(), plugintest.LedgerRecords(t, *after, 1)); err != nil && !errors.Is(err, sdk.Unavailable) {
			t.Fatal(err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	s := listen(t)
	raw := s.config()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	err := open(t, raw).Submit(t.Context(), plugintest.LedgerRecords(t, ledger.Record{}, 1))
	if !errors.Is(err, sdk.Unavailable) || !strings.Contains(err.Error(), raw["address"].(string)) {
		t.Error(err)
	}
}

// A collector whose certificate nobody vouches for gets nothing.
func TestStrangeCollector(t *testing.T) {
	s := listen(t)
	raw := s.config()
	raw["ca"] = selfsigned.New(t).CertFile
	err := open(t, raw).Submit(t.Context(), plugintest.LedgerRecords(t, ledger.Record{}, 1))
	if !errors.Is(err, sdk.Unavailable) || len(s.messages) > 0 {
		t.Errorf("%v, %d messages", err, len(s.messages))
	}
}

func TestConfig(t *testing.T) {
	for name, raw := range map[string]map[string]any{
		"no port": {"address": "collector.example"},
		"spaces":  {"address": "127.0.0.1:6514", "app": "a b"},
		"no key":  {"address": "127.0.0.1:6514", "cert": "/dev/null"},
		"missing": {},
	} {
		if _, err := ledger.Open(t.Context(), syslog.Plugin, nil, raw); sdk.KindOf(err) != sdk.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// rsyslog reads what we send.
func TestRsyslog(t *testing.T) {
	program, err := exec.LookPath("rsyslogd")
	if err != nil {
		t.Fatal("rsyslogd is missing: make deps installs it")
	}
	dir := t.TempDir()
	c := selfsigned.New(t)
	port := freePort(t)
	out := filepath.Join(dir, "out.log")
	conf := fmt.Sprintf(`global(workDirectory=%[1]q DefaultNetstreamDriver="ossl" DefaultNetstreamDriverCAFile=%[2]q
  DefaultNetstreamDriverCertFile=%[2]q DefaultNetstreamDriverKeyFile=%[3]q)
module(load="imtcp" StreamDriver.Name="ossl" StreamDriver.Mode="1" StreamDriver.Authmode="anon")
template(name="line" type="string" string="%%syslogfacility-text%% %%app-name%% %%msgid%% %%structured-data%% %%msg%%\n")
input(type="imtcp" port="%[4]d" address="127.0.0.1")
action(type="omfile" file=%[5]q template="line")
`, dir, c.CertFile, c.KeyFile, port, out)
	if err := os.WriteFile(filepath.Join(dir, "rsyslog.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(program, "-n", "-f", filepath.Join(dir, "rsyslog.conf"), "-i", filepath.Join(dir, "pid"))
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	records := plugintest.LedgerRecords(t, ledger.Record{}, 200)
	l := open(t, map[string]any{"address": fmt.Sprintf("127.0.0.1:%d", port), "ca": c.CertFile})
	limit := time.Now().Add(30 * time.Second)
	for {
		err := l.Submit(t.Context(), records)
		if err == nil {
			break
		}
		if time.Now().After(limit) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			t.Fatalf("%v\n%s", err, log.String())
		}
		time.Sleep(10 * time.Millisecond) // another process starts
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for len(lines) < len(records) && time.Now().Before(limit) {
		b, _ := os.ReadFile(out)
		lines = strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
		time.Sleep(10 * time.Millisecond) // another process writes the file
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if len(lines) != len(records) {
		t.Fatalf("%d lines of %d\n%s", len(lines), len(records), log.String())
	}
	for i, r := range records {
		want := fmt.Sprintf(`authpriv commucat test [commucat@32473 seq="%d"`, r.Seq)
		if !strings.HasPrefix(lines[i], want) || !strings.HasSuffix(lines[i], string(r.Metadata)) {
			t.Errorf("%q", lines[i])
		}
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}
