package admission

import (
	"net/http"
	"net/netip"
	"testing"
)

var proxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}

func TestClient(t *testing.T) {
	for _, tc := range []struct {
		name, peer string
		header     http.Header
		want       string
		hidden     bool
	}{
		{"stranger is not believed", "203.0.113.7", http.Header{"X-Forwarded-For": {"1.2.3.4"}}, "203.0.113.7", false},
		{"one hop", "10.0.0.1", http.Header{"X-Forwarded-For": {"198.51.100.4"}}, "198.51.100.4", false},
		{"client wrote one itself", "10.0.0.1", http.Header{"X-Forwarded-For": {"1.1.1.1, 198.51.100.4"}}, "198.51.100.4", false},
		{"two proxies", "10.0.0.1", http.Header{"X-Forwarded-For": {"1.1.1.1, 198.51.100.4, 10.9.9.9"}}, "198.51.100.4", false},
		{"two headers", "10.0.0.1", http.Header{"X-Forwarded-For": {"198.51.100.4", "10.1.1.1"}}, "198.51.100.4", false},
		{"port", "10.0.0.1", http.Header{"X-Forwarded-For": {"198.51.100.4:99"}}, "198.51.100.4", false},
		{"v6", "fd00::1", http.Header{"X-Forwarded-For": {"[2001:db8::9]:99"}}, "2001:db8::9", false},
		{"mapped peer", "::ffff:10.0.0.1", http.Header{"X-Forwarded-For": {"::ffff:198.51.100.4"}}, "198.51.100.4", false},
		{"forwarded", "10.0.0.1", http.Header{"Forwarded": {`for=1.1.1.1, For="[2001:db8::9]:4711";proto=https`}}, "2001:db8::9", false},
		{"forwarded wins", "10.0.0.1", http.Header{"Forwarded": {"for=198.51.100.4"}, "X-Forwarded-For": {"1.1.1.1"}}, "198.51.100.4", false},
		{"obfuscated", "10.0.0.1", http.Header{"Forwarded": {"for=_hidden"}}, "10.0.0.1", true},
		{"junk stops the search", "10.0.0.1", http.Header{"X-Forwarded-For": {"198.51.100.4, junk"}}, "10.0.0.1", true},
		{"none", "10.0.0.1", http.Header{}, "10.0.0.1", true},
		{"only proxies", "10.0.0.1", http.Header{"X-Forwarded-For": {"10.2.2.2"}}, "10.0.0.1", true},
		{"unspecified", "10.0.0.1", http.Header{"X-Forwarded-For": {"0.0.0.0"}}, "10.0.0.1", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, hidden := Client(netip.MustParseAddr(tc.peer), tc.header, proxies)
			if got.String() != tc.want || hidden != tc.hidden {
				t.Errorf("got %v hidden=%v", got, hidden)
			}
		})
	}
}

func TestTrustedProxyIsNotCharged(t *testing.T) {
	g := New(Options{Trusted: proxies})
	for range 1000 {
		k, err := g.Admit(from("10.0.0.1"))
		if err != nil {
			t.Fatal(err)
		}
		k.Release()
	}
	if n := g.Stats().Prefixes; n != 0 {
		t.Errorf("%d prefixes", n)
	}
}

// FuzzClient: what a stranger writes never becomes a trusted or invalid
// address, and only the rightmost part written by a proxy counts.
func FuzzClient(f *testing.F) {
	f.Add("for=198.51.100.4", "1.2.3.4", "203.0.113.9")
	f.Add(`for="[2001:db8::1]:80";by=10.0.0.1,for=unknown`, "", "203.0.113.9")
	f.Add("", "1.1.1.1,,10.0.0.1, fd00::1%eth0", "2001:db8::7")
	f.Fuzz(func(t *testing.T, forwarded, xff, real string) {
		h := http.Header{}
		if forwarded != "" {
			h.Set("Forwarded", forwarded)
		}
		if xff != "" {
			h["X-Forwarded-For"] = []string{xff}
		}
		peer := netip.MustParseAddr("10.0.0.1")
		a, hidden := Client(peer, h, proxies)
		if !a.IsValid() || a.Zone() != "" || a.Is4In6() || trusts(proxies, a) != hidden {
			t.Fatalf("%v hidden=%v", a, hidden)
		}
		if stranger, _ := Client(netip.MustParseAddr("203.0.113.9"), h, proxies); stranger.String() != "203.0.113.9" {
			t.Fatalf("a stranger was believed: %v", stranger)
		}
		// A well-formed address appended by a proxy always wins.
		if want, err := netip.ParseAddr(real); err == nil && want.Zone() == "" && !want.IsUnspecified() && !trusts(proxies, want) {
			h := http.Header{"X-Forwarded-For": {xff + ", " + real}}
			if got, _ := Client(peer, h, proxies); got != want.Unmap() && !want.Unmap().IsUnspecified() {
				t.Fatalf("got %v, want %v", got, want)
			}
		}
	})
}
