package ledger

import (
	"context"
	"time"
)

// Record is one event of the audit chain, already chained by the core.
type Record struct {
	// Seq counts from 1 without gaps.
	Seq uint64
	// Time has microsecond precision, UTC.
	Time time.Time
	// Digest identifies the event's subject; 32 bytes, keyed by the core.
	Digest [32]byte
	// Prev and Hash are the chain: Hash = SHA-256 over the canonical form of
	// this record, which includes Prev.
	Prev, Hash [32]byte
	// Metadata is the canonical JSON object of the event, at most 16 KiB, without
	// secrets.
	Metadata []byte
}

// Ledger keeps records. Submit is idempotent by Seq: a record that is there
// already is skipped if it is equal and an error of kind Conflict if not.
type Ledger interface {
	// Submit returns nil when the records are as durable as the ledger promises.
	Submit(ctx context.Context, r []Record) error
	// Head is the last record held; Seq 0 when there is none.
	Head(ctx context.Context) (Record, error)
	// Read returns at most limit records with Seq > after, in order.
	Read(ctx context.Context, after uint64, limit int) ([]Record, error)
	Close(ctx context.Context) error
}
