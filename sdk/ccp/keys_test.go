package ccp

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTransportKeysExample is the example of docs/protocol.md section 14.
func TestTransportKeysExample(t *testing.T) {
	confirm := `{"proof":"` + strings.Repeat("00", 64) + `","transport_keys":{"amnesiawg":"d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3c","masque":"eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg"}}`
	c := Confirm{Keys: []TransportKey{{"masque", bytes.Repeat([]byte{0x78}, 32)}, {"amnesiawg", bytes.Repeat([]byte{0x77}, 32)}}}
	if got := string(c.Marshal()); got != confirm {
		t.Error(got)
	}
	got, err := ParseConfirm([]byte(confirm))
	want := []TransportKey{{"amnesiawg", bytes.Repeat([]byte{0x77}, 32)}, {"masque", bytes.Repeat([]byte{0x78}, 32)}}
	if d := cmp.Diff(want, got.Keys); d != "" || err != nil {
		t.Error(d, err)
	}
	ack := `{"ext":{"endpoints":[{"host":"relay.example","params":"k=pub&w=code","port":41234,"transport":"amnesiawg"}],"time":1799990000000},"handshake":"ok","keepalive_interval":30,"pairing_required":false}`
	a := Established{Keepalive: 30, Ext: &AckExt{Time: 1799990000000, Endpoints: []Endpoint{{"amnesiawg", "relay.example", 41234, "k=pub&w=code"}}}}
	if got := string(a.Marshal()); got != ack {
		t.Error(got)
	}
	told := strings.Replace(ack, `}],"time"`, `},{"host":"relay.example","params":"cert=c&iat-mode=0","port":41235,"transport":"obfs4"}],"keyed":["amnesiawg","onion"],"time"`, 1)
	a.Ext.Endpoints = append(a.Ext.Endpoints, Endpoint{"obfs4", "relay.example", 41235, "cert=c&iat-mode=0"})
	a.Ext.Keyed = []string{"amnesiawg", "onion"}
	if got := string(a.Marshal()); got != told {
		t.Error(got)
	}
	if got, err := ParseEstablished([]byte(told)); err != nil || !slices.Equal(got.Ext.Keyed, a.Ext.Keyed) {
		t.Error(got.Ext, err)
	}
	for _, names := range []string{`"a b"`, `""`, `"` + strings.Repeat("a", MaxTransport+1) + `"`, `1`, strings.Repeat(`"a",`, MaxTransportKeys) + `"a"`} {
		if _, err := ParseEstablished([]byte(strings.Replace(told, `"amnesiawg","onion"`, names, 1))); err == nil {
			t.Errorf("keyed [%s] is taken", names)
		}
	}
	refused := strings.Replace(told, `],"time"`, `],"refused":["onion"],"time"`, 1)
	a.Ext.Refused = []string{"onion"}
	if got := string(a.Marshal()); got != refused {
		t.Error(got)
	}
	if got, err := ParseEstablished([]byte(refused)); err != nil || !slices.Equal(got.Ext.Refused, a.Ext.Refused) {
		t.Error(got.Ext, err)
	}
	// A peer of before sees keys that it does not know, and passes over them.
	if _, err := ParseConfirm([]byte(strings.Replace(confirm, "transport_keys", "of_tomorrow", 1))); err != nil {
		t.Error(err)
	}
	if _, err := ParseEstablished([]byte(strings.Replace(ack, "endpoints", "of_tomorrow", 1))); err != nil {
		t.Error(err)
	}
}
