package wire

import (
	"time"

	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
	"github.com/commucat/commucat/sdk/ledger"
)

// FromLedgerRecord writes a record.
func FromLedgerRecord(r *ledger.Record) *wirepb.LedgerRecord {
	return &wirepb.LedgerRecord{
		Seq: r.Seq, TimeUnixMicro: r.Time.UnixMicro(), Digest: r.Digest[:], Prev: r.Prev[:], Hash: r.Hash[:], Metadata: r.Metadata,
	}
}

// ToLedgerRecord reads a record; whether its chain holds is for others to check.
func ToLedgerRecord(r *wirepb.LedgerRecord) (ledger.Record, error) {
	if len(r.GetDigest()) != 32 || len(r.GetPrev()) != 32 || len(r.GetHash()) != 32 || len(r.GetMetadata()) > ledger.MaxMetadata {
		return ledger.Record{}, corrupt("a record that is none")
	}
	return ledger.Record{
		Seq: r.Seq, Time: time.UnixMicro(r.TimeUnixMicro).UTC(), Digest: [32]byte(r.Digest), Prev: [32]byte(r.Prev), Hash: [32]byte(r.Hash), Metadata: r.Metadata,
	}, nil
}
