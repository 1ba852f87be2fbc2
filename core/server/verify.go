package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/commucat/commucat/core/audit"
	"github.com/commucat/commucat/core/keyring"
	"github.com/commucat/commucat/sdk/ledger"
)

// VerifyAudit checks the chain of the file ledger of a relay that does not run:
// complete from its first record, unbroken, and containing the record that the
// last signed checkpoint names. The error is a *ledger.BrokenError that names the
// first bad record, or says why the ledger could not be read.
func VerifyAudit(ctx context.Context, opt Options) (rep ledger.Report, err error) {
	if err := opt.complete(); err != nil {
		return rep, err
	}
	if !slices.Contains(opt.Config.Ledger.Backends, "file") {
		return rep, errors.New("ledger.backends does not name the file ledger: there is nothing to verify")
	}
	// Nothing is made here: an empty folder holds no chain.
	if _, err := os.Stat(filepath.Join(opt.Data, stateFile)); err != nil {
		return rep, fmt.Errorf("there is no relay in %s: %w", opt.Data, reason(err))
	}
	key, err := keyring.AuditVerifier(filepath.Join(opt.Data, keysDir))
	if err != nil {
		return rep, err
	}
	s := &Server{opt: opt, cfg: opt.Config, log: opt.Log}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	if err := s.openData(ctx); err != nil {
		return rep, err
	}
	l, _, err := s.ledger(ctx, "file")
	if err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, l.Close(ctx)) }()
	cp, err := audit.ReadCheckpoint(s.data.path("audit"), key)
	if err != nil {
		return rep, fmt.Errorf("checkpoint: %w", err)
	}
	if cp.Seq != 0 {
		return ledger.Verify(ctx, l, cp)
	}
	// A relay signs a checkpoint at its first start: without one the end of the chain
	// is anybody's word.
	if rep, err = ledger.Verify(ctx, l); err == nil {
		err = errors.New("the signed checkpoint is missing: records may have been cut off at the end")
	}
	return rep, err
}
