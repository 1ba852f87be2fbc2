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

const (
	// keyPage is how many devices are read at a time, to hand their keys to a transport.
	keyPage = 500
	// lateCheck bounds how long it is asked whether a key is still a device's, where
	// whoever announced it does not wait any more.
	lateCheck = 30 * time.Second
	// farewell is how long the sessions of a device that was revoked may take to end, before
	// its keys do; farewellStep is how often it is looked whether they have.
	farewell     = 800 * time.Millisecond
	farewellStep = 20 * time.Millisecond
)

// pageTime is how long one page may take. Tests change it.
var pageTime = 10 * time.Second

// doorkeeper is a transport that lets keys in; a *pluginhost.Transport.
type doorkeeper interface {
	Name() string
	Process() any
	Invite(ctx context.Context, host string, g transport.Guest) (transport.Endpoint, error)
	Register(ctx context.Context, guests []transport.Guest) error
	Replacing(ctx context.Context) error
	Replaced(ctx context.Context) error
}

var _ doorkeeper = (*pluginhost.Transport)(nil)

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

// keyedEndpoints lets a device's keys in, and answers where they are good, and which
// transports need another one. What a transport does not say in time is left out.
func (s *Server) keyedEndpoints(ctx context.Context, device string, keys []ccp.TransportKey) (good []ccp.Endpoint, refused []string) {
	found, conflicts := make([]ccp.Endpoint, len(keys)), make([]bool, len(keys))
	var all sync.WaitGroup
	for i, k := range keys {
		all.Go(func() {
			e, err := s.toldEndpoint(ctx, device, k)
			switch {
			case err == nil:
				found[i] = e
			case errors.Is(err, sdk.Conflict):
				conflicts[i] = true
				s.conflicting(ctx, device, k, err)
			default:
				s.notTaken(ctx, k, err)
			}
		})
	}
	all.Wait()
	for i, e := range found {
		switch {
		case e.Transport != "" && len(good) < ccp.MaxEndpoints:
			good = append(good, e)
		case conflicts[i] && len(refused) < ccp.MaxTransportKeys:
			refused = append(refused, keys[i].Transport)
		}
	}
	return good, refused
}

// notTaken tells the log why, where it is neither a matter of time nor of the device.
func (s *Server) notTaken(ctx context.Context, k ccp.TransportKey, err error) {
	if !errors.Is(err, sdk.Unavailable) && !errors.Is(err, sdk.Denied) && ctx.Err() == nil {
		s.log.Warn("a transport does not take a device's key", "transport", k.Transport, "error", err)
	}
}

// conflicting forgets a key that was announced here and is another guest's, or can be
// nobody's. Kept, it would stand against its owner's when the transport has lost what
// it knew and is handed all keys anew.
func (s *Server) conflicting(ctx context.Context, device string, k ccp.TransportKey, err error) {
	s.log.Warn("a device's key is not its own, and is forgotten", "transport", k.Transport, "device", device, "error", err)
	if err := s.accounts.DropTransportKey(ctx, device, k); err != nil {
		s.log.Error("a device's key could not be forgotten", "transport", k.Transport, "device", device, "error", err)
	}
}

// keyedEndpoint lets one key in; k names a slot.
func (s *Server) keyedEndpoint(ctx context.Context, device string, k ccp.TransportKey) (ccp.Endpoint, error) {
	name := account.SlotTransport(k.Transport)
	t := s.transportNamed(name)
	if t == nil {
		return ccp.Endpoint{}, &sdk.Error{Kind: sdk.Unavailable, Op: "transport " + name, Text: "it is not configured"}
	}
	return s.letIn(ctx, t, s.publicHost(), device, k)
}

// letIn lets a key in that is a device's, and out again where it is not any more: a
// revocation that came before the invitation has found nothing to end.
func (s *Server) letIn(ctx context.Context, t doorkeeper, host, device string, k ccp.TransportKey) (ccp.Endpoint, error) {
	name, id := t.Name(), account.GuestID(device, k.Public)
	if err := s.holds(ctx, name, device, k); err != nil {
		return ccp.Endpoint{}, err
	}
	// A key that comes again after another one is not to be revoked late.
	if err := s.revocations.drop(name, id); err != nil {
		return ccp.Endpoint{}, err
	}
	e, err := t.Invite(ctx, host, transport.Guest{ID: id, Public: k.Public})
	if err == nil {
		if err = s.holds(ctx, name, device, k); errors.Is(err, sdk.Denied) {
			s.revokeAt([]string{name}, id, slotOf(device, k))
			return ccp.Endpoint{}, err
		}
	}
	if err != nil {
		// Without its answer an invitation may have been made all the same.
		go s.checkLate(name, device, k)
		return ccp.Endpoint{}, err
	}
	named := ccp.Endpoint{Transport: e.Transport, Host: e.Host, Port: e.Port, Params: ccp.ParamsOf(e.Params)}
	return named, named.Check()
}

// holds is an error of kind Denied for a key that is not a device's any more: the device
// was revoked, has another owner, or has announced another key since.
func (s *Server) holds(ctx context.Context, name, device string, k ccp.TransportKey) error {
	held, err := s.accounts.HasTransportKey(ctx, device, k)
	if err == nil && !held {
		err = &sdk.Error{Kind: sdk.Denied, Op: "transport " + name, Text: "the key is not the device's any more"}
	}
	return err
}

// checkLate revokes a key that is not a device's any more, and may be known.
func (s *Server) checkLate(name, device string, k ccp.TransportKey) {
	ctx, cancel := context.WithTimeout(context.Background(), lateCheck)
	defer cancel()
	switch err := s.holds(ctx, name, device, k); {
	case errors.Is(err, sdk.Denied):
		s.revokeAt([]string{name}, account.GuestID(device, k.Public), slotOf(device, k))
	case err != nil:
		s.log.Warn("whether a key is still a device's is not known", "transport", name, "device", device, "error", err)
	}
}

// toldEndpoint is keyedEndpoint for a device that connects: the transport is asked once in a
// while.
func (s *Server) toldEndpoint(ctx context.Context, device string, k ccp.TransportKey) (ccp.Endpoint, error) {
	t := s.transportNamed(account.SlotTransport(k.Transport))
	if t == nil {
		return s.keyedEndpoint(ctx, device, k)
	}
	return s.tellEndpoint(ctx, t, s.publicHost(), device, k)
}

func (s *Server) tellEndpoint(ctx context.Context, t doorkeeper, host, device string, k ccp.TransportKey) (ccp.Endpoint, error) {
	id, process := account.GuestID(device, k.Public), t.Process()
	e, round, ok := s.answers.find(id, process, time.Now())
	if ok {
		return e, nil
	}
	if s.answers.skip(id, t.Name(), time.Now()) {
		return e, &sdk.Error{Kind: sdk.Unavailable, Op: "transport " + t.Name(), Text: "it did not answer in time"}
	}
	e, err := s.letIn(ctx, t, host, device, k)
	switch {
	case err == nil:
		s.answers.keep(id, process, e, round, time.Now())
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		s.answers.silent(t.Name(), time.Now())
	}
	return e, err
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
	e, err := s.keyedEndpoint(ctx, device, k)
	if errors.Is(err, sdk.Conflict) {
		s.conflicting(ctx, device, k, err)
	}
	return e, err
}

// keysCame lets in the keys that another node was told of. What that node's transport
// makes of them is for that node to judge.
func (s *Server) keysCame(device string, keys []ccp.TransportKey) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var all sync.WaitGroup
	for _, k := range keys {
		all.Go(func() {
			if _, err := s.keyedEndpoint(ctx, device, k); err != nil {
				s.notTaken(ctx, k, err)
			}
		})
	}
	all.Wait()
}

// keysGone ends what the transports allowed to keys of a device. Where the change ends its
// sessions as well, the transports are told when those are over, or a moment later: one
// that cuts what a key carries would cut off the word why they end.
func (s *Server) keysGone(c account.Change) {
	for _, k := range c.Gone {
		names, id := []string{account.SlotTransport(k.Transport)}, account.GuestID(c.Device, k.Public)
		if !s.mayKnow(names[0]) {
			continue // what nobody is ever told would only pile up
		}
		s.answers.forget(id)
		if c.Kind == account.KeysChanged {
			s.revokeAt(names, id, slotOf(c.Device, k))
			continue
		}
		release := s.revocations.hold(id)
		s.noteRevoked(names, id, slotOf(c.Device, k))
		go func() {
			for end := time.Now().Add(farewell); s.sessions.Connected(c.Device) && time.Now().Before(end); {
				time.Sleep(farewellStep)
			}
			release()
			s.tellRevokedAt(names)
		}()
	}
}

// handAll hands the keys of all devices to a transport that has become ready, in the
// background: they replace what it knew, so that two lists must not get mixed up.
func (s *Server) handAll(t *pluginhost.Transport) { s.transports.handingAll.run(t, s.handOnce) }

func (s *Server) handOnce(t *pluginhost.Transport) {
	if !t.Registers() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if err := s.handKeys(ctx, t); err != nil && !errors.Is(err, sdk.Unavailable) {
		s.log.Error("not all keys of devices were handed to a transport", "transport", t.Name(), "error", err)
	}
}

// handed is what came of handing keys over.
type handed struct {
	refused error // the first one that concerns single keys
	damaged bool  // some device's record could not be read
}

// handKeys hands the keys of all devices to a transport, page by page. What it knew of
// others ends with the last page: they were revoked while nobody could tell it, here or by
// another node.
func (s *Server) handKeys(ctx context.Context, t doorkeeper) error {
	if err := t.Replacing(ctx); err != nil {
		return err
	}
	h, err := s.handPages(ctx, t)
	if err != nil || h.damaged { // whose record cannot be read keeps what it has
		return errors.Join(err, h.refused)
	}
	switch err := t.Replaced(ctx); {
	case errors.Is(err, sdk.Invalid):
		return h.refused // another process has come, and is handed all by itself
	case err != nil || h.refused == nil:
		return err
	}
	// One may have been refused for another that is out by now.
	h, err = s.handPages(ctx, t)
	return errors.Join(err, h.refused)
}

func (s *Server) handPages(ctx context.Context, t doorkeeper) (all handed, err error) {
	for after := ""; ; {
		next, h, err := s.handPage(ctx, t, after)
		if err != nil {
			return all, err
		}
		all.damaged = all.damaged || h.damaged
		if all.refused == nil {
			all.refused = h.refused
		}
		if next == "" {
			return all, nil
		}
		after = next
	}
}

// handPage hands over the keys of the devices that come after one. Who revokes a key
// that stands in the page waits until the page is handed over.
func (s *Server) handPage(ctx context.Context, t doorkeeper, after string) (next string, h handed, err error) {
	mu := s.handing(t.Name())
	mu.Lock()
	defer mu.Unlock()
	// Its time begins here: many revocations may be told before it.
	ctx, cancel := context.WithTimeout(ctx, pageTime)
	defer cancel()
	page, next, err := s.accounts.TransportKeys(ctx, after, keyPage)
	if err != nil {
		return "", h, err
	}
	var guests []transport.Guest
	for _, d := range page {
		if d.Err != nil {
			h.damaged = true
			s.damaged(d.Device, d.Err)
			continue
		}
		for _, k := range d.Keys {
			if account.SlotTransport(k.Transport) == t.Name() {
				guests = append(guests, transport.Guest{ID: account.GuestID(d.Device, k.Public), Public: k.Public})
			}
		}
	}
	if len(guests) == 0 {
		return next, h, nil
	}
	// Two slots at most belong to one transport, so a page fits one call.
	switch err := t.Register(ctx, guests); {
	case errors.Is(err, sdk.Unavailable) || ctx.Err() != nil:
		return "", h, errors.Join(err, ctx.Err())
	default:
		h.refused = err
		return next, h, nil
	}
}

// damaged tells the log of a device whose record cannot be read, once: all records are
// read for each transport that becomes ready.
func (s *Server) damaged(device string, err error) {
	if _, told := s.transports.damaged.LoadOrStore(device, true); !told {
		s.log.Error("a device's record is damaged, its keys reach no transport", "device", device, "error", err)
	}
}

// handing keeps the handing over of keys to a transport and their revocation apart.
func (s *Server) handing(name string) *sync.RWMutex {
	mu, _ := s.transports.handing.LoadOrStore(name, new(sync.RWMutex))
	return mu.(*sync.RWMutex)
}
