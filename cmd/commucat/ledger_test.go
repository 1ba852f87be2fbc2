package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/ledger/tlog"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
	"github.com/commucat/commucat/sdk/plugintest"
)

const bothLedgers = wide + "[ledger]\nbackends = [\"file\", \"tlog\"]\n"

// lengthen adds n records to a stopped relay's transparency log.
func lengthen(t *testing.T, dir string, n int) {
	t.Helper()
	l, err := ledger.Open(t.Context(), tlog.Plugin, sdk.NewEnv(sdk.EnvOptions{State: filepath.Join(dir, "plugins", "ledger-tlog")}), nil)
	if err != nil {
		t.Fatal(err)
	}
	head, err := l.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for page := range slices.Chunk(plugintest.LedgerRecords(t, head, n), 1000) {
		if err := l.Submit(t.Context(), page); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestLoadLedgerTlog: a relay with two ledgers, one of them the transparency log as a process,
// and what an auditor does with it: verify, prove, check, compare checkpoints. Then one
// byte flipped, one record removed, the tail cut, an older tree head put back: each is
// found and named.
func TestLoadLedgerTlog(t *testing.T) {
	if raceDetector {
		t.Skip("a plugin under the race detector needs more memory than it is allowed")
	}
	added(t, "commucat-ledger-tlog")
	dir := openFolder(t, bothLedgers)
	log := filepath.Join(dir, "plugins", "ledger-tlog", "log")
	if code := relay(t, dir).terminate(t); code != exitOK {
		t.Fatalf("the relay ended with %d", code)
	}
	ok := func(args ...string) string {
		t.Helper()
		code, out, notes := commucat(t, append([]string{"audit"}, args...)...)
		if code != exitOK {
			t.Fatalf("%v: %d %s %s", args, code, out, notes)
		}
		return out
	}
	if out := ok("verify", "--data", dir); strings.Count(out, "unbroken") != 2 {
		t.Fatalf("both ledgers: %s", out)
	}
	early := filepath.Join(t.TempDir(), "early")
	write(t, early, ok("checkpoint", "--data", dir))
	older := filepath.Join(t.TempDir(), "log")
	copyFolder(t, log, older)
	if code := relay(t, dir).terminate(t); code != exitOK {
		t.Fatalf("the relay ended with %d", code)
	}
	n := soak(1000, 100_000)
	lengthen(t, dir, n)
	t.Log(strings.TrimSpace(ok("verify", "--data", dir, "--ledger", "tlog")))
	t.Log(strings.TrimSpace(ok("checkpoint", "--data", dir, "--since", early)))

	// A proof is checked by somebody who has the log's key and nothing else.
	code, proof, record := commucat(t, "audit", "prove", "300", "--data", dir)
	if code != exitOK {
		t.Fatalf("prove: %d %s", code, record)
	}
	files := t.TempDir()
	write(t, filepath.Join(files, "proof"), proof)
	write(t, filepath.Join(files, "record"), record)
	key := strings.TrimSpace(read(t, filepath.Join(log, "key.pub")))
	if out := ok("check", "--key", key, filepath.Join(files, "proof"), filepath.Join(files, "record")); !strings.Contains(out, "record 300 of") {
		t.Errorf("check: %s", out)
	}
	write(t, filepath.Join(files, "record"), strings.Replace(record, "record", "rec0rd", 1))
	if code, _, notes := commucat(t, "audit", "check", "--key", key, filepath.Join(files, "proof"), filepath.Join(files, "record")); code != exitFailed {
		t.Errorf("a changed record: %d %s", code, notes)
	}

	second := filepath.Join(log, "tile", "entries", "001")
	partial, err := filepath.Glob(filepath.Join(log, "tile", "entries", "*.p", "*"))
	if err != nil || len(partial) == 0 {
		t.Fatalf("no partial bundle: %v", err)
	}
	last := partial[0]
	for _, p := range partial {
		if len(read(t, p)) > 0 && newer(t, p, last) {
			last = p
		}
	}
	good := read(t, second)
	for _, c := range []struct {
		name, file, content string
		want                string
	}{
		{"one byte flipped", second, good[:1000] + string(good[1000]^1) + good[1001:], `tile/entries/001: record 2\d\d was changed or removed`},
		{"one record removed", second, without(good, 10), `tile/entries/001: record 267 was changed or removed`},
		{"two records swapped", second, swapped(good, 20), `tile/entries/001: record 277 was changed or removed`},
		{"the tail cut", last, read(t, last)[:len(read(t, last))-20], `tile/entries/.*: .*record`},
		{"the tail gone", last, "", `tile/entries/`},
		{"an older head put back", filepath.Join(log, "checkpoint"), read(t, early), `the chain is broken at record \d+: it is missing, and this ledger took record \d+`},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := read(t, c.file)
			write(t, c.file, c.content)
			code, out, notes := commucat(t, "audit", "verify", "--data", dir, "--ledger", "tlog")
			if code != exitFailed || !regexp.MustCompile(c.want).MatchString(notes) || strings.Contains(out, "unbroken") {
				t.Errorf("code %d, %q, %q; want %s", code, out, notes, c.want)
			}
			t.Log(strings.TrimSpace(notes))
			write(t, c.file, before)
		})
	}
	ok("verify", "--data", dir, "--ledger", "tlog")

	// The whole log rolled back, with the checkpoint that it had: nothing in it is wrong. The
	// relay knows, and gives it what it lost.
	if err := os.RemoveAll(log); err != nil {
		t.Fatal(err)
	}
	copyFolder(t, older, log)
	code, out, notes := commucat(t, "audit", "verify", "--data", dir, "--ledger", "tlog")
	if code != exitFailed || !strings.Contains(notes, "this ledger took record") || out != "" {
		t.Errorf("a log that was rolled back: %d %q %q", code, out, notes)
	}
	srv := relay(t, dir)
	if code := srv.terminate(t); code != exitOK || !strings.Contains(srv.said(), "it was rolled back or replaced") {
		t.Errorf("the relay ended with %d: %s", code, srv.said())
	}
	if out := ok("verify", "--data", dir); strings.Count(out, "unbroken\n") != 2 {
		t.Errorf("after the relay gave it what it lacked: %s", out)
	}
}

// copyFolder keeps the owners: a plugin has a user of its own.
func copyFolder(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
}

// swapped exchanges the record number n of a bundle and the one after it.
func swapped(bundle string, n int) string {
	length := func(at int) int { return 2 + int(binary.BigEndian.Uint16([]byte(bundle[at:]))) }
	at := 0
	for range n {
		at += length(at)
	}
	mid := at + length(at)
	end := mid + length(mid)
	return bundle[:at] + bundle[mid:end] + bundle[at:mid] + bundle[end:]
}

// without takes the record number n out of a bundle.
func without(bundle string, n int) string {
	at := 0
	for range n {
		at += 2 + int(binary.BigEndian.Uint16([]byte(bundle[at:])))
	}
	return bundle[:at] + bundle[at+2+int(binary.BigEndian.Uint16([]byte(bundle[at:]))):]
}

func newer(t *testing.T, a, b string) bool {
	t.Helper()
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	if errX != nil || errY != nil {
		t.Fatal(errX, errY)
	}
	return x.ModTime().After(y.ModTime()) || x.ModTime().Equal(y.ModTime()) && x.Size() > y.Size()
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// admin is the answer of a running relay to its operator.
func admin(t *testing.T, dir, path string) string {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "admin.sock"))
	}}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var b strings.Builder
	if err := res.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// metric reads one figure of a running relay.
func metric(t *testing.T, dir, name string) int {
	t.Helper()
	for line := range strings.Lines(admin(t, dir, "/metrics")) {
		if figure, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			n, err := strconv.Atoi(figure)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// TestLoadLedgerHangs: the process of one of two ledgers is stopped, then killed. Accounts
// and messages go on meanwhile, the metric says how far it is behind, and in the end both
// ledgers have every record.
func TestLoadLedgerHangs(t *testing.T) {
	if raceDetector {
		t.Skip("a plugin under the race detector needs more memory than it is allowed")
	}
	added(t, "commucat-ledger-tlog")
	dir := openFolder(t, bothLedgers)
	srv := relay(t, dir)
	const behind = `commucat_ledger_behind_records{ledger="tlog"}`
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not in time: %s\n%s", what, srv.said())
			}
		}
	}
	until("the beginning is taken", func() bool { return metric(t, dir, behind) == 0 })
	pid := func() int {
		_, out, _ := commucat(t, "plugin", "list", "--json", "--data", dir)
		m := regexp.MustCompile(`"pid":(\d+)`).FindStringSubmatch(out)
		if m == nil {
			return 0
		}
		n, _ := strconv.Atoi(m[1])
		return n
	}
	first := pid()
	if first == 0 {
		t.Fatal("no process of the ledger")
	}
	if err := syscall.Kill(first, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	profiles := []string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")}
	for i, profile := range profiles {
		if code, _, notes := commucat(t, "client", "register", "--server", srv.Invite, "--handle", fmt.Sprint("user", i), "--profile", profile); code != exitOK {
			t.Fatalf("register: %d %s", code, notes)
		}
	}
	for i := range 20 {
		if code, _, notes := commucat(t, "link", "create", "--data", dir); code != exitOK {
			t.Fatalf("link %d: %d %s", i, code, notes)
		}
	}
	for i := range 3 {
		if code, _, notes := commucat(t, "client", "send", "--profile", profiles[0], "--to", "user1", fmt.Sprint("text ", i)); code != exitOK {
			t.Fatalf("send: %d %s", code, notes)
		}
	}
	if n := metric(t, dir, behind); n < 20 && syscall.Kill(first, 0) == nil {
		t.Errorf("%d records behind while its process stands still", n)
	}
	if n := metric(t, dir, `commucat_ledger_behind_records{ledger="file"}`); n > 5 {
		t.Errorf("the other ledger is %d records behind", n)
	}
	_ = syscall.Kill(first, syscall.SIGKILL) // it may have been replaced already
	until("another process takes what waited", func() bool { return pid() != first && metric(t, dir, behind) == 0 })
	if code := srv.terminate(t); code != exitOK {
		t.Fatalf("the relay ended with %d: %s", code, srv.said())
	}
	code, out, notes := commucat(t, "audit", "verify", "--data", dir, "--json")
	if code != exitOK {
		t.Fatalf("verify: %d %s %s", code, out, notes)
	}
	var heads []string
	for line := range strings.Lines(out) {
		var rep struct {
			Head    string
			Records int
		}
		if err := json.Unmarshal([]byte(line), &rep); err != nil || rep.Records < 25 {
			t.Fatalf("%s %v", line, err)
		}
		heads = append(heads, rep.Head)
	}
	if len(heads) != 2 || heads[0] != heads[1] {
		t.Errorf("the ledgers end differently: %s", out)
	}
}
