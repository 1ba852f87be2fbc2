package audit_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/commucat/commucat/core/audit"
	"github.com/commucat/commucat/sdk/ledger/journal"
)

// TestHold: while ledgers are held they get nothing and nobody waits; the copy begins at or
// before what they lack and ends with a record, and both together open as one chain.
func TestHold(t *testing.T) {
	dir, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	kept := &memory{}
	o := options(dir, audit.Sink{Name: "kept", Ledger: kept})
	r := open(t, o)
	ctx := t.Context()
	event := func(n int) audit.Event { return audit.InviteRevoked(fmt.Sprint(n), "operator") }
	for n := range 200 { // several files of the spool
		must(t, r.RecordDurably(ctx, event(n)))
	}
	must(t, r.Flush(ctx))
	busy, release, err := r.Hold(ctx, to)
	if err != nil || len(busy) > 0 {
		t.Fatal(busy, err)
	}
	for n := range 100 {
		must(t, r.RecordDurably(ctx, event(n)))
	}
	head, _ := kept.Head(ctx)
	if head.Seq != 200 || r.Head().Seq != 300 {
		t.Errorf("the ledger has %d records and the spool %d while ledgers are held", head.Seq, r.Head().Seq)
	}
	held := &memory{records: append(kept.records[:0:0], kept.records...)}
	repaired := false
	j, err := journal.Open(journal.Options{Dir: filepath.Join(to, "spool"), Partial: true, Repaired: func(string, int64) { repaired = true }})
	must(t, err)
	if repaired || j.Head().Seq != 200 {
		t.Errorf("the copy ends with record %d, repaired: %v", j.Head().Seq, repaired)
	}
	must(t, j.Close())
	if _, _, err := r.Hold(ctx, to); err == nil {
		t.Error("a folder that is there was taken")
	}
	release()
	release() // nothing more
	must(t, r.Flush(ctx))
	if head, _ := kept.Head(ctx); head.Seq != 300 {
		t.Errorf("afterwards the ledger has %d records", head.Seq)
	}
	must(t, r.Close(ctx))

	o = options(to, audit.Sink{Name: "kept", Ledger: held})
	again := open(t, o)
	must(t, again.RecordDurably(ctx, event(0)))
	must(t, again.Flush(ctx))
	if head, _ := held.Head(ctx); head.Seq != 201 {
		t.Errorf("the restored chain has %d records", head.Seq)
	}
	must(t, again.Close(ctx))
}

// TestHoldBusy: a ledger that hangs keeps nobody from making a copy, and is named.
func TestHoldBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &memory{stalls: make(chan struct{})}
		r := open(t, options(t.TempDir(), audit.Sink{Name: "slow", Ledger: slow}))
		must(t, r.RecordDurably(t.Context(), audit.Started("1")))
		synctest.Wait()
		busy, release, err := r.Hold(t.Context(), filepath.Join(t.TempDir(), "copy"))
		if err != nil || len(busy) != 1 || busy[0] != "slow" {
			t.Fatal(busy, err)
		}
		release()
		close(slow.stalls)
		must(t, r.Close(t.Context()))
	})
}
