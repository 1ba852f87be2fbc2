package audit_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/commucat/commucat/core/audit"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	rootKey    = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{0x42}, 32))
	rootPublic = rootKey.Public().(ed25519.PublicKey)
)

// memory is a ledger that can be slow, absent or full.
type memory struct {
	mu      sync.Mutex
	records []ledger.Record
	fails   error
	stalls  chan struct{} // Submit waits for it
	calls   int
}

func (m *memory) Submit(ctx context.Context, in []ledger.Record) error {
	m.mu.Lock()
	m.calls++
	stalls, fails := m.stalls, m.fails
	m.mu.Unlock()
	if stalls != nil {
		select {
		case <-stalls:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if fails != nil {
		return fails
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	chain := ledger.Chain{}
	if n := len(m.records); n > 0 {
		chain.Head = m.records[n-1]
	}
	for _, r := range in {
		if r.Seq <= chain.Head.Seq {
			if !m.records[r.Seq-1].Equal(r) {
				return sdk.Conflict
			}
			continue
		}
		if err := chain.Add(r); err != nil {
			return err
		}
		m.records = append(m.records, r)
	}
	return nil
}

func (m *memory) Head(context.Context) (ledger.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.records) == 0 {
		return ledger.Record{}, nil
	}
	return m.records[len(m.records)-1], nil
}

func (m *memory) Read(_ context.Context, after uint64, limit int) ([]ledger.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if after >= uint64(len(m.records)) {
		return nil, nil
	}
	return m.records[after:min(int(after)+limit, len(m.records))], nil
}

func (m *memory) Close(context.Context) error { return nil }

func (m *memory) set(change func(*memory)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m)
}

func options(dir string, sinks ...audit.Sink) audit.Options {
	return audit.Options{Dir: dir, DigestKey: [32]byte{1}, Domain: "relay.example", Key: rootKey, Sinks: sinks, Rotate: 4 * sdk.KiB}
}

func open(t *testing.T, o audit.Options) *audit.Recorder {
	t.Helper()
	r, err := audit.Open(t.Context(), o)
	must(t, err)
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestEventsReachEveryLedgerWithoutIds(t *testing.T) {
	one, two, forgets := &memory{}, &memory{}, &memory{}
	dir := t.TempDir()
	r := open(t, options(dir, audit.Sink{Name: "one", Ledger: one}, audit.Sink{Name: "two", Ledger: two}, audit.Sink{Name: "log", Ledger: forgets, Forgets: true}))
	d := audit.Device{User: "alice-id", ID: "device-id", Public: [32]byte{9, 9}}
	at := time.Unix(1800000000, 0)
	events := []audit.Event{
		audit.Started("1.0.0"), audit.Registered(d, "invite"), audit.DeviceAdded(d, "pairing"), audit.DeviceRevoked(d, "user"),
		audit.DeviceRotated(d, "signature"), audit.CertificateIssued(d, 7, at), audit.UserRemoved("alice-id", "operator"),
		audit.InviteCreated("invite-id", 16, at, "operator"), audit.InviteSpent("invite-id", "alice-id"), audit.InviteRevoked("invite-id", "operator"),
		audit.Purged("device-id", 12, "request"), audit.KeyRotated("noise", 3, "ab:cd"), audit.PeerChanged("peer.example", "added"),
		audit.Configured([]string{"log.level"}, "reload"), audit.Stopped("signal"),
	}
	seen := map[string]bool{}
	for _, e := range events {
		if seen[e.Action] || e.Action == "" {
			t.Errorf("action %q twice", e.Action)
		}
		seen[e.Action] = true
		must(t, r.Record(t.Context(), e))
	}
	must(t, r.Flush(t.Context()))
	for _, s := range r.States() {
		if s.Behind != 0 || s.Err != nil {
			t.Error(s)
		}
	}
	must(t, r.Close(t.Context()))
	must(t, r.Close(t.Context()))
	for _, m := range []*memory{one, two, forgets} {
		if len(m.records) != len(events) {
			t.Fatal(len(m.records))
		}
		for i, rec := range m.records {
			text := string(rec.Metadata)
			for _, id := range []string{"alice", "device-id", "invite-id"} {
				if strings.Contains(text, id) {
					t.Errorf("record %d holds an id: %s", i, text)
				}
			}
		}
	}
	var m map[string]any
	must(t, json.Unmarshal(one.records[1].Metadata, &m))
	digest := audit.Subject([32]byte{1}, "device", "device-id")
	if m["action"] != "user.registered" || m["via"] != "invite" || m["device"] != fmt.Sprintf("%x", digest[:16]) || one.records[1].Digest != digest {
		t.Error(m)
	}
	if other := audit.Subject([32]byte{2}, "device", "device-id"); other == digest {
		t.Error("the key does not matter")
	}
	if err := r.Record(t.Context(), audit.Started("x")); !errors.Is(err, audit.ErrClosed) {
		t.Error(err)
	}
	c, err := audit.ReadCheckpoint(dir, rootPublic)
	if err != nil || c.Seq != uint64(len(events)) {
		t.Error(c, err)
	}
	if _, err := ledger.Verify(t.Context(), one, c); err != nil {
		t.Error(err)
	}
}

func TestAStalledLedgerDelaysNobodyAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, fast := &memory{stalls: make(chan struct{})}, &memory{}
		o := options(t.TempDir(), audit.Sink{Name: "slow", Ledger: slow}, audit.Sink{Name: "fast", Ledger: fast})
		r := open(t, o)
		begin := time.Now()
		const n = 3000
		for i := range n {
			must(t, r.Record(t.Context(), audit.Purged("d", uint64(i), "test")))
		}
		must(t, r.RecordDurably(t.Context(), audit.Started("x")))
		if d := time.Since(begin); d != 0 {
			t.Error("waited for", d)
		}
		synctest.Wait()
		if len(fast.records) != n+1 || len(slow.records) != 0 {
			t.Error(len(fast.records), len(slow.records))
		}
		// The relay is stopped; its successor finishes the work.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		must(t, r.Close(ctx))
		slow.set(func(m *memory) { m.stalls = nil })
		r = open(t, o)
		must(t, r.Flush(t.Context()))
		if len(slow.records) != n+1 {
			t.Error(len(slow.records))
		}
		must(t, r.Close(t.Context()))
		left, err := filepath.Glob(filepath.Join(o.Dir, "spool", "*.jsonl"))
		if err != nil || len(left) != 1 {
			t.Error("the spool was not trimmed:", len(left))
		}
	})
}

func TestAFailingLedgerIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{fails: errors.New("no route")}
		r := open(t, options(t.TempDir(), audit.Sink{Name: "remote", Ledger: m}))
		must(t, r.RecordDurably(t.Context(), audit.Started("x")))
		synctest.Wait()
		if s := r.States()[0]; s.Behind != 1 || s.Err == nil {
			t.Error(s)
		}
		time.Sleep(10 * time.Minute)
		m.set(func(m *memory) {
			if m.calls < 10 || m.calls > 25 {
				t.Error("tries in ten minutes:", m.calls)
			}
			m.fails = nil
		})
		must(t, r.Flush(t.Context()))
		if s := r.States()[0]; s.Behind != 0 || s.Err != nil {
			t.Error(s)
		}
		must(t, r.Close(t.Context()))
	})
}

func TestAFullSpoolRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{fails: errors.New("no route")}
		o := options(t.TempDir(), audit.Sink{Name: "remote", Ledger: m})
		o.Spool, o.Queue = 8*sdk.KiB, 4
		r := open(t, o)
		refused := 0
		for range 500 {
			if err := r.Record(t.Context(), audit.Started("x")); errors.Is(err, sdk.Full) {
				refused++
			} else if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if refused == 0 || r.Head().Seq == 0 {
			t.Fatal(refused, r.Head().Seq)
		}
		m.set(func(m *memory) { m.fails = nil })
		time.Sleep(5 * time.Minute)
		must(t, r.RecordDurably(t.Context(), audit.Stopped("x")))
		must(t, r.Flush(t.Context()))
		// One record tells of those that were refused.
		if n := len(m.records); n != 501-refused+1 {
			t.Errorf("%d records, %d were refused", n, refused)
		}
		lost := 0
		for _, rec := range m.records {
			lost += lostEvents(t, rec)
		}
		if lost != refused {
			t.Errorf("the chain tells of %d lost events, %d were refused", lost, refused)
		}
		must(t, r.Close(t.Context()))
	})
}

// lostEvents is how many lost events a record tells of.
func lostEvents(t *testing.T, r ledger.Record) int {
	t.Helper()
	var m struct {
		Action  string
		Events  int
		Actions map[string]int
	}
	must(t, json.Unmarshal(r.Metadata, &m))
	if m.Action != "audit.lost" {
		return 0
	}
	sum := 0
	for _, n := range m.Actions {
		sum += n
	}
	if sum != m.Events {
		t.Errorf("%d events, but %v", m.Events, m.Actions)
	}
	return m.Events
}

// lines is a log that several goroutines write.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestTheSpoolFillsUp: long before events are refused, and again at each start, the log and
// the states name the ledger that takes nothing and what to do. At the end what is queued
// is kept beyond the limit.
func TestTheSpoolFillsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		away, kept := &memory{fails: errors.New("no route")}, &memory{}
		o := options(t.TempDir(), audit.Sink{Name: "kept", Ledger: kept}, audit.Sink{Name: "away", Ledger: away, Forgets: true})
		o.Spool, o.Queue = 32*sdk.KiB, 8
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		named := func() bool {
			return strings.Contains(log.String(), "audit records wait for a ledger") && strings.Contains(log.String(), "ledger=away")
		}
		over, end := context.WithCancel(t.Context())
		end()
		r := open(t, o)
		accepted, last := 0, error(nil)
		for range 500 {
			if last = r.Record(t.Context(), audit.Started("x")); last != nil {
				break
			}
			accepted++
			synctest.Wait()
			if !named() && r.Head().Seq > 80 {
				t.Fatal("more than half of the spool, and nothing was said:", log.String())
			}
		}
		if !errors.Is(last, audit.ErrFull) || !errors.Is(last, sdk.Full) || !strings.Contains(last.Error(), "away lacks") || !strings.Contains(last.Error(), "ledger.backends") {
			t.Fatal(last)
		}
		states := r.States()
		if s := states[0]; s.Name != audit.Spool || !errors.Is(s.Err, audit.ErrFull) || s.Behind != 9 {
			t.Error("the spool:", s)
		}
		if s := states[2]; s.Name != "away" || !strings.Contains(fmt.Sprint(s.Err), "full because of it") || !strings.Contains(fmt.Sprint(s.Err), "no route") {
			t.Error("the ledger:", s)
		}
		must(t, r.Close(over))
		if n := r.Head().Seq; n != uint64(accepted+1) { // and the one that tells of the refused
			t.Errorf("%d events were accepted, the spool has %d records", accepted, n)
		}

		log.reset()
		r = open(t, o)
		if !named() {
			t.Error("at the next start: ", log.String())
		}
		must(t, r.Close(over))
		o.Sinks = o.Sinks[:1] // what the text says to do
		log.reset()
		r = open(t, o)
		must(t, r.RecordDurably(t.Context(), audit.Stopped("x")))
		must(t, r.Flush(t.Context()))
		if len(r.States()) != 1 || log.String() != "" {
			t.Error(r.States(), log.String())
		}
		must(t, r.Close(t.Context()))
	})
}

func TestTimeDoesNotRunBackwards(t *testing.T) {
	now := time.Unix(2000, 0)
	m := &memory{}
	o := options(t.TempDir(), audit.Sink{Name: "m", Ledger: m})
	o.Clock = func() time.Time { now = now.Add(-time.Second); return now }
	r := open(t, o)
	for range 3 {
		must(t, r.RecordDurably(t.Context(), audit.Started("x")))
	}
	must(t, r.Close(t.Context()))
	if !m.records[2].Time.Equal(m.records[0].Time) {
		t.Error(m.records[2].Time)
	}
}

func TestW28OpenRefusesAnotherPast(t *testing.T) {
	build := func(t *testing.T) (audit.Options, *memory) {
		m := &memory{}
		o := options(t.TempDir(), audit.Sink{Name: "m", Ledger: m})
		r := open(t, o)
		for range 10 {
			must(t, r.RecordDurably(t.Context(), audit.Started("x")))
		}
		must(t, r.Close(t.Context()))
		return o, m
	}
	other := func(n int) []ledger.Record {
		var out []ledger.Record
		var prev ledger.Record
		for range n {
			r, err := ledger.Next(prev, time.Unix(5, 0), [32]byte{}, []byte(`{"action":"forged"}`))
			must(t, err)
			out, prev = append(out, r), r
		}
		return out
	}
	spool := func(o audit.Options) string { return filepath.Join(o.Dir, "spool") }
	for name, c := range map[string]struct {
		change func(*testing.T, audit.Options, *memory)
		text   string // "" is accepted
	}{
		"nothing": {func(*testing.T, audit.Options, *memory) {}, ""},
		"ledger cut off, spool gone": {func(t *testing.T, o audit.Options, m *memory) {
			m.records = m.records[:7]
			must(t, os.RemoveAll(spool(o)))
		}, "knows record 10: the chain was cut off"},
		"ledger and spool replaced": {func(t *testing.T, o audit.Options, m *memory) {
			m.records = other(12)
			must(t, os.RemoveAll(spool(o)))
		}, "the chain was replaced"},
		"ledger replaced": {func(_ *testing.T, _ audit.Options, m *memory) { m.records = other(9) }, "another record 9"},
		"ledger ahead":    {func(_ *testing.T, _ audit.Options, m *memory) { m.records = other(12) }, "ends at 10"},
		"ledger behind":   {func(_ *testing.T, _ audit.Options, m *memory) { m.records = m.records[:4] }, ""},
		"spool gone":      {func(t *testing.T, o audit.Options, _ *memory) { must(t, os.RemoveAll(spool(o))) }, ""},
		"spool changed": {func(t *testing.T, o audit.Options, _ *memory) {
			names, err := filepath.Glob(filepath.Join(spool(o), "*.jsonl"))
			must(t, err)
			b, err := os.ReadFile(names[0])
			must(t, err)
			b[len(b)/2] ^= 4
			must(t, os.WriteFile(names[0], b, 0o600))
		}, "audit spool"},
		"checkpoint damaged": {func(t *testing.T, o audit.Options, _ *memory) {
			must(t, os.WriteFile(filepath.Join(o.Dir, audit.CheckpointFile), nil, 0o600))
		}, "restore it from a backup, or move it away"},
		"checkpoint forged": {func(t *testing.T, o audit.Options, _ *memory) {
			line := ledger.Checkpoint{Domain: "relay.example", Seq: 3}.Sign(ed25519.NewKeyFromSeed(make([]byte, 32)))
			must(t, os.WriteFile(filepath.Join(o.Dir, audit.CheckpointFile), []byte(line), 0o600))
		}, "signature is wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			o, m := build(t)
			c.change(t, o, m)
			r, err := audit.Open(t.Context(), o)
			if err == nil {
				must(t, r.RecordDurably(t.Context(), audit.Stopped("x")))
				must(t, r.Flush(t.Context()))
				must(t, r.Close(t.Context()))
				want := 11
				if name == "ledger behind" {
					want++ // the record that says so
				}
				if _, err := ledger.Verify(t.Context(), m); err != nil || len(m.records) != want {
					t.Error(err, len(m.records))
				}
			}
			if (err == nil) != (c.text == "") || (err != nil && !strings.Contains(err.Error(), c.text)) {
				t.Error(err)
			}
		})
	}
}

// TestCheckpointFromTheFirstRecord: a relay that is killed in its first hour has a
// checkpoint; where it is missing the next start says so, and makes one.
func TestCheckpointFromTheFirstRecord(t *testing.T) {
	var log bytes.Buffer
	o := options(t.TempDir(), audit.Sink{Name: "m", Ledger: &memory{}})
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	start := func() *audit.Recorder {
		r := open(t, o)
		must(t, r.RecordDurably(t.Context(), audit.Started("x")))
		must(t, r.Flush(t.Context()))
		return r
	}
	file := filepath.Join(o.Dir, audit.CheckpointFile)
	r := start()
	if _, err := os.Stat(file); err != nil || log.Len() > 0 {
		t.Errorf("after the first record: %v, log %s", err, log.String())
	}
	must(t, r.Close(t.Context()))
	must(t, os.Remove(file))
	r = start()
	if _, err := os.Stat(file); err != nil || !strings.Contains(log.String(), "checkpoint is missing") {
		t.Errorf("after it was lost: %v, log %s", err, log.String())
	}
	must(t, r.Close(t.Context()))
}

func TestANewLedgerGetsThePast(t *testing.T) {
	old, fresh := &memory{}, &memory{}
	dir := t.TempDir()
	r := open(t, options(dir, audit.Sink{Name: "old", Ledger: old}))
	for range 100 {
		must(t, r.Record(t.Context(), audit.Started("x")))
	}
	must(t, r.Close(t.Context()))
	r = open(t, options(dir, audit.Sink{Name: "old", Ledger: old}, audit.Sink{Name: "new", Ledger: fresh}))
	must(t, r.Flush(t.Context()))
	must(t, r.Close(t.Context()))
	if len(fresh.records) != 100 {
		t.Error(len(fresh.records))
	}
}

func TestConcurrentRecords(t *testing.T) {
	m := &memory{}
	r := open(t, options(t.TempDir(), audit.Sink{Name: "m", Ledger: m}))
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 100 {
				if err := r.Record(context.Background(), audit.Started("x")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	must(t, r.Close(t.Context()))
	if _, err := ledger.Verify(t.Context(), m); err != nil || len(m.records) != 800 {
		t.Error(err, len(m.records))
	}
}

func BenchmarkRecord(b *testing.B) {
	r, err := audit.Open(b.Context(), audit.Options{Dir: b.TempDir(), Sinks: []audit.Sink{{Name: "m", Ledger: &memory{}}}})
	must(b, err)
	for b.Loop() {
		must(b, r.Record(b.Context(), audit.Started("x")))
	}
	must(b, r.Close(b.Context()))
}
