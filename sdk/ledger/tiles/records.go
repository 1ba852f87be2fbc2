package tiles

import (
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
			return out, corrupt("record %d stands in place of record %d", r.Seq, seq)
		}
		out = append(out, r)
	}
	return out, nil
}
