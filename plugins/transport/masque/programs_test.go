package masque

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// TestPrograms: what people use sees the site, a browser over HTTP/3, and curl over TCP
// that there is HTTP/3.
func TestPrograms(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{} // protocol and path
	cover := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen[r.Proto+" "+r.URL.Path]++
		mu.Unlock()
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, `<p>An ordinary page.<p id=p><script>
p.textContent = "It came by " + performance.getEntriesByType("navigation")[0].nextHopProtocol + "."</script>`)
	})
	o, err := transport.Open(t.Context(), Plugin(), sdk.NewEnv(sdk.EnvOptions{State: t.TempDir(), Cover: cover}),
		map[string]any{"listen": "127.0.0.1:0", "name": "relay.example"})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := o.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	s := ln.(*server)
	port := strconv.Itoa(int(transport.AddrPort(s.Addr()).Port()))
	site := "relay.example:" + port

	t.Run("chromium", func(t *testing.T) {
		home := t.TempDir()
		cmd := exec.CommandContext(t.Context(), "chromium",
			"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
			"--user-data-dir="+home, "--host-resolver-rules=MAP relay.example 127.0.0.1",
			"--enable-quic", "--origin-to-force-quic-on="+site, "--ignore-certificate-errors-spki-list="+base64.StdEncoding.EncodeToString(s.pin[:]),
			"--timeout=20000", "--dump-dom", "https://"+site+"/browser")
		cmd.Env = append(cmd.Environ(), "HOME="+home)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "An ordinary page.") || !strings.Contains(string(out), "It came by h3.") {
			t.Errorf("%v\n%s", err, out)
		}
		mu.Lock()
		defer mu.Unlock()
		if seen["HTTP/3.0 /browser"] == 0 {
			t.Errorf("the site saw %v", seen)
		}
	})
	for flag, proto := range map[string]string{"--http1.1": "HTTP/1.1 200", "--http2": "HTTP/2 200"} {
		t.Run("curl "+flag, func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), "curl", "-sSik", "-m", "20", flag, "--resolve", site+":127.0.0.1", "https://"+site+"/").CombinedOutput()
			text := strings.ToLower(string(out))
			for _, want := range []string{strings.ToLower(proto), `alt-svc: h3=":` + port + `"; ma=2592000`, "an ordinary page."} {
				if err != nil || !strings.Contains(text, want) {
					t.Errorf("no %q: %v\n%s", want, err, out)
				}
			}
		})
	}
}
