package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/audit"
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/core/reference"
	"github.com/commucat/commucat/core/relay"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/storage"
)

// ImportReference takes over accounts, groups and waiting messages of the reference
// server into a stopped relay's storage. source names the storage plugin that shows the
// reference's database. It takes the data folder as a relay does, so that none runs
// meanwhile. p may be nil.
func ImportReference(ctx context.Context, opt Options, source string, dryRun bool, p *reference.Progress) (rep *reference.Report, err error) {
	if err := opt.complete(); err != nil {
		return nil, err
	}
	// Nothing is made here: the relay's keys are to be made, and kept, with it.
	if _, err := os.Stat(filepath.Join(opt.Data, stateFile)); err != nil {
		return nil, fmt.Errorf("there is no relay in %s: %w; make one with 'commucat init'", opt.Data, reason(err))
	}
	s := &Server{opt: opt, cfg: opt.Config, current: opt.Config, log: opt.Log, metrics: metrics.New(metrics.Options{Version: opt.Version})}
	defer func() { err = errors.Join(err, s.close(context.WithoutCancel(ctx))) }()
	for _, f := range []func(context.Context) error{
		s.openData, s.openKeys, s.openHost, func(context.Context) error { return s.openFolders() }, s.openStorage, s.openMark, s.openSharedKeys, s.openAudit,
	} {
		if err := f(ctx); err != nil {
			return nil, err
		}
	}
	from, traits, err := s.storage(ctx, source)
	if err != nil {
		return nil, err
	}
	if !traits.Source {
		return nil, fmt.Errorf("storage %s is none to import from", source)
	}
	rep, err = reference.Run(ctx, reference.Options{
		Source: from, Target: s.store, Traits: s.traits, Domain: string(s.cfg.Server.Domain), TTL: s.cfg.Limits.RelayTTL,
		Accounts: func(d storage.Directory) *account.Store {
			return account.New(d, account.Options{
				Domain: string(s.cfg.Server.Domain), Clock: opt.Clock, Rand: opt.Rand, CA: func() identity.CA { return s.ring.CA() },
			})
		},
		Sealer: relay.NewSealer(s.ring.StorageKey(), opt.Rand), DryRun: dryRun, Clock: opt.Clock, Progress: p,
	})
	if err == nil && !dryRun {
		err = s.audit.RecordDurably(ctx, audit.Imported(source, rep.Carried()))
	}
	return rep, err
}
