package tlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
	"github.com/commucat/commucat/sdk/ledger/tiles"
)

type tlog struct {
	log *tiles.Log

	mu   sync.Mutex // around Submit as a whole: it is the order of the chain
	head ledger.Record
	// failed: a write did, and how far it came is on the disk.
	failed bool
	closed bool
}

// usable is called with mu held.
func (l *tlog) usable(ctx context.Context) error {
	if l.closed {
		return fail(sdk.Closed, "it has been closed")
	}
	return ctx.Err()
}

var _ ledger.Ledger = (*tlog)(nil)

func fail(kind sdk.ErrorKind, format string, args ...any) error {
	return &sdk.Error{Kind: kind, Op: "ledger tlog", Text: fmt.Sprintf(format, args...)}
}

// recover goes on after a failed write, with what is on the disk.
func (l *tlog) recover() error {
	if !l.failed {
		return nil
	}
	if err := l.log.Reload(); err != nil {
		return err
	}
	head, err := l.last()
	if err != nil {
		return err
	}
	l.head, l.failed = head, false
	return nil
}

// unavailable gives what the disk said its kind: trying again helps, once there is room.
func unavailable(err error) error {
	var path *fs.PathError
	if sdk.KindOf(err) == sdk.Other && errors.As(err, &path) {
		return &sdk.Error{Kind: sdk.Unavailable, Op: "ledger tlog", Err: err}
	}
	return err
}

// last reads the newest record.
func (l *tlog) last() (ledger.Record, error) {
	size := l.log.Head().Size
	if size == 0 {
		return ledger.Record{}, nil
	}
	r, err := l.log.Records(uint64(size)-1, 1)
	if err != nil {
		return ledger.Record{}, err
	}
	return r[0], nil
}

// Submit implements ledger.Ledger: the records and a checkpoint that covers them are
// on stable storage when it returns nil. After an error that the disk gave, the next call
// begins with what is on it.
func (l *tlog) Submit(ctx context.Context, records []ledger.Record) error {
	for _, r := range records {
		if err := r.Check(); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usable(ctx); err != nil {
		return err
	}
	if err := l.recover(); err != nil {
		return unavailable(err)
	}
	fresh, err := l.fresh(records)
	if err != nil {
		return err
	}
	chain := ledger.Chain{Head: l.head}
	lines := make([][]byte, 0, len(fresh))
	for _, r := range fresh {
		if err := chain.Add(r); err != nil {
			return &sdk.Error{Kind: sdk.Conflict, Op: "ledger tlog", Text: "the record does not follow the log's last one", Err: err}
		}
		lines = append(lines, r.AppendLine(nil))
	}
	if len(lines) == 0 {
		return nil
	}
	if err := l.log.Append(lines); err != nil {
		l.failed = true
		return unavailable(err)
	}
	l.head = chain.Head
	l.head.Metadata = append([]byte(nil), l.head.Metadata...)
	return nil
}

// fresh leaves out the records that the log has.
func (l *tlog) fresh(records []ledger.Record) ([]ledger.Record, error) {
	for len(records) > 0 && records[0].Seq <= l.head.Seq {
		n := int(min(uint64(len(records)), l.head.Seq-records[0].Seq+1))
		have, err := l.log.Records(records[0].Seq-1, n)
		if err != nil {
			return nil, err
		}
		for i, h := range have {
			if !h.Equal(records[i]) {
				return nil, fail(sdk.Conflict, "the log has another record %d", h.Seq)
			}
		}
		records = records[len(have):]
	}
	return records, nil
}

// Head implements ledger.Ledger.
func (l *tlog) Head(ctx context.Context) (ledger.Record, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head, l.usable(ctx)
}

// Read implements ledger.Ledger.
func (l *tlog) Read(ctx context.Context, after uint64, limit int) ([]ledger.Record, error) {
	l.mu.Lock()
	err := l.usable(ctx)
	l.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return l.log.Records(after, limit)
}

// Close implements ledger.Ledger.
func (l *tlog) Close(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	return l.log.Close()
}
