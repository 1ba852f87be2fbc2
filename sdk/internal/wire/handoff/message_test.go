package handoff

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

func samples() []Message {
	return []Message{
		{Type: Bind, Number: 7, Instance: 1, Network: "tcp", Address: "[::1]:443"},
		{Type: Bound, Number: 7, Error: "address already in use", ErrorKind: sdk.Unavailable},
		{Type: CoverWanted, Number: 1 << 63, Instance: 9},
		{Type: Accepted, Kind: KindSocket, Local: transport.Addr{Net: "tcp", Text: "192.0.2.1:443"}, Remote: transport.Addr{Net: "tcp", Text: "192.0.2.9:4000"}},
		{Type: Dialled, Number: 3, Kind: KindPump, Facts: transport.Facts{
			Transport: "onion", Remote: netip.MustParseAddrPort("192.0.2.7:1"), Circuit: "c1", Hidden: true, Compat: true, Entered: true, UserAgent: "x",
		}},
		{Type: Accepted, Facts: transport.Facts{Remote: netip.MustParseAddrPort("[2001:db8::1]:65535"), Hidden: true}},
		{Type: Listener, Number: 12},
		{Type: Carrier},
	}
}

func TestMessageRoundTrip(t *testing.T) {
	for _, m := range samples() {
		b := m.Append(nil)
		got, err := Parse(b)
		if err != nil {
			t.Errorf("%+v: %v", m, err)
		}
		if d := cmp.Diff(m, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
			t.Errorf("differs:\n%s", d)
		}
	}
}

// The longest message there can be fits.
func TestMessageLongest(t *testing.T) {
	long := strings.Repeat("ü", 5000)
	m := Message{
		Type: Accepted, Number: 1, Instance: 1, Network: long, Address: long, Error: long, ErrorKind: 1, Kind: 1,
		Local: transport.Addr{Net: long, Text: long}, Remote: transport.Addr{Net: long, Text: long},
		Facts: transport.Facts{Transport: long, Circuit: long, UserAgent: long, Hidden: true, Remote: netip.MustParseAddrPort("[::1]:1")},
	}
	b := m.Append(nil)
	if len(b) > MaxMessage {
		t.Fatalf("%d bytes", len(b))
	}
	got, err := Parse(b)
	if err != nil || len(got.Error) != 1024 || len(got.Facts.UserAgent) != transport.MaxUserAgent {
		t.Errorf("%d %d %v", len(got.Error), len(got.Facts.UserAgent), err)
	}
}

func TestMessageMalformed(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "one byte": "\x01", "format": "\x02\x01", "type 0": "\x01\x00", "type": "\x01\x09",
		"short field": "\x01\x01\x01\x00", "cut off": "\x01\x01\x03\x00\x05tcp", "twice": "\x01\x01\x03\x00\x01a\x03\x00\x01b",
		"descending": "\x01\x01\x04\x00\x01a\x03\x00\x01b", "number": "\x01\x01\x01\x00\x01a", "zero number": "\x01\x01\x01\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00",
		"kind": "\x01\x01\x07\x00\x01\x03", "source": "\x01\x01\x0d\x00\x05abcde", "flags": "\x01\x01\x0f\x00\x01\x08",
		"long text": "\x01\x01\x03\x00\x21" + strings.Repeat("a", 33), "empty text": "\x01\x01\x03\x00\x00",
		"too long": "\x01\x01\xff\x10\x00" + strings.Repeat("a", 4096),
	} {
		if m, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
	if _, err := Parse([]byte("\x01\x01\xfe\x00\x01x")); err != nil {
		t.Errorf("a field of later: %v", err)
	}
}

func FuzzMessage(f *testing.F) {
	for _, m := range samples() {
		f.Add(m.Append(nil))
	}
	f.Add([]byte("\x01\x01\xfe\x00\x01x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		// Fields of later stand behind the others and are not written again.
		if again := m.Append(nil); !bytes.HasPrefix(b, again) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}
