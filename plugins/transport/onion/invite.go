package onion

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"

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

// apply writes down who may come, and has tor told of it.
func (s *service) apply() error {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.mu.Lock()
	d := s.daemon
	s.mu.Unlock()
	news := s.guests.changes()
	if !s.cfg.Authorise || d != nil && news == s.told {
		return nil // files would have tor ask everybody for a key
	}
	if s.cfg.Control == "" {
		if err := s.guests.write(s.folder(), false); err != nil {
			return err
		}
		s.written = news
	}
	if d == nil {
		return nil // run looks for changes when there is one
	}
	s.publication(outdated)
	d.change()
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
