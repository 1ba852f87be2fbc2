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
	"time"

	"github.com/commucat/commucat/core/audit"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
)

// chained makes records with an action of their own.
func chained(t *testing.T, prev ledger.Record, n int, action string) (out []ledger.Record) {
	t.Helper()
	for range n {
		r, err := ledger.Next(prev, time.Unix(5, 0), [32]byte{}, fmt.Appendf(nil, `{"action":%q}`, action))
		must(t, err)
		out, prev = append(out, r), r
	}
	return out
}

// TestRolledBack: a ledger that has fewer records than it took is named, in the log and in
// the chain. It gets what it lacks while anybody has it; otherwise the gap is named.
func TestRolledBack(t *testing.T) {
	for name, c := range map[string]struct {
		forgets bool
		change  func(*testing.T, audit.Options, *memory, *memory)
		log     string
		filled  bool
	}{
		"from the spool": {change: func(_ *testing.T, _ audit.Options, m, other *memory) {
			m.records, other.records = m.records[:55], other.records[:55]
		}, log: "it is given them again", filled: true},
		"from another ledger": {change: func(t *testing.T, o audit.Options, m, _ *memory) {
			m.records = m.records[:2]
			must(t, os.RemoveAll(filepath.Join(o.Dir, "spool")))
		}, log: "it is given them again", filled: true},
		"from nobody": {change: func(_ *testing.T, _ audit.Options, m, other *memory) {
			m.records, other.records = m.records[:2], other.records[:2]
		}, log: "those that follow are in no ledger any more"},
		"the chain, under one that forgets": {forgets: true, change: func(t *testing.T, o audit.Options, _, other *memory) {
			other.records = other.records[:30]
			must(t, os.RemoveAll(filepath.Join(o.Dir, "spool")))
			must(t, os.Remove(filepath.Join(o.Dir, audit.CheckpointFile)))
		}, log: "the chain ends before what a ledger was given"},
		"another chain, under one that forgets": {forgets: true, change: func(t *testing.T, o audit.Options, _, other *memory) {
			other.records = chained(t, ledger.Record{}, 60, "forged")
			must(t, os.RemoveAll(filepath.Join(o.Dir, "spool")))
			must(t, os.Remove(filepath.Join(o.Dir, audit.CheckpointFile)))
		}, log: "the chain was replaced"},
	} {
		t.Run(name, func(t *testing.T) {
			m, other := &memory{}, &memory{}
			var log lines
			o := options(t.TempDir(), audit.Sink{Name: "m", Ledger: m, Forgets: c.forgets}, audit.Sink{Name: "other", Ledger: other})
			o.Rotate = 12 * sdk.KiB // some of 60 records are trimmed
			o.Log = slog.New(slog.NewTextHandler(&log, nil))
			r := open(t, o)
			for i := range 60 {
				must(t, r.Record(t.Context(), audit.Started("x")))
				if i%20 == 19 { // a file begins between two writes
					must(t, r.Flush(t.Context()))
				}
			}
			must(t, r.Close(t.Context()))
			if strings.Contains(log.String(), "ERROR") {
				t.Fatal(log.String())
			}
			c.change(t, o, m, other)
			r = open(t, o)
			ctx, cancel := context.WithCancel(t.Context())
			if c.filled {
				must(t, r.Flush(ctx))
			} else {
				must(t, r.RecordDurably(ctx, audit.Started("x")))
			}
			head := r.Head().Seq
			cancel()
			must(t, r.Close(ctx))
			if !strings.Contains(log.String(), c.log) || !strings.Contains(log.String(), "ledger=m") {
				t.Errorf("log %s; want %q", log.String(), c.log)
			}
			if c.filled {
				if _, err := ledger.Verify(context.Background(), m); err != nil || uint64(len(m.records)) != head {
					t.Errorf("%d records of %d: %v", len(m.records), head, err)
				}
				if text := string(m.records[head-1].Metadata); !strings.Contains(text, "ledger.rolled_back") {
					t.Error(text)
				}
			}
		})
	}
}

// TestPast: what a relay's own folder knows finds a ledger out that is unbroken by itself,
// and does not take one that is merely behind for one that was cut off.
func TestPast(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*testing.T, audit.Options, *memory)
		bad    uint64 // the record that is named; 0 is none
		text   string
		behind uint64
	}{
		"good":     {},
		"mark old": {change: func(t *testing.T, o audit.Options, _ *memory) { mark(t, o, "m", "7\n") }},
		"mark lost with the power": {change: func(t *testing.T, o audit.Options, _ *memory) {
			mark(t, o, "m", "\x00\x00")
		}},
		"behind": {change: func(t *testing.T, o audit.Options, m *memory) {
			m.records = m.records[:35]
			mark(t, o, "m", "30\n")
		}, behind: 5},
		"rolled back": {change: func(_ *testing.T, _ audit.Options, m *memory) {
			m.records = m.records[:35]
		}, bad: 36, text: "this ledger took record 40"},
		"rolled back, mark and spool gone": {change: func(t *testing.T, o audit.Options, m *memory) {
			m.records = m.records[:35]
			must(t, errors.Join(os.RemoveAll(filepath.Join(o.Dir, "sent")), os.RemoveAll(filepath.Join(o.Dir, "spool"))))
		}, bad: 36, text: "the checkpoint of relay.example knows record 40: the chain was cut off"},
		"rolled back with an old checkpoint": {change: func(t *testing.T, o audit.Options, m *memory) {
			m.records = m.records[:35]
			last := m.records[34]
			must(t, errors.Join(os.RemoveAll(filepath.Join(o.Dir, "spool")), os.Remove(filepath.Join(o.Dir, "sent", "m"))))
			line := ledger.Checkpoint{Domain: "relay.example", Seq: last.Seq, Hash: last.Hash}.Sign(rootKey)
			must(t, os.WriteFile(filepath.Join(o.Dir, audit.CheckpointFile), []byte(line), 0o600))
		}, bad: 36, text: "ledger away took record 40"},
		"replaced": {change: func(t *testing.T, _ audit.Options, m *memory) {
			m.records = chained(t, ledger.Record{}, 40, "forged")
		}, bad: 40, text: "the chain was replaced"},
		"replaced and the checkpoint with it": {change: func(t *testing.T, o audit.Options, m *memory) {
			m.records = chained(t, ledger.Record{}, 40, "forged")
			line := ledger.Checkpoint{Domain: "relay.example", Seq: 40, Hash: m.records[39].Hash}.Sign(rootKey)
			must(t, os.WriteFile(filepath.Join(o.Dir, audit.CheckpointFile), []byte(line), 0o600))
		}, bad: 40, text: "ledger away took another record"},
		"the spool goes on otherwise": {change: func(t *testing.T, o audit.Options, m *memory) {
			m.records = append(m.records[:35:35], chained(t, m.records[34], 1, "forged")...)
			mark(t, o, "m", "30\n")
		}, bad: 37, text: "what waits in the spool"},
		"checkpoint gone": {change: func(t *testing.T, o audit.Options, _ *memory) {
			must(t, os.Remove(filepath.Join(o.Dir, audit.CheckpointFile)))
		}, text: "the signed checkpoint is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			m := &memory{}
			o := options(t.TempDir(), audit.Sink{Name: "m", Ledger: m}, audit.Sink{Name: "away", Ledger: &memory{}, Forgets: true})
			o.Rotate = sdk.MiB
			r := open(t, o)
			for range 40 {
				must(t, r.Record(t.Context(), audit.Started("x")))
			}
			must(t, r.Flush(t.Context()))
			must(t, r.Close(t.Context()))
			if c.change != nil {
				c.change(t, o, m)
			}
			past, err := audit.ReadPast(o.Dir, rootPublic)
			must(t, err)
			rep, err := past.Verify(t.Context(), "m", m)
			var broken *ledger.BrokenError
			errors.As(err, &broken)
			if (err == nil) != (c.text == "") || err != nil && !strings.Contains(err.Error(), c.text) ||
				(broken != nil) != (c.bad > 0) || broken != nil && broken.Seq != c.bad || rep.Behind != c.behind {
				t.Errorf("%v, %d behind; want record %d, %q, %d", err, rep.Behind, c.bad, c.text, c.behind)
			}
		})
	}
}

// mark writes what a ledger is said to have taken.
func mark(t *testing.T, o audit.Options, name, text string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(o.Dir, "sent", name), []byte(text), 0o600))
}
