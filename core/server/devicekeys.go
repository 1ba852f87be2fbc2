package server

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/pluginhost"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/transport"
)

// keyPage is how many devices are read at a time, to hand their keys to a transport.
const keyPage = 500

// transportNamed is a transport that a plugin process serves, nil if there is none.
func (s *Server) transportNamed(name string) *pluginhost.Transport {
	s.transports.mu.Lock()
	defer s.transports.mu.Unlock()
	return s.transports.all[name]
}

// keyed says that devices have keys of their own for a transport.
func (s *Server) keyed(name string) bool {
	t := s.transportNamed(name)
	return t != nil && t.Keyed()
}

// keyedEndpoints lets a device's keys in, and answers where they are good. What a
// transport does not say in time is left out.
func (s *Server) keyedEndpoints(ctx context.Context, device string, keys []ccp.TransportKey) []ccp.Endpoint {
	found := make([]ccp.Endpoint, len(keys))
	var all sync.WaitGroup
	for i, k := range keys {
		all.Go(func() {
			e, err := s.keyedEndpoint(ctx, device, k)
			switch {
			case err == nil:
				found[i] = e
			case !errors.Is(err, sdk.Unavailable) && ctx.Err() == nil:
				s.log.Warn("a transport does not take a device's key", "transport", k.Transport, "error", err)
			}
		})
	}
	all.Wait()
	var out []ccp.Endpoint
	for _, e := range found {
		if e.Transport != "" && len(out) < ccp.MaxEndpoints {
			out = append(out, e)
		}
	}
	return out
}

// keyedEndpoint lets one key in; k names a slot.
func (s *Server) keyedEndpoint(ctx context.Context, device string, k ccp.TransportKey) (ccp.Endpoint, error) {
	name := account.SlotTransport(k.Transport)
	t := s.transportNamed(name)
	if t == nil {
		return ccp.Endpoint{}, &sdk.Error{Kind: sdk.Unavailable, Op: "transport " + name, Text: "it is not configured"}
	}
	id := account.GuestID(device, k.Public)
	// A key that comes again after another one is not to be revoked late.
	if err := s.revocations.done(name, []string{id}); err != nil {
		return ccp.Endpoint{}, err
	}
	e, err := t.Invite(ctx, s.publicHost(), transport.Guest{ID: id, Public: k.Public})
	if err != nil {
		return ccp.Endpoint{}, err
	}
	// A revocation that came before the invitation, and did not find it.
	if d, err := s.accounts.Device(ctx, device); err == nil && d.Status != account.Active {
		s.revokeAt([]string{name}, id)
		return ccp.Endpoint{}, &sdk.Error{Kind: sdk.Denied, Op: "transport " + name, Text: "the device was revoked"}
	}
	named := ccp.Endpoint{Transport: e.Transport, Host: e.Host, Port: e.Port, Params: ccp.ParamsOf(e.Params)}
	return named, named.Check()
}

// setTransportKey lets in a key that the operator has for a device, for a program that
// carries the device's streams.
func (s *Server) setTransportKey(ctx context.Context, device, name string, public []byte) (ccp.Endpoint, error) {
	k := ccp.TransportKey{Transport: name, Public: public}
	if err := k.Check(); err != nil {
		return ccp.Endpoint{}, &sdk.Error{Kind: sdk.Invalid, Op: "transport key", Text: err.Error()}
	}
	if !s.keyed(name) {
		return ccp.Endpoint{}, &sdk.Error{Kind: sdk.Unavailable, Op: "transport " + name, Text: "it does not run, or its devices have no keys"}
	}
	k.Transport = account.ExportSlot(name)
	if err := s.accounts.SetTransportKey(ctx, device, k); err != nil {
		return ccp.Endpoint{}, err
	}
	return s.keyedEndpoint(ctx, device, k)
}

// keysCame lets in the keys that another node was told of.
func (s *Server) keysCame(device string, keys []ccp.TransportKey) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_ = s.keyedEndpoints(ctx, device, keys) // it has said what is wrong
}

// keysGone ends what the transports allowed to keys of a device.
func (s *Server) keysGone(device string, keys []ccp.TransportKey) {
	for _, k := range keys {
		s.revokeAt([]string{account.SlotTransport(k.Transport)}, account.GuestID(device, k.Public))
	}
}

// handAll hands the keys of all devices to a transport that has become ready.
func (s *Server) handAll(t *pluginhost.Transport) {
	if !t.Registers() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if err := s.handKeys(ctx, t); err != nil && !errors.Is(err, sdk.Unavailable) {
		s.log.Error("not all keys of devices were handed to a transport", "transport", t.Name(), "error", err)
	}
}

// handKeys hands the keys of all devices to a transport, page by page.
func (s *Server) handKeys(ctx context.Context, t *pluginhost.Transport) error {
	var refused error // the first one, for the log
	for after, more := "", true; more; {
		next, err := s.handPage(ctx, t, after)
		switch {
		case errors.Is(err, sdk.Unavailable) || ctx.Err() != nil:
			return err
		case err != nil && next == "":
			return err
		case err != nil && refused == nil:
			refused = err
		}
		after, more = next, next != ""
	}
	return refused
}

// handPage hands over the keys of the devices that come after one. Who revokes a key
// that stands in the page waits until the page is handed over.
func (s *Server) handPage(ctx context.Context, t *pluginhost.Transport, after string) (next string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	mu := s.handing(t.Name())
	mu.Lock()
	defer mu.Unlock()
	page, next, err := s.accounts.TransportKeys(ctx, after, keyPage)
	if err != nil {
		return "", err
	}
	var guests []transport.Guest
	for _, d := range page {
		for _, k := range d.Keys {
			if account.SlotTransport(k.Transport) == t.Name() {
				guests = append(guests, transport.Guest{ID: account.GuestID(d.Device, k.Public), Public: k.Public})
			}
		}
	}
	if len(guests) == 0 {
		return next, nil
	}
	// Two slots at most belong to one transport, so a page fits one call.
	return next, t.Register(ctx, guests)
}

// handing keeps the handing over of keys to a transport and their revocation apart.
func (s *Server) handing(name string) *sync.RWMutex {
	mu, _ := s.transports.handing.LoadOrStore(name, new(sync.RWMutex))
	return mu.(*sync.RWMutex)
}
