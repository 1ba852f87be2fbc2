package main

import (
	"crypto/tls"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/commucat/commucat/core/pluginhost"
	"github.com/commucat/commucat/core/pluginhost/sandbox"
	"github.com/commucat/commucat/sdk/link"
)

// withReality builds the plugin and adds it.
func withReality(t *testing.T) {
	t.Helper()
	if k := sandbox.Probe(); !k.Complete() {
		t.Skipf("this kernel has no %s", k.Missing())
	}
	dir, err := os.MkdirTemp("", "cp-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "commucat-transport-reality")
	if b, err := exec.Command("go", "build", "-o", binary, "github.com/commucat/commucat/cmd/commucat-transport-reality").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	t.Setenv("COMMUCAT_PLUGINS", dir)
	if code, _, notes := commucat(t, "plugin", "add", binary); code != exitOK {
		t.Fatalf("add: %d %s", code, notes)
	}
}

// TestLoadReality: the demonstration draws what reality needs, and a cover is judged before
// a relay has it.
func TestLoadReality(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("builds a plugin, which needs more memory under the race detector than it is allowed")
	}
	withReality(t)
	code, out, notes := commucat(t, "demo", "--transports", "reality", "--messages", "20", "--json")
	if code != exitOK || !strings.Contains(out, `{"transport":"reality","ok":true,`) {
		t.Errorf("demo: %d %s %s", code, out, notes)
	}
	old := httptest.NewUnstartedServer(nil)
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS12}
	old.StartTLS()
	defer old.Close()
	code, _, notes = commucat(t, "transport", "test", "reality", "--cover", old.Listener.Addr().String(), "--set", `server_names=["example.com"]`)
	if code != exitFailed || !strings.Contains(notes, "is unfit") || !strings.Contains(notes, "does not speak TLS 1.3") || !strings.Contains(notes, "choose another") {
		t.Errorf("TLS 1.2: %d %s", code, notes)
	}
	poor := httptest.NewUnstartedServer(http.NotFoundHandler())
	poor.EnableHTTP2 = true
	poor.StartTLS()
	defer poor.Close()
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: poor.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, notes = commucat(t, "transport", "test", "reality", "--cover", poor.Listener.Addr().String(), "--set", `server_names=["example.com"]`, "--set", `roots="`+roots+`"`)
	if code != exitOK || !strings.Contains(notes, "answers with status 404") {
		t.Errorf("a risk: %d %s", code, notes)
	}
	code, _, notes = commucat(t, "transport", "test", "reality", "--cover", old.Listener.Addr().String())
	if code != exitConfig || !strings.Contains(notes, "server_names") {
		t.Errorf("without a name: %d %s", code, notes)
	}
}

// TestLoadRealityKilled: kill -9 of the confined plugin is no crash of the machine. Who
// listens comes back and who sends gets through, long before the pause after such a crash
// would be over; and the plugin knows its own port when it is named as the cover.
func TestLoadRealityKilled(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("builds a plugin, which needs more memory under the race detector than it is allowed")
	}
	withReality(t)
	round, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = round.Close()
	config := `[transport.reality]
listen = "127.0.0.1:0"
server_names = ["relay.test"]
force = true
certificate = "cover.crt"
key = "file:cover.key"
window = "2m"
[transport.round]
plugin = "reality"
listen = "` + round.Addr().String() + `"
cover = "` + round.Addr().String() + `"
server_names = ["relay.test"]
force = true
`
	dir := dataFolder(t, wide+config)
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil { // its process has another user
		t.Fatal(err)
	}
	openssl := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "cover.key", "-out", "cover.crt",
		"-days", "90", "-subj", "/", "-addext", "subjectAltName=DNS:relay.test")
	openssl.Dir = dir
	if out, err := openssl.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	srv := relay(t, dir)
	until := func(name string, ok func(pluginhost.State) bool) (pid int) {
		t.Helper()
		for end := time.Now().Add(40 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			state := srv.plugins(t)[name]
			if ok(state) {
				return state.PID
			}
			if time.Now().After(end) {
				t.Fatalf("not in time: %+v\n%s", state, srv.said())
			}
		}
	}
	well := func(s pluginhost.State) bool { return s.State == pluginhost.Running && s.Degraded == "" }
	pid := until("reality", well)
	until("round", func(s pluginhost.State) bool { return strings.Contains(s.Degraded, "it is this port itself") })
	invite := srv.invitation(t, 5, time.Hour)
	alice, bob := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	for handle, profile := range map[string]string{"alice": alice, "bob": bob} {
		if code, out, notes := commucat(t, "client", "register", "--server", invite, "--handle", handle, "--profile", profile, "--transport", "reality"); code != exitOK || !strings.Contains(out, "by reality") {
			t.Fatalf("register %s: %d %s %s", handle, code, out, notes)
		}
	}
	send := func(text string) {
		t.Helper()
		if code, _, notes := commucat(t, "client", "send", "--profile", alice, "--to", "bob", "--transport", "reality", "--timeout", "40s", text); code != exitOK {
			t.Errorf("send %s: %d %s\n%s", text, code, notes, srv.said())
		}
	}
	heard := make(chan string, 1)
	go func() {
		code, out, notes := commucat(t, "client", "listen", "--profile", bob, "--transport", "reality", "--count", "3", "--timeout", "90s")
		heard <- strconv.Itoa(code) + " " + out + notes
	}()
	send("one")
	for _, text := range []string{"two", "three"} {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		send(text)
		pid = until("reality", func(s pluginhost.State) bool { return well(s) && s.PID != pid })
	}
	if out := <-heard; !strings.HasPrefix(out, "0 ") || !strings.Contains(out, "one") || !strings.Contains(out, "two") || !strings.Contains(out, "three") {
		t.Errorf("heard %q", out)
	}
	if strings.Contains(srv.said(), "after a pause") {
		t.Errorf("a killed plugin is taken for a crash of the machine: %s", srv.said())
	}
}

// TestLoadRealityRotated: new links have a new key at once; who comes by a former link
// within the overlap learns it, and is let in after its end, when the former link is
// refused with words that say what to do.
func TestLoadRealityRotated(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("builds a plugin, which needs more memory under the race detector than it is allowed")
	}
	withReality(t)
	dir := dataFolder(t, wide+`[transport.reality]
listen = "127.0.0.1:0"
server_names = ["relay.test"]
force = true
certificate = "cover.crt"
key = "file:cover.key"
`)
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil { // its process has another user
		t.Fatal(err)
	}
	openssl := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "cover.key", "-out", "cover.crt",
		"-days", "90", "-subj", "/", "-addext", "subjectAltName=DNS:relay.test")
	openssl.Dir = dir
	if out, err := openssl.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	srv := relay(t, dir)
	ready := func(before int) (pid int) {
		t.Helper()
		for end := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			s := srv.plugins(t)["reality"]
			if s.State == pluginhost.Running && s.Degraded == "" && s.PID != before {
				return s.PID
			}
			if time.Now().After(end) {
				t.Fatalf("not in time: %+v\n%s", s, srv.said())
			}
		}
	}
	rotate := func(pid int, args ...string) int {
		t.Helper()
		if code, out, notes := commucat(t, append([]string{"transport", "rotate", "reality", "--data", dir}, args...)...); code != exitOK || !strings.Contains(out, "(reloaded)") {
			t.Fatalf("rotate %v: %d %s %s", args, code, out, notes)
		}
		return ready(pid)
	}
	profiles := t.TempDir()
	register := func(link, handle string) (int, string) {
		code, out, notes := commucat(t, "client", "register", "--server", link, "--handle", handle, "--profile", filepath.Join(profiles, handle), "--transport", "reality")
		return code, out + notes
	}
	key := func(text string) string {
		t.Helper()
		l, err := link.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range l.Endpoints {
			if e.Transport == "reality" {
				return e.Values()["pbk"]
			}
		}
		t.Fatal("no reality in the link")
		return ""
	}
	pid := ready(0)
	former := srv.invitation(t, 5, time.Hour)
	// These two have a way from before. One connects by another transport within the
	// overlap, the other after its end.
	for _, handle := range []string{"early", "late"} {
		if code, out := register(former, handle); code != exitOK {
			t.Fatalf("register %s: %d %s", handle, code, out)
		}
	}
	send := func(from, to, by string) {
		t.Helper()
		if code, _, notes := commucat(t, "client", "send", "--profile", filepath.Join(profiles, from), "--to", to, "--transport", by, "--timeout", "30s", "hello"); code != exitOK {
			t.Errorf("%s by %s: %d %s\n%s", from, by, code, notes, srv.said())
		}
	}
	pid = rotate(pid, "--overlap", "1h")
	present := srv.invitation(t, 5, time.Hour)
	if key(former) == key(present) {
		t.Error("a new link has the former key")
	}
	for handle, l := range map[string]string{"alice": former, "bob": present} {
		if code, out := register(l, handle); code != exitOK || !strings.Contains(out, "by reality") {
			t.Fatalf("register %s: %d %s", handle, code, out)
		}
	}
	send("early", "late", "http2")
	rotate(pid, "--end")
	send("late", "early", "http2")
	for from, to := range map[string]string{"alice": "bob", "bob": "alice", "early": "late", "late": "early"} {
		send(from, to, "reality")
	}
	// This cover has no public certificate, so that the client cannot tell it from
	// somebody in between.
	if code, out := register(former, "carol"); code == exitOK || !strings.Contains(out, "replaced or revoked") {
		t.Errorf("by the former link: %d %s", code, out)
	}
}
