package reality

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPrograms: what people and probers use sees the cover's certificate and page.
func TestPrograms(t *testing.T) {
	dir := t.TempDir()
	roots := filepath.Join(dir, "roots.pem")
	if err := os.WriteFile(roots, testAuthority().rootPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(testAuthority().pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	spki := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	for name, cover := range covers(t) {
		r := startServer(t, baseConfig(t, cover))
		r.echoAll()
		_, port, _ := strings.Cut(r.addr, ":")
		for program, args := range map[string][]string{
			"curl":    {"-sS", "-m", "20", "--cacert", roots, "--resolve", siteName + ":" + port + ":127.0.0.1", "https://" + siteName + ":" + port + "/"},
			"openssl": {"s_client", "-connect", r.addr, "-servername", siteName, "-CAfile", roots, "-verify_return_error", "-tls1_3", "-ign_eof", "-quiet"},
			"chromium": {
				"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--user-data-dir=" + filepath.Join(dir, name), "--disable-background-networking",
				"--host-resolver-rules=MAP " + siteName + " 127.0.0.1", "--ignore-certificate-errors-spki-list=" + base64.StdEncoding.EncodeToString(spki[:]),
				"--timeout=20000", "--dump-dom", "https://" + siteName + ":" + port + "/",
			},
		} {
			t.Run(name+"/"+program, func(t *testing.T) {
				cmd := exec.Command(program, args...)
				cmd.Env = append(os.Environ(), "HOME="+dir)
				if program == "openssl" {
					cmd.Stdin = strings.NewReader(fmt.Sprintf("GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", siteName))
				}
				out, err := cmd.CombinedOutput()
				if err != nil || !strings.Contains(string(out), "An ordinary page.") {
					t.Errorf("%v\n%s", err, out)
				}
			})
		}
		if n := r.ln.figures.entered.Load(); n != 0 {
			t.Errorf("%s: %d strangers were let in", name, n)
		}
	}
}
