package host

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
	"github.com/commucat/commucat/sdk/ledger"
)

// remoteLedger stands for a ledger in the other process.
type remoteLedger struct{ remote }

var _ ledger.Opener = (*remoteLedger)(nil)

// Forgets implements ledger.Opener.
func (r *remoteLedger) Forgets() bool { return r.d.Ledger.Forgets }

// Open implements ledger.Opener.
func (r *remoteLedger) Open(ctx context.Context, env sdk.Env, raw map[string]any) (ledger.Ledger, error) {
	id, _, err := r.open(ctx, env, raw)
	if err != nil {
		return nil, err
	}
	return &openedLedger{p: r.p, id: id, call: wirepb.NewLedgerClient(r.p.conn)}, nil
}

// openedLedger is an opened ledger of the other process.
type openedLedger struct {
	p      *Process
	id     uint64
	call   wirepb.LedgerClient
	closed atomic.Bool
	once   sync.Once
	err    error
}

func (l *openedLedger) check(ctx context.Context) error {
	if l.closed.Load() {
		return &sdk.Error{Kind: sdk.Closed, Op: "ledger", Text: "it is closed"}
	}
	return ctx.Err()
}

// Submit implements ledger.Ledger.
func (l *openedLedger) Submit(ctx context.Context, records []ledger.Record) error {
	if err := l.check(ctx); err != nil {
		return err
	}
	for i := range records {
		if err := records[i].Check(); err != nil {
			return err
		}
	}
	if len(records) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out, err := l.call.Submit(ctx)
	if err != nil {
		return l.p.callError(ctx, err)
	}
	for rest := records; len(rest) > 0; {
		part := &wirepb.LedgerRecords{Instance: l.id}
		n, size := 0, 0
		for n < len(rest) && size <= wire.PartBytes {
			part.Records = append(part.Records, wire.FromLedgerRecord(&rest[n]))
			size += len(rest[n].Metadata) + 128
			n++
		}
		rest = rest[n:]
		if err := out.Send(part); err != nil {
			break // CloseAndRecv says why
		}
	}
	r, err := out.CloseAndRecv()
	if err != nil {
		return l.p.callError(ctx, err)
	}
	return wire.ToError(r.Error)
}

// Head implements ledger.Ledger.
func (l *openedLedger) Head(ctx context.Context) (ledger.Record, error) {
	if err := l.check(ctx); err != nil {
		return ledger.Record{}, err
	}
	r, err := l.call.Head(ctx, &wirepb.Instance{Instance: l.id})
	if err != nil {
		return ledger.Record{}, l.p.callError(ctx, err)
	}
	if err := wire.ToError(r.Error); err != nil {
		return ledger.Record{}, err
	}
	if len(r.Records) != 1 {
		return ledger.Record{}, odd(1, len(r.Records))
	}
	head, err := wire.ToLedgerRecord(r.Records[0])
	if err == nil && head.Seq == 0 {
		head = ledger.Record{}
	}
	return head, err
}

// Read implements ledger.Ledger.
func (l *openedLedger) Read(ctx context.Context, after uint64, limit int) ([]ledger.Record, error) {
	if err := l.check(ctx); err != nil {
		return nil, err
	}
	if limit <= 0 {
		return nil, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, err := l.call.Read(ctx, &wirepb.LedgerRead{Instance: l.id, After: after, Limit: int64(limit)})
	if err != nil {
		return nil, l.p.callError(ctx, err)
	}
	var out []ledger.Record
	for {
		part, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, l.p.callError(ctx, err)
		}
		if err := wire.ToError(part.Error); err != nil {
			return nil, err
		}
		if len(out)+len(part.Records) > limit {
			return nil, odd(limit, len(out)+len(part.Records))
		}
		for _, one := range part.Records {
			r, err := wire.ToLedgerRecord(one)
			if err != nil {
				return nil, err
			}
			out = append(out, r)
		}
	}
}

// Close implements ledger.Ledger.
func (l *openedLedger) Close(ctx context.Context) error {
	l.once.Do(func() {
		l.closed.Store(true)
		l.err = l.p.shut(ctx, l.id)
	})
	return l.err
}
