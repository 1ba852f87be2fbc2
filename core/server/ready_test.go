package server

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/commucat/commucat/core/audit"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
)

// away is a ledger that takes no records.
type away struct{}

func (away) Submit(context.Context, []ledger.Record) error { return errors.New("nobody there") }
func (away) Head(context.Context) (ledger.Record, error)   { return ledger.Record{}, nil }
func (away) Read(context.Context, uint64, int) ([]ledger.Record, error) {
	return nil, nil
}
func (away) Close(context.Context) error { return nil }

// TestLedgersAway: ledgers that are away are named, all of them, and the relay stays ready;
// it is not once nothing more can wait for them.
func TestLedgersAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := audit.Open(t.Context(), audit.Options{
			Dir: t.TempDir(), Spool: 64 * sdk.KiB, Rotate: 4 * sdk.KiB,
			Sinks: []audit.Sink{{Name: "syslog", Ledger: away{}}, {Name: "tlog", Ledger: away{}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		s := &Server{audit: r}
		record := func() {
			t.Helper()
			if err := r.RecordDurably(t.Context(), audit.Started("x")); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		record()
		if err := s.checkLedger(t.Context()); err != nil {
			t.Errorf("one record waits in the spool, and the relay is not ready: %v", err)
		}
		ledgers, degraded := s.parts()
		if len(ledgers) != 2 || ledgers[1].Behind != 1 || degraded["ledger syslog"] != "1 records behind: nobody there" || degraded["ledger tlog"] == "" {
			t.Errorf("%v %v", ledgers, degraded)
		}
		for range 400 {
			if err = s.checkLedger(t.Context()); err != nil {
				break
			}
			record()
		}
		if err == nil || !strings.Contains(err.Error(), "ledger syslog") || !strings.Contains(err.Error(), "ledger tlog") {
			t.Errorf("the spool is full, and: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.Close(ctx); err != nil {
			t.Error(err)
		}
	})
}
