package audit_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/commucat/commucat/core/audit"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
)

// TestForgetfulLedgerIsAway: a ledger that keeps nothing, and was away when the relay was
// stopped, gets every record afterwards, from the spool or from a ledger that has them, and
// none twice after an end in order.
func TestForgetfulLedgerIsAway(t *testing.T) {
	for _, beside := range []bool{false, true} {
		t.Run(fmt.Sprint("beside another: ", beside), func(t *testing.T) {
			dir, ctx := t.TempDir(), t.Context()
			away, kept := &memory{}, &memory{}
			sinks := []audit.Sink{{Name: "away", Ledger: away, Forgets: true}}
			if beside {
				sinks = append(sinks, audit.Sink{Name: "kept", Ledger: kept})
			}
			over, end := context.WithCancel(ctx)
			end()
			total := 0
			record := func(r *audit.Recorder, n int) {
				t.Helper()
				for range n {
					total++
					must(t, r.RecordDurably(ctx, audit.InviteRevoked(fmt.Sprint(total), "operator")))
				}
			}
			r := open(t, options(dir, sinks...))
			record(r, 10)
			must(t, r.Flush(ctx))
			away.set(func(m *memory) { m.fails = &sdk.Error{Kind: sdk.Unavailable, Text: "away"} })
			record(r, 100)
			must(t, r.Close(over))

			r = open(t, options(dir, sinks...)) // still away
			record(r, 10)
			must(t, r.Close(over))

			away.set(func(m *memory) { m.fails = nil })
			r = open(t, options(dir, sinks...))
			record(r, 1)
			must(t, r.Flush(ctx))
			must(t, r.Close(ctx))
			calls := away.calls
			r = open(t, options(dir, sinks...))
			must(t, r.Flush(ctx))
			must(t, r.Close(ctx))
			if len(away.records) != total || away.calls != calls {
				t.Errorf("%d records of %d, %d calls more after an end in order", len(away.records), total, away.calls-calls)
			}
		})
	}
}

// TestForgetfulLedgerLeftOut: one that was not named for a while may find that what it
// lacks is gone; it goes on with what there is.
func TestForgetfulLedgerLeftOut(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	out, other := &from{}, &from{}
	sink := audit.Sink{Name: "out", Ledger: out, Forgets: true}
	r := open(t, options(dir, sink))
	must(t, r.RecordDurably(ctx, audit.Started("1")))
	must(t, r.Flush(ctx))
	must(t, r.Close(ctx))
	r = open(t, options(dir, audit.Sink{Name: "other", Ledger: other, Forgets: true}))
	for n := range 200 {
		must(t, r.RecordDurably(ctx, audit.InviteRevoked(fmt.Sprint(n), "operator")))
	}
	must(t, r.Flush(ctx))
	must(t, r.Close(ctx))
	if files, _ := os.ReadDir(filepath.Join(dir, "spool")); len(files) > 3 {
		t.Fatalf("%d files: the spool was not trimmed", len(files))
	}
	r = open(t, options(dir, sink))
	must(t, r.RecordDurably(ctx, audit.Started("2")))
	must(t, r.Flush(ctx))
	must(t, r.Close(ctx))
	if out.last != 202 || out.first <= 2 {
		t.Errorf("given records %d to %d", out.first, out.last)
	}
}

// TestForgetfulLedgerAfterPowerLoss: where what a ledger has taken was lost with the power it
// is given all that there is, and the log says so.
func TestForgetfulLedgerAfterPowerLoss(t *testing.T) {
	for _, left := range []string{"", "\x00\x00\x00"} {
		dir, ctx, to := t.TempDir(), t.Context(), &memory{}
		sink := audit.Sink{Name: "away", Ledger: to, Forgets: true}
		over, end := context.WithCancel(ctx)
		end()
		r := open(t, options(dir, sink))
		must(t, r.RecordDurably(ctx, audit.Started("1")))
		must(t, r.Flush(ctx))
		to.set(func(m *memory) { m.fails = &sdk.Error{Kind: sdk.Unavailable, Text: "away"} })
		must(t, r.RecordDurably(ctx, audit.Started("2")))
		must(t, r.Close(over))
		must(t, os.WriteFile(filepath.Join(dir, "sent", "away"), []byte(left), 0o600))

		to.set(func(m *memory) { m.fails = nil })
		var log strings.Builder
		o := options(dir, sink)
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		r = open(t, o)
		must(t, r.Flush(ctx))
		must(t, r.Close(ctx))
		if len(to.records) != 2 || !strings.Contains(log.String(), "how far a ledger has come cannot be read") {
			t.Errorf("%q: %d records, log %q", left, len(to.records), log.String())
		}
	}
}

// from is a ledger that keeps nothing but the numbers of the last call's records, and
// refuses gaps within it.
type from struct{ first, last uint64 }

func (f *from) Submit(_ context.Context, in []ledger.Record) error {
	f.first = in[0].Seq
	for i, r := range in {
		if r.Seq != f.first+uint64(i) {
			return errors.New("a gap")
		}
		f.last = r.Seq
	}
	return nil
}

func (f *from) Head(context.Context) (ledger.Record, error) { return ledger.Record{}, nil }

func (f *from) Read(context.Context, uint64, int) ([]ledger.Record, error) { return nil, nil }

func (f *from) Close(context.Context) error { return nil }
