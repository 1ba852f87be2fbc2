package plugintest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
)

// LedgerOptions configure Ledger.
type LedgerOptions struct {
	// Config is the plugin's configuration.
	Config map[string]any
	// Fresh returns a configuration for an empty ledger where a new state folder
	// is not enough (a database); it is laid over Config.
	Fresh func(t testing.TB) map[string]any
}

// Ledger runs the conformance cases of ledgers: order, idempotence, conflicts,
// malformed records, limits, persistence over a restart, concurrent callers,
// cancellation, use after Close, unknown configuration keys. What a ledger that
// forgets (see ledger.Descriptor) cannot promise is left out.
func Ledger(t *testing.T, p sdk.Plugin, o LedgerOptions) { LedgerCases(Wrap(t), p, o) }

// LedgerCases is Ledger for any T.
func LedgerCases(t T, p sdk.Plugin, o LedgerOptions) {
	cases := []struct {
		name  string
		keeps bool
		run   func(T, *ledgerCase)
	}{
		{"descriptor", false, ledgerDescriptor},
		{"unknown key", false, ledgerUnknownKey},
		{"empty", false, ledgerEmpty},
		{"order and pages", true, ledgerPages},
		{"again", false, ledgerAgain},
		{"again in part", true, ledgerAgainInPart},
		{"conflict", true, ledgerConflict},
		{"gap", true, ledgerGap},
		{"malformed", false, ledgerMalformed},
		{"largest", true, ledgerLargest},
		{"restart", true, ledgerRestart},
		{"verify", true, ledgerVerify},
		{"concurrent", true, ledgerConcurrent},
		{"cancelled", false, ledgerCancelled},
		{"closed", false, ledgerClosed},
	}
	for _, c := range cases {
		if c.keeps && ledger.Forgets(p) {
			continue
		}
		t.Run(c.name, func(t T) {
			k := &ledgerCase{plugin: p, state: t.TempDir(), config: maps.Clone(o.Config)}
			if o.Fresh != nil {
				if k.config == nil {
					k.config = map[string]any{}
				}
				maps.Copy(k.config, o.Fresh(t))
			}
			c.run(t, k)
		})
	}
}

type ledgerCase struct {
	plugin sdk.Plugin
	state  string
	config map[string]any
}

func (k *ledgerCase) open(t testing.TB) ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(t.Context(), k.plugin, sdk.NewEnv(sdk.EnvOptions{State: k.state}), k.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(context.Background()) })
	return l
}

// LedgerRecords makes n records that follow after.
func LedgerRecords(t testing.TB, after ledger.Record, n int) []ledger.Record {
	t.Helper()
	out := make([]ledger.Record, 0, n)
	for range n {
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(after.Seq) * time.Second)
		m, err := ledger.Metadata(map[string]any{"action": "test", "text": fmt.Sprintf("record ü <%d>", after.Seq+1)})
		if err != nil {
			t.Fatal(err)
		}
		if after, err = ledger.Next(after, at, [32]byte{byte(after.Seq), 0xff}, m); err != nil {
			t.Fatal(err)
		}
		out = append(out, after)
	}
	return out
}

func submit(t testing.TB, l ledger.Ledger, r ...ledger.Record) {
	t.Helper()
	if err := l.Submit(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

func readAll(t testing.TB, l ledger.Ledger) []ledger.Record {
	t.Helper()
	var out []ledger.Record
	for after := uint64(0); ; {
		page, err := l.Read(t.Context(), after, 7)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			return out
		}
		if len(page) > 7 {
			t.Fatalf("a page of %d records; 7 were asked for", len(page))
		}
		out = append(out, page...)
		after = page[len(page)-1].Seq
	}
}

func sameRecords(t testing.TB, want, got []ledger.Record) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("records differ (-want +got):\n%s", d)
	}
}

func ledgerDescriptor(t T, k *ledgerCase) {
	p := k.plugin
	if p.Kind() != sdk.Ledger || p.Name() == "" || len(p.Name()) > 32 || p.Version() == "" || p.Summary() == "" {
		t.Error(p.Kind(), p.Name(), p.Version(), p.Summary())
	}
	for _, f := range sdk.Fields(p.Config()) {
		if f.Doc == "" {
			t.Errorf("configuration key %s has no doc", f.Name)
		}
	}
}

func ledgerUnknownKey(t T, k *ledgerCase) {
	raw := maps.Clone(k.config)
	if raw == nil {
		raw = map[string]any{}
	}
	raw["no-such-key"] = true
	l, err := ledger.Open(t.Context(), k.plugin, sdk.NewEnv(sdk.EnvOptions{State: k.state}), raw)
	if err == nil {
		_ = l.Close(t.Context())
	}
	var mistakes sdk.ConfigErrors
	if !errors.As(err, &mistakes) || len(mistakes) != 1 || mistakes[0].Key != "no-such-key" {
		t.Error(err)
	}
}

func ledgerEmpty(t T, k *ledgerCase) {
	l := k.open(t)
	head, err := l.Head(t.Context())
	if err != nil || head.Seq != 0 || head.Hash != [32]byte{} {
		t.Error(head, err)
	}
	if got := readAll(t, l); len(got) != 0 {
		t.Error(got)
	}
	submit(t, l)
}

func ledgerPages(t T, k *ledgerCase) {
	l := k.open(t)
	all := LedgerRecords(t, ledger.Record{}, 60)
	submit(t, l, all[:1]...)
	submit(t, l, all[1:31]...)
	submit(t, l, all[31:]...)
	sameRecords(t, all, readAll(t, l))
	head, err := l.Head(t.Context())
	if err != nil || !head.Equal(all[59]) {
		t.Error(head, err)
	}
	for _, c := range []struct {
		after uint64
		limit int
		want  []ledger.Record
	}{{0, 1, all[:1]}, {59, 10, all[59:]}, {30, 2, all[30:32]}} {
		got, err := l.Read(t.Context(), c.after, c.limit)
		if err != nil {
			t.Fatal(err)
		}
		sameRecords(t, c.want, got)
	}
	for _, c := range []struct {
		after uint64
		limit int
	}{{60, 5}, {1 << 60, 5}, {0, 0}} {
		if got, err := l.Read(t.Context(), c.after, c.limit); err != nil || len(got) != 0 {
			t.Errorf("%d after %d: %d records, %v", c.limit, c.after, len(got), err)
		}
	}
}

func ledgerAgain(t T, k *ledgerCase) {
	l := k.open(t)
	all := LedgerRecords(t, ledger.Record{}, 3)
	submit(t, l, all...)
	submit(t, l, all...)
	submit(t, l, all[2])
}

func ledgerAgainInPart(t T, k *ledgerCase) {
	l := k.open(t)
	all := LedgerRecords(t, ledger.Record{}, 20)
	submit(t, l, all[:12]...)
	submit(t, l, all[5:]...)
	sameRecords(t, all, readAll(t, l))
}

func ledgerConflict(t T, k *ledgerCase) {
	l := k.open(t)
	all := LedgerRecords(t, ledger.Record{}, 5)
	submit(t, l, all...)
	other, err := ledger.Next(all[2], all[3].Time, all[3].Digest, []byte(`{"action":"other"}`))
	if err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string][]ledger.Record{
		"in the middle": {other},
		"at the end":    {mustNext(t, all[3], `{"action":"other"}`)},
		"next":          {mustNext(t, mustNext(t, all[3], `{}`), `{}`)},
	} {
		if err := l.Submit(t.Context(), in); !errors.Is(err, sdk.Conflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	sameRecords(t, all, readAll(t, l))
}

func mustNext(t testing.TB, prev ledger.Record, metadata string) ledger.Record {
	t.Helper()
	r, err := ledger.Next(prev, prev.Time, [32]byte{9}, []byte(metadata))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func ledgerGap(t T, k *ledgerCase) {
	l := k.open(t)
	all := LedgerRecords(t, ledger.Record{}, 5)
	for name, in := range map[string][]ledger.Record{"at the beginning": all[1:], "within": {all[0], all[2]}} {
		if err := l.Submit(t.Context(), in); !errors.Is(err, sdk.Conflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := readAll(t, l); len(got) != 0 {
		t.Error("a refused batch left records:", len(got))
	}
	submit(t, l, all...)
}

func ledgerMalformed(t T, k *ledgerCase) {
	l := k.open(t)
	good := LedgerRecords(t, ledger.Record{}, 1)[0]
	hash, spaces, long := good, good, good
	hash.Digest[3]++
	spaces.Metadata = []byte(`{"a": 1}`)
	spaces.Hash = spaces.Sum()
	long.Metadata = append(append([]byte(`{"a":"`), make([]byte, ledger.MaxMetadata)...), `"}`...)
	long.Hash = long.Sum()
	for name, r := range map[string]ledger.Record{"hash": hash, "metadata": spaces, "length": long, "number": {}} {
		if err := l.Submit(t.Context(), []ledger.Record{r}); !errors.Is(err, sdk.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	submit(t, l, good)
}

func ledgerLargest(t T, k *ledgerCase) {
	l := k.open(t)
	text := make([]byte, ledger.MaxMetadata-len(`{"a":""}`))
	for i := range text {
		text[i] = 'a' + byte(i%26)
	}
	r := mustNext(t, ledger.Record{Time: time.Unix(0, 0)}, `{"a":"`+string(text)+`"}`)
	after := LedgerRecords(t, r, 2)
	all := append([]ledger.Record{r}, after...)
	submit(t, l, all...)
	sameRecords(t, all, readAll(t, l))
}

func ledgerRestart(t T, k *ledgerCase) {
	all := LedgerRecords(t, ledger.Record{}, 30)
	for i := 0; i < 30; i += 10 {
		l := k.open(t)
		sameRecords(t, append([]ledger.Record(nil), all[:i]...), readAll(t, l))
		submit(t, l, all[i:i+10]...)
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	sameRecords(t, all, readAll(t, k.open(t)))
}

func ledgerVerify(t T, k *ledgerCase) {
	l := k.open(t)
	all := LedgerRecords(t, ledger.Record{}, 40)
	submit(t, l, all...)
	report, err := ledger.Verify(t.Context(), l, ledger.Checkpoint{Domain: "relay.example", Seq: 33, Hash: all[32].Hash})
	if err != nil || report.Records != 40 || !report.Head.Equal(all[39]) || !report.Last.Equal(all[39].Time) {
		t.Error(report, err)
	}
}

func ledgerConcurrent(t T, k *ledgerCase) {
	l := k.open(t)
	all := LedgerRecords(t, ledger.Record{}, 100)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for i := 0; i < len(all); i += 5 {
				if err := l.Submit(t.Context(), all[:i+5]); err != nil {
					t.Error(err)
				}
				page, err := l.Read(t.Context(), 0, 10)
				if err != nil || len(page) < min(10, i+5) {
					t.Error(len(page), err)
				}
			}
		})
	}
	group.Wait()
	sameRecords(t, all, readAll(t, l))
}

func ledgerCancelled(t T, k *ledgerCase) {
	l := k.open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Submit(ctx, LedgerRecords(t, ledger.Record{}, 1)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := l.Head(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	submit(t, l, LedgerRecords(t, ledger.Record{}, 2)...)
}

func ledgerClosed(t T, k *ledgerCase) {
	l := k.open(t)
	for range 2 {
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Submit(t.Context(), LedgerRecords(t, ledger.Record{}, 1)); !errors.Is(err, sdk.Closed) {
		t.Error(err)
	}
	if _, err := l.Read(t.Context(), 0, 1); !errors.Is(err, sdk.Closed) {
		t.Error(err)
	}
}
