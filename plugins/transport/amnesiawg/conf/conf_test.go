package conf

import (
	"encoding/base64"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/transport"
)

func sample() Endpoint {
	return Endpoint{
		Host: "relay.example", Ports: []uint16{443, 8443, 65535}, Server: [32]byte{9}, Wire: obfs.Draw(obfs.V2),
		Secret: &[32]byte{1, 2, 3}, MTU: 1184,
	}
}

func TestEndpoint(t *testing.T) {
	e := sample()
	to := e.Transport()
	got, err := Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	if got.Host != e.Host || len(got.Ports) != 3 || got.Ports[2] != 65535 || got.Server != e.Server || *got.Secret != *e.Secret ||
		got.MTU != e.MTU || string(got.Wire.Marshal()) != string(e.Wire.Marshal()) {
		t.Errorf("%+v, want %+v", got, e)
	}
	if n := e.Size(); n > 240 {
		t.Errorf("%d bytes", n)
	}
	// Links carry it unchanged.
	in := ccp.Endpoint{Transport: to.Transport, Host: to.Host, Port: to.Port, Params: ccp.ParamsOf(to.Params)}
	if err := in.Check(); err != nil || !maps.Equal(in.Values(), to.Params) {
		t.Errorf("%v, %v", in.Values(), err)
	}
	for name, change := range map[string]func(*transport.Endpoint){
		"no host":      func(e *transport.Endpoint) { e.Host = "" },
		"no port":      func(e *transport.Endpoint) { e.Port = 0 },
		"no key":       func(e *transport.Endpoint) { delete(e.Params, "k") },
		"short key":    func(e *transport.Endpoint) { e.Params["k"] = "AAAA" },
		"no code":      func(e *transport.Endpoint) { delete(e.Params, "w") },
		"damaged code": func(e *transport.Endpoint) { e.Params["w"] = e.Params["w"][1:] },
		"secret":       func(e *transport.Endpoint) { e.Params["s"] = "!" },
		"packet size":  func(e *transport.Endpoint) { e.Params["m"] = "20" },
		"port":         func(e *transport.Endpoint) { e.Params["p"] = "0" },
		"many ports":   func(e *transport.Endpoint) { e.Params["p"] = strings.Repeat("1.", MaxPorts) + "1" },
	} {
		bad := sample().Transport()
		change(&bad)
		if _, err := Parse(bad); sdk.KindOf(err) != sdk.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAddresses(t *testing.T) {
	server, a, b := [32]byte{1}, [32]byte{2}, [32]byte{3}
	local := netip.MustParsePrefix("fd00::/8")
	seen := map[netip.Addr]bool{}
	for _, addr := range []netip.Addr{ServerAddr(server), ClientAddr(server, a), ClientAddr(server, b), ClientAddr(a, b)} {
		if !local.Contains(addr) || seen[addr] {
			t.Errorf("%v", addr)
		}
		seen[addr] = true
	}
	if p, q := ServerAddr(server).As16(), ClientAddr(server, a).As16(); string(p[:6]) != string(q[:6]) {
		t.Error("relay and device are in different networks")
	}
}

func TestLinkKey(t *testing.T) {
	seen := map[[32]byte]bool{}
	for n := range KeysPerLink {
		k, err := LinkKey([32]byte{5}, n)
		if err != nil || seen[k] || k[0]&7 != 0 || k[31]&0xc0 != 64 {
			t.Errorf("%d: %x, %v", n, k, err)
		}
		seen[k] = true
	}
	for _, n := range []int{-1, KeysPerLink} {
		if _, err := LinkKey([32]byte{5}, n); err == nil {
			t.Errorf("%d: accepted", n)
		}
	}
}

func TestFile(t *testing.T) {
	e := sample()
	e.Wire = obfs.Draw(obfs.V3)
	special, err := obfs.ParseTemplate("<b 0xc0ffee><r 16>")
	if err != nil {
		t.Fatal(err)
	}
	e.Wire.Special[1] = special
	got, err := File(e.Transport(), nil)
	if err != nil {
		t.Fatal(err)
	}
	key, _ := LinkKey(*e.Secret, 0)
	public, _ := PublicKey(key)
	for _, want := range []string{
		"PrivateKey = " + base64.StdEncoding.EncodeToString(key[:]),
		"Address = " + ClientAddr(e.Server, public).String() + "/128",
		"MTU = 1280", "I2 = <b 0xc0ffee><r 16>", "H4 = " + e.Wire.Type[3].String(), "HeaderProtectionKey = ",
		"AllowedIPs = " + ServerAddr(e.Server).String() + "/128", "Endpoint = relay.example:443", "PersistentKeepalive = 25",
	} {
		if !strings.Contains(string(got), want+"\n") && !strings.Contains(string(got), want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if _, err := File(e.Transport(), make([]byte, 3)); err != nil {
		t.Errorf("a link's secret goes first: %v", err)
	}
	e.Secret = nil
	if _, err := File(e.Transport(), nil); sdk.KindOf(err) != sdk.Denied {
		t.Errorf("no key: %v", err)
	}
	if _, err := File(e.Transport(), make([]byte, 3)); sdk.KindOf(err) != sdk.Invalid {
		t.Errorf("short key: %v", err)
	}
	// The first generation knows nothing of later parameters.
	e.Wire = obfs.Draw(obfs.V1)
	got, err = File(e.Transport(), key[:])
	if err != nil || strings.Contains(string(got), "S3") || strings.Contains(string(got), "I1") || strings.Contains(string(got), "HeaderP") {
		t.Errorf("%v\n%s", err, got)
	}
}
