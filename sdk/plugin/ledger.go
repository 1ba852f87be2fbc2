package plugin

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
	"github.com/commucat/commucat/sdk/ledger"
)

// ledgers serves ledgers.
type ledgers struct {
	wirepb.UnimplementedLedgerServer
	*server
}

func (l *ledgers) opened(id uint64) (ledger.Ledger, error) {
	i, err := l.find(id)
	if err == nil && i.ledger == nil {
		err = &sdk.Error{Kind: sdk.Invalid, Text: "the plugin is no ledger"}
	}
	if err != nil {
		return nil, err
	}
	return i.ledger, nil
}

func (l *ledgers) Submit(in grpc.ClientStreamingServer[wirepb.LedgerRecords, wirepb.Done]) error {
	var records []ledger.Record
	id := uint64(0)
	for {
		part, err := in.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		id = max(id, part.Instance)
		for _, one := range part.Records {
			r, err := wire.ToLedgerRecord(one)
			if err != nil {
				return in.SendAndClose(&wirepb.Done{Error: wire.FromError(&sdk.Error{Kind: sdk.Invalid, Text: "malformed record"})})
			}
			records = append(records, r)
		}
	}
	opened, err := l.opened(id)
	if err == nil {
		err = opened.Submit(in.Context(), records)
	}
	return in.SendAndClose(&wirepb.Done{Error: wire.FromError(err)})
}

func (l *ledgers) Head(ctx context.Context, r *wirepb.Instance) (*wirepb.LedgerRecords, error) {
	opened, err := l.opened(r.Instance)
	var head ledger.Record
	if err == nil {
		head, err = opened.Head(ctx)
	}
	if err != nil {
		return &wirepb.LedgerRecords{Error: wire.FromError(err)}, nil
	}
	return &wirepb.LedgerRecords{Records: []*wirepb.LedgerRecord{wire.FromLedgerRecord(&head)}}, nil
}

func (l *ledgers) Read(r *wirepb.LedgerRead, out grpc.ServerStreamingServer[wirepb.LedgerRecords]) error {
	opened, err := l.opened(r.Instance)
	var records []ledger.Record
	if err == nil {
		records, err = opened.Read(out.Context(), r.After, int(r.Limit))
	}
	if err != nil {
		return out.Send(&wirepb.LedgerRecords{Error: wire.FromError(err)})
	}
	for len(records) > 0 {
		part := &wirepb.LedgerRecords{}
		n, size := 0, 0
		for n < len(records) && size <= wire.PartBytes {
			part.Records = append(part.Records, wire.FromLedgerRecord(&records[n]))
			size += len(records[n].Metadata) + 128
			n++
		}
		records = records[n:]
		if err := out.Send(part); err != nil {
			return err
		}
	}
	return nil
}
