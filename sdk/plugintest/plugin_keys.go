package plugintest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// Devices whose keys are handed over together come in, each with its own; one that
// cannot be let in keeps nobody else out.
func pluginRegistered(t T, k *pluginKit) {
	j := k.join(t, k.lender(t), echo)
	maker, _ := j.guest.half.(transport.KeyMaker)
	server, _ := j.ln.(transport.Server)
	to, ok := j.ln.(transport.Registrar)
	if !ok || maker == nil || k.o.Endpoint != nil {
		t.Skip("it is not told of devices beforehand")
	}
	const devices = 3
	private := make([][]byte, devices)
	guests := make([]transport.Guest, devices, devices+1)
	for i := range devices {
		mine, public, err := maker.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		private[i], guests[i] = mine, transport.Guest{ID: fmt.Sprint("device ", i), Public: public}
	}
	if err := to.Register(t.Context(), append(guests, transport.Guest{ID: "no key"})); err == nil || errors.Is(err, sdk.Unavailable) {
		t.Errorf("a guest without a key: %v", err)
	}
	if err := to.Register(t.Context(), guests); err != nil {
		t.Errorf("once more: %v", err)
	}
	at, err := server.Invite(t.Context(), "127.0.0.1", transport.Guest{})
	if err != nil {
		t.Fatal(err)
	}
	dial := func(i int) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		with := transport.Dial{}
		if k.o.Dial != nil {
			with = k.o.Dial(t)
		}
		with.Key = private[i]
		c, err := j.guest.half.Dial(ctx, at, with)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		return roundTrip(c, 10)
	}
	for i := range devices {
		if err := dial(i); err != nil {
			t.Errorf("device %d: %v", i, err)
		}
	}
	if err := server.Revoke(t.Context(), guests[1].ID); err != nil {
		t.Fatal(err)
	}
	if dial(1) == nil {
		t.Error("a revoked device comes in")
	}
	if err := dial(2); err != nil {
		t.Errorf("another device is out as well: %v", err)
	}
}
