package main

import (
	"crypto/ed25519"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/conf"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/transport"
)

// What real relays and AmneziaWG's own devices make of the file is tested beside the
// plugin, in its module interop.
func TestTransportExport(t *testing.T) {
	wire := map[string]string{
		"k": "CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "s": "AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"w": "AQAGRYAGXTRTG8q16y2Qr7g--ORICY-yqyne_h1PlrTkKofXUGaYv99N",
	}
	to := transport.Endpoint{Transport: "door", Host: "relay.example", Port: 443, Params: wire}
	want, err := conf.File(to, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, root, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	make := func(params map[string]string) string {
		text, err := link.Link{
			Kind: link.Invite, NoiseVersion: 1, NoisePublic: [32]byte{1}, Domain: "relay.example", Entry: &link.Entry{}, Secret: [16]byte{1},
			Expires:   time.Now().Add(time.Hour).UTC().Truncate(time.Second),
			Endpoints: []link.Endpoint{{Transport: "door", Host: "relay.example", Port: 443, Params: ccp.ParamsOf(params)}},
		}.Sign(root)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	text := make(wire)
	code, out, notes := commucat(t, "transport", "export", "door=amnesiawg", "--link", text)
	if code != exitOK || out != string(want) || notes != "" {
		t.Errorf("%d %s\n%s", code, notes, out)
	}
	code, out, _ = commucat(t, "transport", "export", "door=amnesiawg", "--format", "conf", "--link", text, "--json")
	var said struct{ Transport, Format, File, Link string }
	if err := json.Unmarshal([]byte(out), &said); err != nil || code != exitOK || said.File != string(want) || said.Transport != "door" || said.Format != "conf" {
		t.Errorf("%d %v %s", code, err, out)
	}
	delete(wire, "s")
	for name, tt := range map[string]struct {
		code int
		says string
		args []string
	}{
		"other transport": {exitUsage, "nothing can be exported for \"http2\"", []string{"http2", "--link", text}},
		"other format":    {exitUsage, "--format: amnesiawg has conf", []string{"amnesiawg", "--format", "png", "--link", text}},
		"not in the link": {exitFailed, "names no endpoint for amnesiawg", []string{"amnesiawg", "--link", text}},
		"no link":         {exitUsage, "", []string{"amnesiawg", "--link", "commucat://x"}},
		"no key":          {exitFailed, "key: there is none", []string{"door=amnesiawg", "--link", make(wire)}},
		"no life":         {exitUsage, "--ttl: the shortest life", []string{"amnesiawg", "--ttl", "0s"}},
		"device and link": {exitUsage, "leave --link and --ttl out", []string{"door=amnesiawg", "--device", "d", "--link", text}},
		"device's relay":  {exitFailed, "no relay answers", []string{"amnesiawg", "--device", "d", "--data", t.TempDir()}},
		"no relay":        {exitFailed, "no relay answers", []string{"amnesiawg", "--data", t.TempDir()}},
	} {
		code, out, notes := commucat(t, append([]string{"transport", "export"}, tt.args...)...)
		if code != tt.code || !strings.Contains(notes, tt.says) || out != "" {
			t.Errorf("%s: %d, want %d: %s%s", name, code, tt.code, notes, out)
		}
	}
}
