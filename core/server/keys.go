package server

import (
	"context"
	"errors"

	"github.com/commucat/commucat/core/keyring"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// sharedKeys is where nodes on one storage find the keys that rotation changes, sealed.
var sharedKeys = storage.Key{Kind: "relay-keys", ID: "rotating"}

// shareTries is how often a node begins anew when another was faster.
const shareTries = 4

// rotateKeys makes the keys that rotate says are due. Where several nodes use one
// storage they agree there first: who takes over a key does not make another, and of two
// that make one at once the first counts.
func (s *Server) rotateKeys(ctx context.Context, rotate func() ([]keyring.Change, error)) ([]keyring.Change, error) {
	if !s.traits.Shared {
		return rotate()
	}
	var err error
	for range shareTries {
		var changes []keyring.Change
		if changes, err = s.agreeOnKeys(ctx, rotate); !errors.Is(err, sdk.Conflict) {
			return changes, err
		}
	}
	return nil, err
}

func (s *Server) agreeOnKeys(ctx context.Context, rotate func() ([]keyring.Change, error)) ([]keyring.Change, error) {
	now := s.opt.Clock()
	have, err := s.store.Directory.Get(ctx, now, []storage.Key{sharedKeys})
	if err != nil {
		return nil, err
	}
	put := have[0].Version == 0
	if !put {
		if put, err = s.ring.Adopt(have[0].Value); err != nil {
			return nil, err
		}
	}
	changes, err := rotate()
	if err != nil || !put && len(changes) == 0 {
		return changes, err
	}
	b, err := s.ring.Share()
	if err != nil {
		return changes, err
	}
	if err := s.store.Directory.Commit(ctx, now, []storage.Write{{Key: sharedKeys, Expect: have[0].Version, Value: b}}); err != nil {
		return changes, err
	}
	if s.hub != nil {
		s.tellNodes(notice{Keys: true})
	}
	return changes, nil
}

// openSharedKeys agrees with the other nodes before anybody is served.
func (s *Server) openSharedKeys(ctx context.Context) error {
	changes, err := s.rotateKeys(ctx, s.ring.Rotate)
	if err != nil {
		return err
	}
	before := s.onOpenAudit
	s.onOpenAudit = func() {
		before()
		s.recordKeys(changes)
	}
	return nil
}
