package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/commucat/commucat/core/audit"
	"github.com/commucat/commucat/core/keyring"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
	"github.com/commucat/commucat/sdk/ledger/tiles"
)

// Ledgers that can be verified: the file ledger by opening it, the transparency log
// by its own form, which needs no plugin.
const (
	fileLedger = "file"
	tlogLedger = "tlog"
)

// VerifiedLedgers are the configured ledgers that VerifyAudit knows how to read.
func VerifiedLedgers(opt Options) []string {
	var out []string
	for _, name := range opt.Config.Ledger.Backends {
		if name == fileLedger || name == tlogLedger {
			out = append(out, name)
		}
	}
	return out
}

// VerifyAudit checks the chain of one ledger of a relay: complete from its first
// record, unbroken, and containing the record that the relay's last signed checkpoint
// names and those that it took itself, apart from what still waits for it in the spool; a
// transparency log's hashes and tree head as well. The file ledger needs a stopped relay. The error is a *ledger.BrokenError or *tiles.DamageError that names
// the first bad record, or says why the ledger could not be read. progress is told
// the records seen and may be nil.
func VerifyAudit(ctx context.Context, opt Options, name string, progress func(records int64)) (rep ledger.Report, err error) {
	if err := opt.complete(); err != nil {
		return rep, err
	}
	if !slices.Contains(VerifiedLedgers(opt), name) {
		return rep, fmt.Errorf("ledger.backends names no ledger %q that can be verified (%s and %s can)", name, fileLedger, tlogLedger)
	}
	// Nothing is made here: an empty folder holds no chain.
	if _, err := os.Stat(filepath.Join(opt.Data, stateFile)); err != nil {
		return rep, fmt.Errorf("there is no relay in %s: %w", opt.Data, reason(err))
	}
	key, err := keyring.AuditVerifier(filepath.Join(opt.Data, keysDir))
	if err != nil {
		return rep, err
	}
	past, err := audit.ReadPast(filepath.Join(opt.Data, auditDir), key)
	if err != nil {
		return rep, err
	}
	s := &Server{opt: opt, cfg: opt.Config, log: opt.Log}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	l, err := s.chain(ctx, name, progress)
	if err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, l.Close(ctx)) }()
	return past.Verify(ctx, name, l)
}

// chain opens a ledger for reading.
func (s *Server) chain(ctx context.Context, name string, progress func(int64)) (ledger.Ledger, error) {
	if name == fileLedger {
		if err := s.openData(ctx); err != nil {
			return nil, err
		}
		l, _, err := s.ledger(ctx, name)
		return l, err
	}
	log, err := OpenTransparencyLog(s.opt)
	if err != nil {
		return nil, err
	}
	return tileChain{log.Reader}, log.VerifyRecords(ctx, progress)
}

// TransparencyLog is the reading side of a relay's transparency log.
type TransparencyLog struct {
	*tiles.Reader
	// Dir is the log's folder, Key its public key.
	Dir, Key string
	// Witnesses are the keys that may cosign.
	Witnesses []string
}

// OpenTransparencyLog opens the relay's transparency log, also while the relay runs.
func OpenTransparencyLog(opt Options) (TransparencyLog, error) {
	keys := opt.Config.Keys(sdk.Ledger, tlogLedger)
	l := TransparencyLog{Dir: text(keys["path"])}
	if l.Dir == "" {
		l.Dir = "log"
	}
	if !filepath.IsAbs(l.Dir) {
		l.Dir = filepath.Join(opt.Data, stateDir, "ledger-"+tlogLedger, l.Dir)
	}
	key, err := os.ReadFile(filepath.Join(l.Dir, "key.pub"))
	if errors.Is(err, fs.ErrNotExist) {
		return l, fmt.Errorf("there is no transparency log in %s", l.Dir)
	}
	if err != nil {
		return l, err
	}
	l.Key = strings.TrimSpace(string(key))
	if list, ok := plain(keys["witnesses"]).([]any); ok {
		for _, w := range list {
			l.Witnesses = append(l.Witnesses, text(w))
		}
	}
	l.Reader, err = tiles.OpenReader(os.DirFS(l.Dir), l.Key, l.Witnesses...)
	return l, err
}

// plain takes a value out of what remembers its place in the file.
func plain(v any) any {
	for {
		l, ok := v.(sdk.Located)
		if !ok {
			return v
		}
		v = l.Value
	}
}

func text(v any) string {
	s, _ := plain(v).(string)
	return s
}

// tileChain shows a transparency log as the chain that it holds.
type tileChain struct{ r *tiles.Reader }

func (t tileChain) Submit(context.Context, []ledger.Record) error { return sdk.Unsupported }

func (t tileChain) Head(ctx context.Context) (ledger.Record, error) {
	r, err := t.Read(ctx, uint64(max(t.r.Head().Size-1, 0)), 1)
	if err != nil || len(r) == 0 {
		return ledger.Record{}, err
	}
	return r[0], nil
}

func (t tileChain) Read(ctx context.Context, after uint64, limit int) ([]ledger.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return t.r.Records(after, limit)
}

func (t tileChain) Close(context.Context) error { return nil }
