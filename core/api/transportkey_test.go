package api

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ccp"
)

func TestSetTransportKey(t *testing.T) {
	var recorded []string
	c, _ := serveAdmin(t, newWorld(t, nil), func(o *AdminOptions) {
		o.Record = func(_ context.Context, action, subject string) { recorded = append(recorded, action+" "+subject) }
		o.TransportKey = func(_ context.Context, device, transport string, public []byte) (ccp.Endpoint, error) {
			switch {
			case device != "dev-a":
				return ccp.Endpoint{}, account.ErrNotFound
			case transport != "door":
				return ccp.Endpoint{}, &sdk.Error{Kind: sdk.Unavailable, Text: "it does not run"}
			case len(public) == 0:
				return ccp.Endpoint{}, &sdk.Error{Kind: sdk.Invalid, Text: "no key"}
			}
			return ccp.Endpoint{Transport: "door", Host: "relay.example", Port: 7, Params: "k=" + string(public)}, nil
		}
	})
	for _, x := range []struct {
		device, transport, key string
		status                 int
	}{
		{"dev-a", "door", "public", 0}, {"dev-b", "door", "public", 404}, {"dev-a", "gate", "public", 409}, {"dev-a", "door", "", 400},
	} {
		at, err := c.SetTransportKey(t.Context(), x.device, x.transport, []byte(x.key))
		var p *Problem
		switch {
		case x.status == 0 && (err != nil || at.Host != "relay.example" || at.Port != 7 || at.Params["k"] != "public"):
			t.Errorf("%+v, %v", at, err)
		case x.status != 0 && (!errors.As(err, &p) || p.Status != x.status):
			t.Errorf("%+v: %v", x, err)
		}
	}
	if !slices.Equal(recorded, []string{"device.key dev-a"}) {
		t.Error(recorded)
	}
	none, _ := serveAdmin(t, newWorld(t, nil), nil)
	if _, err := none.SetTransportKey(t.Context(), "dev-a", "door", []byte("public")); err == nil {
		t.Error("a relay without transports")
	}
}
