package onion

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"time"

	"github.com/cretz/bine/control"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// Parameters of our endpoints.
const (
	paramToken  = "t" // token of the guest, base64url
	paramSecret = "k" // X25519 private key of a link, base64url
)

// Invite implements transport.Server. The host is always the onion address.
func (s *service) Invite(_ context.Context, _ string, g transport.Guest) (transport.Endpoint, error) {
	s.mu.Lock()
	address, reason := s.address, s.reason
	s.mu.Unlock()
	if address == "" {
		return transport.Endpoint{}, reason
	}
	to := transport.Endpoint{Transport: Name, Host: address + ".onion", Port: uint16(s.cfg.Port), Params: map[string]string{}}
	if !s.cfg.Authorise {
		return to, nil
	}
	if g.ID == "" {
		return to, &sdk.Error{Kind: sdk.Unavailable, Op: "onion", Text: "with authorise = true there is no address for everybody"}
	}
	public := g.Public
	if public == nil {
		key, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			return to, err
		}
		public = key.PublicKey().Bytes()
		to.Params[paramSecret] = base64.RawURLEncoding.EncodeToString(key.Bytes())
	}
	if len(public) != 32 {
		return to, &sdk.Error{Kind: sdk.Invalid, Op: "onion", Text: "the guest's key has not 32 bytes"}
	}
	token := make([]byte, tokenSize)
	if _, err := rand.Read(token); err != nil {
		return to, err
	}
	if err := s.guests.add(g.ID, public, token, g.Expires); err != nil {
		return to, err
	}
	to.Params[paramToken] = base64.RawURLEncoding.EncodeToString(token)
	return to, s.apply()
}

// apply makes tor read the authorised clients and publish a descriptor for them. Many
// calls at once are one for tor.
func (s *service) apply() error {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.mu.Lock()
	d := s.daemon
	s.mu.Unlock()
	news := s.guests.changes()
	if d != nil && news == s.told {
		return nil
	}
	if s.cfg.Control == "" {
		if err := s.guests.write(s.folder()); err != nil {
			return err
		}
	}
	if d == nil {
		return nil // run looks for changes when there is one
	}
	s.publication(outdated)
	if d.foreign {
		select {
		case d.changed <- struct{}{}:
		default:
		}
		return nil
	}
	if _, err := d.ask("SIGNAL RELOAD"); err != nil {
		return err
	}
	s.told = news
	s.publication(told)
	return nil
}

// Revoke implements transport.Server: the token is worthless at once, the guest's
// circuits are cut, and the next descriptor cannot be read by it.
func (s *service) Revoke(_ context.Context, id string) error {
	known, err := s.guests.remove(id)
	if !known || err != nil {
		return err
	}
	s.mu.Lock()
	list := s.circuits[id]
	delete(s.circuits, id)
	for _, c := range list {
		delete(s.whose, c)
	}
	s.mu.Unlock()
	for _, c := range list {
		s.cut(c)
	}
	return s.apply()
}

// publication is how far the service's descriptor is.
type publication int

const (
	outdated  publication = iota // tor has yet to be told of some guest
	told                         // it knows them all
	uploading                    // and sends their descriptor to directories
	uploaded                     // one has it
)

// descriptor follows what becomes of the service's descriptors. One with the guests of
// before does not make the service ready: whoever fetched it would be refused, and a
// directory is asked once in a while only.
func (s *service) descriptor(e *control.HSDescEvent, progress *watch) {
	s.mu.Lock()
	if e.Address != s.address && s.address != "" {
		s.mu.Unlock()
		return
	}
	ready := false
	switch {
	case e.Action == "UPLOAD" && s.news == told:
		s.news = uploading
	case e.Action == "UPLOADED":
		progress.stop()
		if s.news == uploading {
			s.news, ready = uploaded, true
		} else if s.patient == nil {
			s.patient = time.AfterFunc(enough, func() {
				s.mu.Lock()
				lives := s.daemon != nil
				s.mu.Unlock()
				if lives {
					s.ready()
				}
			})
		}
	}
	s.mu.Unlock()
	if ready {
		s.ready()
	}
}

// enough is how long a service that has a descriptor waits for a better one: tor makes
// none where it sees no difference.
const enough = 10 * time.Second

func (s *service) ready() {
	s.mu.Lock()
	news := s.reason != nil
	s.mu.Unlock()
	if news {
		s.setHealth(nil)
		s.env.Log().Info("onion service is published")
	}
}

func (s *service) publication(p publication) {
	s.mu.Lock()
	s.news = p
	s.mu.Unlock()
}
