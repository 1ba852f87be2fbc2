package server

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"

	"github.com/commucat/commucat/core/audit"
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
	s := &Server{opt: opt, cfg: opt.Config, log: opt.Log}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	if err := s.openData(ctx); err != nil {
		return rep, err
	}
	if err := s.openKeys(ctx); err != nil {
		return rep, err
	}
	l, _, err := s.ledger(ctx, "file")
	if err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, l.Close(ctx)) }()
	cp, err := audit.ReadCheckpoint(s.data.path("audit"), s.ring.AuditSigner().Public().(ed25519.PublicKey))
	if err != nil {
		return rep, fmt.Errorf("checkpoint: %w", err)
	}
	if cp.Seq == 0 {
		return ledger.Verify(ctx, l)
	}
	return ledger.Verify(ctx, l, cp)
}
