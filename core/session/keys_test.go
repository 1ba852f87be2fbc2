package session

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/transport"
)

// The keys that a Confirm names are stored with the device, and the Ack says where
// they are good. Keys for what this relay does not have are ignored.
func TestTransportKeys(t *testing.T) {
	at := ccp.Endpoint{Transport: "keyed", Host: "relay.example", Port: 444, Params: "k=v"}
	asked := 0
	h := newHouse(t, func(o *Options, _ *account.Options) {
		o.Keyed = func(name string) bool { return name == "keyed" }
		o.Endpoints = func(ctx context.Context, device string, keys []ccp.TransportKey) ([]ccp.Endpoint, []string) {
			asked++
			if _, limited := ctx.Deadline(); !limited || device != "dev-a" || len(keys) != 1 {
				t.Errorf("%v, %q, %v", limited, device, keys)
			}
			return []ccp.Endpoint{at}, []string{"keyed"}
		}
	})
	d := newDevice(t, "dev-a", "alice")
	invite := h.invite(t)
	for _, c := range []struct {
		keys []ccp.TransportKey
		want []ccp.Endpoint
	}{
		{[]ccp.TransportKey{{Transport: "keyed", Public: []byte("key")}, {Transport: "other", Public: []byte("key")}}, []ccp.Endpoint{at}},
		{nil, nil},
		{[]ccp.TransportKey{{Transport: "other", Public: []byte("key")}}, nil},
	} {
		conn, _ := h.serve(transport.Facts{Transport: "test"})
		cl := h.client(t, d, conn)
		cl.invite = invite
		cl.bendConfirm = func(cf *ccp.Confirm) { cf.Keys = c.keys }
		if err := cl.connect(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, cl.ack.Ext.Endpoints); diff != "" {
			t.Error(diff)
		}
		if (len(cl.ack.Ext.Refused) == 1) != (c.want != nil) {
			t.Error(cl.ack.Ext.Refused)
		}
		conn.Close()
		invite, d.hints = nil, nil
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	list, _, err := h.accounts.TransportKeys(t.Context(), "", 10)
	want := []account.DeviceKeys{{Device: "dev-a", Keys: []ccp.TransportKey{{Transport: "keyed", Public: []byte("key")}}}}
	if diff := cmp.Diff(want, list); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

// Every Ack names the transports of the relay, behind the ways with the device's own keys,
// and as many as fit.
func TestAckNamesTransports(t *testing.T) {
	own := ccp.Endpoint{Transport: "keyed", Host: "relay.example", Port: 444}
	var keyless []ccp.Endpoint
	for port := range uint16(ccp.MaxEndpoints) {
		keyless = append(keyless, ccp.Endpoint{Transport: "plain", Host: "relay.example", Port: 1 + port})
	}
	h := newHouse(t, func(o *Options, _ *account.Options) {
		o.Keyed = func(name string) bool { return name == "keyed" }
		o.Endpoints = func(context.Context, string, []ccp.TransportKey) ([]ccp.Endpoint, []string) {
			return []ccp.Endpoint{own}, nil
		}
		o.Ways = func() ([]ccp.Endpoint, []string) { return keyless, []string{"keyed"} }
	})
	d := newDevice(t, "dev-a", "alice")
	invite := h.invite(t)
	for _, c := range []struct {
		keys []ccp.TransportKey
		want []ccp.Endpoint
	}{
		{nil, keyless},
		{[]ccp.TransportKey{{Transport: "keyed", Public: []byte("key")}}, append([]ccp.Endpoint{own}, keyless[:ccp.MaxEndpoints-1]...)},
	} {
		conn, _ := h.serve(transport.Facts{Transport: "test"})
		cl := h.client(t, d, conn)
		cl.invite = invite
		cl.bendConfirm = func(cf *ccp.Confirm) { cf.Keys = c.keys }
		if err := cl.connect(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, cl.ack.Ext.Endpoints); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"keyed"}, cl.ack.Ext.Keyed); diff != "" {
			t.Error(diff)
		}
		conn.Close()
		invite, d.hints = nil, nil
	}
}
