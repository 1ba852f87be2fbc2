package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/core/transfer"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// CopyStorage copies the accounts and messages of a stopped relay from one storage to
// another that the configuration can name, and compares the two. It takes the data
// folder as a relay does, so that none runs meanwhile. p may be nil.
func CopyStorage(ctx context.Context, opt Options, from, to string, p *transfer.Progress) (rep transfer.Report, err error) {
	if err := opt.complete(); err != nil {
		return rep, err
	}
	if from == to {
		return rep, fmt.Errorf("%s cannot be copied to itself", from)
	}
	// Nothing is made here: an empty folder has nothing to copy.
	if _, err := os.Stat(filepath.Join(opt.Data, stateFile)); err != nil {
		return rep, fmt.Errorf("there is no relay in %s: %w", opt.Data, reason(err))
	}
	s := &Server{opt: opt, cfg: opt.Config, current: opt.Config, log: opt.Log, metrics: metrics.New(metrics.Options{Version: opt.Version})}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	if err := s.openData(ctx); err != nil {
		return rep, err
	}
	if err := s.openHost(ctx); err != nil {
		return rep, err
	}
	o := transfer.Options{Now: opt.Clock(), Progress: p}
	for _, side := range []*transfer.Side{&o.From, &o.To} {
		side.Name = from
		if side == &o.To {
			side.Name = to
		}
		if opt.plugin(sdk.Storage, side.Name) == nil {
			if err := s.openFolders(); err != nil {
				return rep, err
			}
		}
		if side.Store, side.Traits, err = s.storage(ctx, side.Name); err != nil {
			return rep, err
		}
		if side.Traits.Source {
			return rep, fmt.Errorf("storage %s is another program's: 'commucat migrate' imports from it", side.Name)
		}
	}
	open := o.To.Store
	o.Reopen = func(ctx context.Context) (storage.Store, error) {
		if open.Close != nil {
			if err := open.Close(ctx); err != nil {
				return storage.Store{}, err
			}
		}
		var err error
		open, _, err = s.storage(ctx, to)
		return open, err
	}
	if o.From.Store.Directory == nil {
		return rep, fmt.Errorf("storage %s keeps no accounts", from)
	}
	if from, err := transfer.Unfinished(ctx, o.From.Store.Directory, o.Now); err != nil || from != "" {
		if err == nil {
			err = fmt.Errorf("it is itself an unfinished copy of %s", from)
		}
		return rep, fmt.Errorf("storage %s: %w", o.From.Name, err)
	}
	return transfer.Copy(ctx, o)
}

// whole refuses a storage that a copy has not come to its end in.
func (s *Server) whole(ctx context.Context) error {
	from, err := transfer.Unfinished(ctx, s.store.Directory, s.opt.Clock())
	if err != nil {
		return fmt.Errorf("storage %s: %w", s.cfg.Storage.Backend, err)
	}
	if from != "" {
		return fmt.Errorf("storage %s holds an unfinished copy of %s; finish it with: commucat storage copy --from %s --to %s",
			s.cfg.Storage.Backend, from, from, s.cfg.Storage.Backend)
	}
	return nil
}
