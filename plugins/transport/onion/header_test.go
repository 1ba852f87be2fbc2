package onion

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/transport"
)

func TestCircuit(t *testing.T) {
	r := strings.NewReader("PROXY TCP6 fc00:dead:beef:4dad::1:2a ::1 65535 80\r\nrest")
	id, err := readCircuit(r)
	if err != nil || id != 0x1002a {
		t.Errorf("%#x, %v", id, err)
	}
	if rest, _ := io.ReadAll(r); string(rest) != "rest" {
		t.Errorf("behind the line: %q", rest)
	}
	for _, s := range []string{
		"", "PROXY TCP6 fc00:dead:beef:4dad::1:2a ::1 65535 80\n", "PROXY TCP6 ::1 ::1 1 80\r\n", "PROXY TCP4 1.2.3.4 1.2.3.4 1 80\r\n",
		"PROXY UNKNOWN\r\n", "GET / HTTP/1.1\r\n", strings.Repeat("x", maxProxyLine+1) + "\r\n", "PROXY TCP6 fc00:dead:beef:4dad::1 ::1 65535 80 x\r\n",
	} {
		if id, err := readCircuit(strings.NewReader(s)); err == nil {
			t.Errorf("%q is circuit %d", s, id)
		}
	}
}

func FuzzCircuit(f *testing.F) {
	f.Add([]byte("PROXY TCP6 fc00:dead:beef:4dad::1:2a ::1 65535 80\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		if _, err := readCircuit(r); err != nil {
			return
		}
		if end := bytes.IndexByte(b, '\n') + 1; r.Len() != len(b)-end {
			t.Errorf("%d bytes behind the line are left of %d", r.Len(), len(b)-end)
		}
	})
}

func TestVersion(t *testing.T) {
	for text, want := range map[string]version{
		"Tor version 0.4.9.11.\nThis build": {0, 4, 9},
		"Tor version 0.3.5.8-rc.":           {0, 3, 5},
	} {
		if v, ok := parseVersion(text); !ok || v != want {
			t.Errorf("%q: %v", text, v)
		}
	}
	if v, ok := parseVersion("GNU tar 1.34"); ok {
		t.Errorf("read as %v", v)
	}
	if !(version{0, 4, 5}).less(oldest) || oldest.less(oldest) || (version{0, 5, 0}).less(oldest) {
		t.Error("versions are compared wrongly")
	}
}

func TestMissingTor(t *testing.T) {
	_, err := findTor(t.Context(), "/nonexistent/tor")
	if !errors.Is(err, sdk.NotFound) || !strings.Contains(err.Error(), "install the package tor") {
		t.Error(err)
	}
	if _, err := findTor(t.Context(), "/bin/true"); err == nil || !strings.Contains(err.Error(), "is not tor") {
		t.Error(err)
	}
	o, err := transport.Open(t.Context(), Plugin(), plugintest.NewLender(t), map[string]any{"program": "/nonexistent/tor"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Listen(t.Context()); !errors.Is(err, sdk.NotFound) {
		t.Error(err)
	}
}

func TestTorrcLines(t *testing.T) {
	for line, ok := range map[string]bool{
		"UseBridges 1": true, "ClientOnly 1": true, `Nickname x \`: false,
		"ControlPort 9051": false, "+HiddenServiceDir /x": false, "a\nb": false, "%include /etc/x": false, "": false, "socksport 1": false,
	} {
		_, err := transport.Open(t.Context(), Plugin(), nil, map[string]any{"torrc": []any{line}})
		if (err == nil) != ok {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func TestTargets(t *testing.T) {
	const address = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid" // Tor Project's
	for name, tt := range map[string]struct {
		to transport.Endpoint
		ok bool
	}{
		"good":       {transport.Endpoint{Host: address + ".onion", Port: 80}, true},
		"upper case": {transport.Endpoint{Host: strings.ToUpper(address) + ".ONION"}, true},
		"a name":     {transport.Endpoint{Host: "example.org"}, false},
		"short":      {transport.Endpoint{Host: address[1:] + ".onion"}, false},
		"token":      {transport.Endpoint{Host: address + ".onion", Params: map[string]string{paramToken: "x"}}, false},
		"key": {transport.Endpoint{Host: address + ".onion", Params: map[string]string{
			paramToken: strings.Repeat("A", 43), paramSecret: "x"}}, false},
	} {
		if _, err := readTarget(tt.to, transport.Dial{}); (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	a, _ := readTarget(transport.Endpoint{Host: address + ".onion"}, transport.Dial{Key: bytes.Repeat([]byte{1}, 32)})
	b, _ := readTarget(transport.Endpoint{Host: address + ".onion"}, transport.Dial{Key: bytes.Repeat([]byte{2}, 32)})
	if a.isolation == b.isolation {
		t.Error("two devices would share a circuit")
	}
}
