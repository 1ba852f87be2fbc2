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
	dial := func(i int) error { return k.comesIn(t, j, at, private[i]) }
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

// A list that is said to be whole replaces what was known of devices, and of nobody else.
func pluginReplaced(t T, k *pluginKit) {
	j := k.join(t, k.lender(t), echo)
	maker, _ := j.guest.half.(transport.KeyMaker)
	to, ok := j.ln.(transport.Replacer)
	server, _ := j.ln.(transport.Server)
	if !ok || maker == nil || k.o.Endpoint != nil {
		t.Skip("it is told of no whole list")
	}
	if err := to.Replaced(t.Context()); !errors.Is(err, sdk.Invalid) {
		t.Errorf("the end of a list that has not begun: %v", err)
	}
	private, guests := [3][]byte{}, [3]transport.Guest{}
	for i := range guests {
		mine, public, err := maker.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		private[i], guests[i] = mine, transport.Guest{ID: fmt.Sprint("device ", i), Public: public}
	}
	link, err := server.Invite(t.Context(), "127.0.0.1", transport.Guest{ID: "link"})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []func() error{
		func() error { return to.Register(t.Context(), guests[:]) },
		func() error { return to.Replacing(t.Context()) },
		func() error { return to.Register(t.Context(), guests[:1]) },
		func() error { _, err := server.Invite(t.Context(), "127.0.0.1", guests[1]); return err },
		func() error { return to.Replaced(t.Context()) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	at, err := server.Invite(t.Context(), "127.0.0.1", transport.Guest{})
	if err != nil {
		t.Fatal(err)
	}
	for i, in := range []bool{true, true, false} {
		if err := k.comesIn(t, j, at, private[i]); (err == nil) != in {
			t.Errorf("device %d: %v", i, err)
		}
	}
	if err := k.comesIn(t, j, link, nil); err != nil {
		t.Errorf("the link: %v", err)
	}
	if err := to.Replaced(t.Context()); !errors.Is(err, sdk.Invalid) {
		t.Errorf("the end of a list a second time: %v", err)
	}
}

// comesIn dials with a device's key.
func (k *pluginKit) comesIn(t T, j joinedHalves, at transport.Endpoint, private []byte) error {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	with := transport.Dial{}
	if k.o.Dial != nil {
		with = k.o.Dial(t)
	}
	with.Key = private
	c, err := j.guest.half.Dial(ctx, at, with)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	return roundTrip(c, 10)
}
