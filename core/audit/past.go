package audit

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
	"github.com/commucat/commucat/sdk/ledger/journal"
)

// Past is what a relay's audit folder knows about its chain beside the ledgers: the signed
// checkpoint, what each ledger took, and what waits in the spool.
type Past struct {
	dir        string
	checkpoint ledger.Checkpoint
	marks      map[string]mark
}

// ReadPast reads it, also while a recorder works in dir: read it before the ledger that is
// to be verified. key verifies the checkpoint.
func ReadPast(dir string, key ed25519.PublicKey) (Past, error) {
	p := Past{dir: dir, marks: map[string]mark{}}
	list, err := os.ReadDir(filepath.Join(dir, sentFolder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return p, &sdk.Error{Kind: sdk.Unavailable, Op: "audit", Err: err}
	}
	for _, e := range list {
		if e.Name()[0] == '.' {
			continue
		}
		m, err := readMark(dir, e.Name())
		if sdk.KindOf(err) == sdk.Corrupt {
			continue // a loss of power leaves such a file; Open says so
		}
		if err != nil {
			return p, err
		}
		p.marks[e.Name()] = m
	}
	if p.checkpoint, err = ReadCheckpoint(dir, key); err != nil {
		return p, fmt.Errorf("checkpoint: %w", err)
	}
	return p, nil
}

// Verify reads the whole ledger called name and checks that its chain is complete and
// unbroken, that it has what it once took, and that with the records which wait for it in
// the spool it contains those that the checkpoint and what other ledgers took name. The
// error is a *ledger.BrokenError, or says why something could not be read, or that there is
// no checkpoint; the report covers what was good.
func (p Past) Verify(ctx context.Context, name string, l ledger.Ledger) (ledger.Report, error) {
	w := watched{Ledger: l, seen: map[uint64][32]byte{p.checkpoint.Seq: {}}}
	for _, m := range p.marks {
		w.seen[m.seq] = [32]byte{}
	}
	rep, err := ledger.Verify(ctx, w)
	if err != nil {
		return rep, err
	}
	if m := p.marks[name]; m.seq > rep.Head.Seq {
		return rep, &ledger.BrokenError{Seq: rep.Head.Seq + 1, Text: fmt.Sprintf(
			"it is missing, and this ledger took record %d: it was cut off, rolled back or replaced", m.seq)}
	}
	head, err := p.waiting(rep.Head, w)
	if err != nil {
		return rep, err
	}
	rep.Behind = head - rep.Head.Seq
	if err := p.agrees(head, w); err != nil {
		return rep, err
	}
	// A relay signs a checkpoint at its first start: without one the end of the chain
	// is anybody's word.
	if p.checkpoint.Seq == 0 {
		return rep, errors.New("the signed checkpoint is missing: records may have been cut off at the end")
	}
	return rep, nil
}

// waiting follows the chain from a ledger's last record through the spool, and returns the
// number of the last record.
func (p Past) waiting(last ledger.Record, w watched) (uint64, error) {
	chain := ledger.Chain{Head: last}
	gap := errors.New("gap")
	err := journal.Scan(filepath.Join(p.dir, "spool"), last.Seq, func(r ledger.Record) error {
		if r.Seq != chain.Head.Seq+1 {
			return gap // what lies between is nowhere; whether that is known agrees says
		}
		w.see(r)
		return chain.Add(r)
	})
	if err != nil && !errors.Is(err, gap) {
		return chain.Head.Seq, fmt.Errorf("what waits in the spool: %w", err)
	}
	return chain.Head.Seq, nil
}

// agrees compares the chain up to head with what is known of it.
func (p Past) agrees(head uint64, w watched) error {
	check := func(who string, seq uint64, hash []byte) error {
		switch held := w.seen[seq]; {
		case seq > head:
			return &ledger.BrokenError{Seq: head + 1, Text: fmt.Sprintf("it is missing, and %s record %d: the chain was cut off or rolled back", who, seq)}
		case seq > 0 && hash != nil && string(held[:]) != string(hash):
			return &ledger.BrokenError{Seq: seq, Text: who + " another record: the chain was replaced"}
		}
		return nil
	}
	if err := check("the checkpoint of "+p.checkpoint.Domain+" knows", p.checkpoint.Seq, p.checkpoint.Hash[:]); err != nil {
		return err
	}
	names := make([]string, 0, len(p.marks))
	for name := range p.marks {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := check("ledger "+name+" took", p.marks[name].seq, p.marks[name].hash); err != nil {
			return err
		}
	}
	return nil
}

// watched is a ledger being read, of which the hashes of some records are kept.
type watched struct {
	ledger.Ledger
	seen map[uint64][32]byte
}

func (w watched) see(r ledger.Record) {
	if _, wanted := w.seen[r.Seq]; wanted {
		w.seen[r.Seq] = r.Hash
	}
}

// Read implements ledger.Ledger.
func (w watched) Read(ctx context.Context, after uint64, limit int) ([]ledger.Record, error) {
	page, err := w.Ledger.Read(ctx, after, limit)
	for _, r := range page {
		w.see(r)
	}
	return page, err
}
