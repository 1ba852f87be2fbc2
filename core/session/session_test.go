package session

import (
	"testing"

	"github.com/commucat/commucat/core/relay"
	"github.com/commucat/commucat/sdk/ccp"
)

// TestHandshake goes through every shape of handshake and one frame each way.
func TestHandshake(t *testing.T) {
	base := ccp.ProofBinding | ccp.Records | ccp.Ack
	for _, tt := range []struct {
		name string
		caps ccp.Capabilities
	}{
		{"everything", ccp.AllCapabilities},
		{"without pq", ccp.AllCapabilities &^ ccp.PQ},
		{"unsealed", base | ccp.Resume},
		{"least", base},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t, nil)
			d := newDevice(t, "dev-a", "alice")
			c := h.dial(t, d)
			c.caps, c.invite = tt.caps, h.invite(t)
			if err := c.connect(); err != nil {
				t.Fatal(err)
			}
			if c.got != tt.caps {
				t.Errorf("accepted %v", c.got.Names())
			}
			if c.ack.User.Handle != "alice" || len(c.ack.Session) != 64 || c.ack.Session == c.auth.Session || c.ack.Ext.SendWindow != 256 {
				t.Errorf("ack %+v", c.ack)
			}
			if (c.ack.Ext.Resume.Token != nil) != tt.caps.Has(ccp.Resume) {
				t.Errorf("resume %+v", c.ack.Ext.Resume)
			}
			if err := d.cert.Verify(h.ca.Public()); err != nil || d.cert.PublicKey != d.key.Public() {
				t.Errorf("certificate: %v", err)
			}
			if tt.caps.Has(ccp.Sealed) && (c.auth.DeviceID != "" || c.ext.User != nil) {
				t.Error("a sealed handshake names its sender in the open")
			}
			exchange(t, h, c)
		})
	}
}

// exchange sends a frame each way.
func exchange(t *testing.T, h *house, c *client) {
	t.Helper()
	link := h.relay.link(c.dev.id)
	if err := c.frame(ccp.TypePresence, 9, []byte(`{"state":"here"}`)); err != nil {
		t.Fatal(err)
	}
	f := <-link.frames
	if f.Type != ccp.TypePresence || f.Channel != 9 || string(f.Payload) != `{"state":"here"}` {
		t.Errorf("server got %+v", f)
	}
	link.box.Push(relay.Delivery{Position: 7, Kind: ccp.TypeMsg, Channel: 9, ID: ccp.MessageID{Counter: 1}, Device: "dev-z", User: "u", Body: []byte("hi")})
	f, err := c.read()
	if err != nil {
		t.Fatal(err)
	}
	if !c.got.Has(ccp.Ack) {
		if f.Type != ccp.TypeMsg || string(f.Payload) != "hi" || f.Channel != 9 {
			t.Errorf("client got %+v", f)
		}
		return
	}
	d, err := ccp.ParseDeliver(f.Payload)
	if err != nil || d.Position != 7 || string(d.Body) != "hi" || string(d.Device) != "dev-z" {
		t.Errorf("client got %+v, %v", d, err)
	}
}
