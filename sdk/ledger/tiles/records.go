package tiles

import (
	"context"
	"errors"
	"fmt"

	"github.com/commucat/commucat/sdk/ledger"
)

// Records reads at most limit records of an audit chain with numbers greater than
// after: entry 0 is record 1. It checks each record's form and number; the chain is
// the caller's business. The error has kind Corrupt.
func (r *Reader) Records(after uint64, limit int) ([]ledger.Record, error) {
	return parseRecords(r.Read, after, limit)
}

// Records is Reader.Records for the writing side.
func (l *Log) Records(after uint64, limit int) ([]ledger.Record, error) {
	return parseRecords(l.Read, after, limit)
}

func parseRecords(read func(int64, int) ([][]byte, error), after uint64, limit int) ([]ledger.Record, error) {
	lines, err := read(int64(min(after, 1<<62)), limit)
	if err != nil {
		return nil, err
	}
	out := make([]ledger.Record, 0, len(lines))
	for i, line := range lines {
		seq := after + uint64(i) + 1
		r, err := ledger.ParseLine(line)
		if err != nil {
			return out, &DamageError{File: bundlePath(int64(seq-1)/width, width), Record: int64(seq - 1), Text: "cannot be read: " + err.Error()}
		}
		if r.Seq != seq {
			return out, &DamageError{File: bundlePath(int64(seq-1)/width, width), Record: int64(seq - 1), Text: fmt.Sprintf("is not there: record %d stands in its place", r.Seq)}
		}
		out = append(out, r)
	}
	return out, nil
}

// VerifyRecords is Verify for a log that holds an audit chain: where only a hash above the
// records shows that something was changed, the chain says which record cannot be believed.
func (r *Reader) VerifyRecords(ctx context.Context, progress func(records int64)) error {
	err := r.Verify(ctx, progress)
	var d *DamageError
	if !errors.As(err, &d) || d.Record >= 0 {
		return err
	}
	var chain ledger.Chain
	for chain.Head.Seq < uint64(r.head.Size) {
		page, bad := r.Records(chain.Head.Seq, width)
		for _, rec := range page {
			var broken *ledger.BrokenError
			if errors.As(chain.Add(rec), &broken) {
				n := int64(broken.Seq) - 1
				return &DamageError{File: bundlePath(n/width, tileSize(0, n/width, r.head.Size)), Record: n, Text: "cannot be believed: " + broken.Text}
			}
		}
		if errors.As(bad, &d) {
			return d
		}
		if bad != nil || len(page) == 0 || ctx.Err() != nil {
			break
		}
	}
	return err
}
