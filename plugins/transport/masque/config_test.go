package masque

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

func TestConfig(t *testing.T) {
	for name, c := range map[string]struct {
		raw  map[string]any
		keys []string
	}{
		"empty":         {nil, nil},
		"listen":        {map[string]any{"listen": "443"}, []string{"listen"}},
		"listen name":   {map[string]any{"listen": "relay.example:443"}, []string{"listen"}},
		"chained":       {map[string]any{"chained": "x"}, []string{"chained"}},
		"port":          {map[string]any{"listen": ":99999"}, []string{"listen"}},
		"name":          {map[string]any{"name": "https://relay.example"}, []string{"name"}},
		"targets":       {map[string]any{"targets": []any{"example.com:443", "no port"}}, []string{"targets"}},
		"targets off":   {map[string]any{"targets": []any{"example.com:443"}, "connect_udp": false}, []string{"targets"}},
		"proxy":         {map[string]any{"proxy": "https://proxy.example/{target_host}/{target_port}/"}, nil},
		"proxy http":    {map[string]any{"proxy": "http://proxy.example/{target_host}/{target_port}/"}, []string{"proxy"}},
		"proxy no port": {map[string]any{"proxy": "https://proxy.example/{target_host}/"}, []string{"proxy"}},
		"proxy pin":     {map[string]any{"proxy": "https://p.example/{target_host}/{target_port}/", "proxy_pin": "x"}, []string{"proxy_pin"}},
		"auth alone":    {map[string]any{"proxy_authorization": "Bearer x"}, []string{"proxy"}},
		"mode":          {map[string]any{"mode": "carrier-pigeon"}, []string{"mode"}},
		"bytes":         {map[string]any{"guest_bytes": "-1"}, []string{"guest_bytes"}},
	} {
		_, err := transport.Open(t.Context(), Plugin(), nil, c.raw)
		var errs sdk.ConfigErrors
		errors.As(err, &errs)
		var keys []string
		for _, e := range errs {
			keys = append(keys, e.Key)
		}
		if strings.Join(keys, " ") != strings.Join(c.keys, " ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, f := range sdk.Fields(Config{}) {
		if f.Doc == "" {
			t.Errorf("%s has no doc", f.Name)
		}
	}
}

func TestTargets(t *testing.T) {
	var list []target
	for _, text := range []string{"turn.example:3478", "*.pool.example:*", "192.0.2.0/24:443", "[2001:db8::]:443", "[2001:db8:1::/48]:*", "198.51.100.7:*"} {
		one, err := parseTarget(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, one)
	}
	for at, want := range map[string]bool{
		"turn.example 3478": true, "TURN.example. 3478": true, "turn.example 3479": false, "x.turn.example 3478": false, "turn.example.org 3478": false,
		"a.pool.example 1": true, "a.b.pool.example 65535": true, "pool.example 1": false, "xpool.example 1": false,
		"192.0.2.200 443": true, "192.0.2.200 444": false, "192.0.3.1 443": false, "::ffff:192.0.2.1 443": true,
		"2001:db8:: 443": true, "2001:db8::1 443": false, "2001:db8:1:2::3 9": true, "198.51.100.7 9": true, "198.51.100.8 9": false,
	} {
		host, port, _ := strings.Cut(at, " ")
		p := netip.MustParseAddrPort("0.0.0.0:" + port).Port()
		if got := allows(list, host, p); got != want {
			t.Errorf("%s: %v", at, got)
		}
	}
	for _, text := range []string{"", "example.com", ":443", "example.com:0", "example.com:x", "*:443", "*.:443", "a*b.example:443", "example.com/x:443"} {
		if _, err := parseTarget(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestPublic(t *testing.T) {
	for text, want := range map[string]bool{
		"1.1.1.1": true, "9.9.9.9": true, "2606:4700::1111": true, "::ffff:1.1.1.1": true,
		"127.0.0.1": false, "10.1.2.3": false, "172.16.0.1": false, "172.32.0.1": true, "192.168.1.1": false, "169.254.169.254": false,
		"100.64.0.1": false, "100.128.0.1": true, "0.0.0.0": false, "224.0.0.1": false, "255.255.255.255": false, "192.0.2.1": false,
		"198.18.0.1": false, "::": false, "::1": false, "fe80::1": false, "fc00::1": false, "ff02::1": false, "::ffff:10.0.0.1": false,
		"64:ff9b::a00:1": false, "2001::1": false, "2002:a00:1::": false, "2001:db8::1": false, "fe80::1%lo": false, "::10.0.0.1": false,
	} {
		if got := public(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	if public(netip.Addr{}) {
		t.Error("no address is public")
	}
}

func TestUDPTarget(t *testing.T) {
	for path, want := range map[string]string{
		"/.well-known/masque/udp/192.0.2.6/443/": "192.0.2.6 443", "/.well-known/masque/udp/2001%3Adb8%3A%3A42/443/": "2001:db8::42 443",
		"/.well-known/masque/udp/target.example.com/65535/": "target.example.com 65535", "/.well-known/masque/udp/%5B%3A%3A1%5D/1/": "::1 1",
		"/.well-known/masque/udp/192.0.2.6/443": "", "/.well-known/masque/udp/192.0.2.6/0/": "", "/.well-known/masque/udp/192.0.2.6/65536/": "",
		"/.well-known/masque/udp//443/": "", "/.well-known/masque/udp/a/443/x": "", "/.well-known/masque/udp/a%2Fb/443/": "",
		"/.well-known/masque/tcp/a/443/": "", "/": "", "/.well-known/masque/udp/a%25b/1/": "", "/.well-known/masque/udp/a/443/?x=y": "",
	} {
		u, err := url.ParseRequestURI(path)
		if err != nil {
			t.Fatal(err)
		}
		host, port, err := udpTarget(u)
		got := ""
		if err == nil {
			got = host + " " + netip.AddrPortFrom(netip.IPv4Unspecified(), port).String()[len("0.0.0.0:"):]
		}
		if got != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
}

func FuzzUDPTarget(f *testing.F) {
	f.Add("/.well-known/masque/udp/2001%3Adb8%3A%3A42/443/")
	f.Fuzz(func(t *testing.T, path string) {
		u, err := url.ParseRequestURI(path)
		if err != nil {
			return
		}
		host, port, err := udpTarget(u)
		if err != nil {
			return
		}
		template, err := parseProxy("https://proxy.example" + udpPath + "{target_host}/{target_port}/")
		if err != nil {
			t.Fatal(err)
		}
		again, err := expand(template, host, port)
		if err != nil {
			return // a host that is no text
		}
		if h, p, err := udpTarget(again); err != nil || h != host || p != port {
			t.Fatalf("%q: %q %d, again %q %d %v", path, host, port, h, p, err)
		}
	})
}

func TestProxyStatus(t *testing.T) {
	r := &http.Request{Host: "relay.example:8443"}
	for want, got := range map[string]func(http.ResponseWriter){
		`"relay.example";error=http_request_denied;details="this target is not offered"`: func(w http.ResponseWriter) { refuse(w, r, 403, statusDenied, errTarget) },
		`"relay.example";next-hop="192.0.2.1:443"`:                                       func(w http.ResponseWriter) { nextHop(w, r, netip.MustParseAddrPort("192.0.2.1:443")) },
	} {
		h := recorded{http.Header{}}
		if got(h); h.Header().Get("Proxy-Status") != want {
			t.Errorf("%s, want %s", h.Header().Get("Proxy-Status"), want)
		}
	}
}

type recorded struct{ h http.Header }

func (r recorded) Header() http.Header       { return r.h }
func (recorded) Write(p []byte) (int, error) { return len(p), nil }
func (recorded) WriteHeader(int)             {}
