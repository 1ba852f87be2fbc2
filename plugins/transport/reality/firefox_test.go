package reality

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// ordered is describeHello with the order of extensions, which Firefox does not draw, and
// without the cipher for ECH, which it does.
func ordered(record []byte) string {
	text := strings.Replace(describeHello(record), "65037 0000010003", "65037 0000010001", 1)
	return text + fmt.Sprintln("order", extensionOrder(record))
}

// TestFirefoxHello: what "firefox" sends is what that browser sent, with X25519 in both its
// shares. Where the browser is installed it is asked again; one of another version that
// differs is reported.
func TestFirefoxHello(t *testing.T) {
	golden, err := os.ReadFile(filepath.Join("testdata", "firefox-153.txt"))
	if err != nil {
		t.Fatal(err)
	}
	want := string(golden)
	p, _ := testParams(t)
	for range 4 {
		if got := ordered(shape{params: p, profile: "firefox", now: time.Now()}.record(t)); got != want {
			t.Fatalf("sent:\n%s\nFirefox's:\n%s", got, want)
		}
	}
	program, err := exec.LookPath("firefox-esr")
	if err != nil {
		t.Skip("firefox-esr is not installed, so only its recorded hello was compared")
	}
	version, _ := exec.CommandContext(t.Context(), program, "--version").Output()
	now := ordered(firefoxsHello(t, program))
	switch {
	case now == want:
		t.Logf("%s sends the same", strings.TrimSpace(string(version)))
	case strings.Contains(string(version), " 153."):
		t.Errorf("%s sends:\n%s", version, now)
	default:
		t.Logf("%s sends by now:\n%s", version, now)
	}
}

// firefoxsHello is what the browser sends first, with every name mapped to loopback.
func firefoxsHello(t *testing.T, program string) []byte {
	t.Helper()
	dir := t.TempDir()
	prefs := `user_pref("network.dns.forceResolve", "127.0.0.1");
user_pref("network.trr.mode", 5);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("app.normandy.enabled", false);
user_pref("toolkit.telemetry.enabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("datareporting.policy.firstRunURL", "");
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("services.settings.server", "data:,");
`
	if err := os.WriteFile(filepath.Join(dir, "user.js"), []byte(prefs), 0o600); err != nil {
		t.Fatal(err)
	}
	return firstHello(t, dir, func(port string) (string, []string) {
		return program, []string{"--headless", "--no-remote", "--profile", dir, "https://" + siteName + ":" + port + "/"}
	})
}
