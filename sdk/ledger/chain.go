package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/commucat/commucat/sdk"
)

// BrokenError says where a chain is broken. Its kind is Corrupt.
type BrokenError struct {
	// Seq is the first record that cannot be believed.
	Seq  uint64
	Text string
}

// Error names the record.
func (e *BrokenError) Error() string {
	return fmt.Sprintf("the chain is broken at record %d: %s", e.Seq, e.Text)
}

// Unwrap gives the kind.
func (e *BrokenError) Unwrap() error { return sdk.Corrupt }

// Chain checks records one after another. The zero Chain expects record 1.
type Chain struct {
	// Head is the last record added; set it to start in the middle.
	Head Record
}

// Add checks that r follows Head and becomes the new Head. It answers a
// *BrokenError.
func (c *Chain) Add(r Record) error {
	want := c.Head.Seq + 1
	switch {
	case r.Seq > want:
		return &BrokenError{want, fmt.Sprintf("it is missing, record %d follows", r.Seq)}
	case r.Seq < want:
		return &BrokenError{want, fmt.Sprintf("record %d stands in its place", r.Seq)}
	case r.Hash != r.Sum():
		return &BrokenError{r.Seq, "its content was changed"}
	case r.Prev != c.Head.Hash:
		return &BrokenError{r.Seq, "it does not follow the record before it"}
	}
	c.Head = r
	return nil
}

// Report is what Verify saw.
type Report struct {
	Records     uint64
	First, Last time.Time
	Head        Record
	// Behind is how many records follow Head that the ledger has not taken yet; whoever
	// knows of them sets it.
	Behind uint64
}

// Verify reads a whole ledger and checks that its chain is complete from record 1
// and contains every checkpoint given. The error is a *BrokenError, or what the
// ledger answered; the report then covers what was good.
func Verify(ctx context.Context, l Ledger, checkpoints ...Checkpoint) (Report, error) {
	var report Report
	var chain Chain
	pending := map[uint64]Checkpoint{}
	for _, c := range checkpoints {
		pending[c.Seq] = c
	}
	for {
		page, err := l.Read(ctx, chain.Head.Seq, 512)
		if err != nil {
			return report, err
		}
		for _, r := range page {
			if err := chain.Add(r); err != nil {
				return report, err
			}
			if c, ok := pending[r.Seq]; ok && c.Hash != r.Hash {
				return report, &BrokenError{r.Seq, "the checkpoint of " + c.Domain + " knows another record: the chain was replaced"}
			}
			delete(pending, r.Seq)
			if report.Records == 0 {
				report.First = r.Time
			}
			report.Records, report.Last, report.Head = report.Records+1, r.Time, r
		}
		if len(page) == 0 {
			break
		}
	}
	for seq := range pending {
		if seq > 0 {
			return report, &BrokenError{chain.Head.Seq + 1, fmt.Sprintf("it is missing, and a checkpoint knows record %d: the chain was cut off", seq)}
		}
	}
	return report, nil
}
