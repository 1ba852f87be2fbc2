package server

import (
	"context"
	"errors"
	"fmt"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// storageMark stands in a storage that this relay has used: its root key's public half.
var storageMark = storage.Key{Kind: "relay-storage", ID: "owner"}

// openMark refuses a storage that is not the one this relay was used with: one without
// accounts, because a disk is not mounted or nothing was copied, would know no device, and
// give the first invitation to whoever starts the relay. One with accounts and without a
// mark is older than the mark, or was imported into.
func (s *Server) openMark(ctx context.Context) error {
	now, root := s.opt.Clock(), fmt.Sprintf("%x", s.ring.RootPublic())
	mark, err := s.storageMark(ctx)
	if err == nil && mark == "" && s.data.drawn.Marked {
		var used bool
		if used, err = account.HasUsers(ctx, s.store.Directory, now); err == nil && !used {
			return fmt.Errorf("storage %s has no accounts, but this relay has been used with one that was marked as its own: see whether its folder or database is the right one, "+
				"restore it from a backup, or bring the former storage's content with 'commucat storage copy'; to begin anew take an empty data folder", s.cfg.Storage.Backend)
		}
	}
	if err == nil && mark == "" {
		err = s.store.Directory.Commit(ctx, now, []storage.Write{{Key: storageMark, Value: []byte(root)}})
		if mark = root; errors.Is(err, sdk.Conflict) { // another node was first
			mark, err = s.storageMark(ctx)
		}
	}
	switch {
	case err != nil:
		return fmt.Errorf("storage: %w", err)
	case mark != root:
		return fmt.Errorf("storage %s belongs to a relay with other keys; copy keys/ and relay.json from one of its nodes into this data folder, or name another storage", s.cfg.Storage.Backend)
	case s.data.drawn.Marked || s.opt.Prepare: // prepared with another storage than it will be used with, perhaps
		return nil
	}
	s.data.drawn.Marked = true
	return s.data.keep()
}

// storageMark is "" where the storage has none.
func (s *Server) storageMark(ctx context.Context) (string, error) {
	have, err := s.store.Directory.Get(ctx, s.opt.Clock(), []storage.Key{storageMark})
	if err != nil {
		return "", err
	}
	return string(have[0].Value), nil
}
