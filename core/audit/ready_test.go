package audit_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/commucat/commucat/core/audit"
	"github.com/commucat/commucat/sdk"
)

// TestReady: ledgers that are away leave the relay ready until the spool is nearly full; then
// all of them are named.
func TestReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &memory{fails: errors.New("no route")}, &memory{fails: errors.New("no space")}
		o := options(t.TempDir(), audit.Sink{Name: "remote", Ledger: a}, audit.Sink{Name: "log", Ledger: b}, audit.Sink{Name: "good", Ledger: &memory{}})
		o.Spool, o.Rotate = 64*sdk.KiB, 4*sdk.KiB
		r := open(t, o)
		must(t, r.Ready())
		n := 0
		for ; r.Ready() == nil; n++ {
			must(t, r.RecordDurably(t.Context(), audit.Started("x")))
			synctest.Wait()
		}
		if n < 50 {
			t.Errorf("not ready after %d records", n)
		}
		said := r.Ready().Error()
		for _, want := range []string{"the audit spool is 9", "ledger remote lacks ", "no route", "ledger log lacks ", "no space", "ledger.backends"} {
			if !strings.Contains(said, want) {
				t.Errorf("%q does not say %q", said, want)
			}
		}
		if strings.Contains(said, "good") {
			t.Error(said)
		}
		for _, m := range []*memory{a, b} {
			m.set(func(m *memory) { m.fails = nil })
		}
		must(t, r.Flush(t.Context()))
		synctest.Wait()
		must(t, r.Ready())
		must(t, r.Close(t.Context()))
	})
}
