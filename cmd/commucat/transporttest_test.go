package main

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/noise"
)

// What answers otherwise than the relay of the link is named.
func TestMeetAnother(t *testing.T) {
	key, err := noise.GenerateKeyPair(nil)
	if err != nil {
		t.Fatal(err)
	}
	refusal, err := ccp.Append(nil, ccp.Frame{Type: ccp.TypeError, Sequence: 1, Payload: []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	forged, err := ccp.Append(nil, ccp.Frame{Type: ccp.TypeAuth, Sequence: 1, Payload: (&ccp.ServerAuth{Handshake: make([]byte, 96)}).Marshal()})
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		answer []byte
		want   string
	}{
		"noise":        {[]byte(strings.Repeat("\xff", 20)), "what answers is not a relay"},
		"a refusal":    {refusal, "the relay refused the handshake"},
		"a forged one": {forged, "does not come from the relay's key"},
		"half of one":  {forged[:9], "ended before the relay's answer"},
		"nothing":      {nil, "ended before the relay's answer"},
	} {
		t.Run(name, func(t *testing.T) {
			here, there := net.Pipe()
			go func() {
				buf := make([]byte, 64<<10)
				if _, err := there.Read(buf); err == nil {
					_, _ = there.Write(x.answer)
				}
				there.Close()
			}()
			err := meet(t.Context(), here, &link.Link{NoisePublic: key.Public, NoiseVersion: 1}, "")
			if err == nil || !strings.Contains(err.Error(), x.want) {
				t.Errorf("%v, want %q", err, x.want)
			}
		})
	}
	// One that says nothing is not waited for longer than the command is.
	here, there := net.Pipe()
	go io.Copy(io.Discard, there)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if meet(ctx, here, &link.Link{NoisePublic: key.Public}, "") == nil {
		t.Error("silence was an answer")
	}
}
