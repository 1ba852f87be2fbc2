package audit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/commucat/commucat/core/audit"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
	"github.com/commucat/commucat/sdk/ledger/journal"
)

// onDisk is a ledger that keeps its records in a folder.
type onDisk struct{ *journal.Journal }

func (d onDisk) Submit(_ context.Context, r []ledger.Record) error { return d.Append(r) }
func (d onDisk) Head(context.Context) (ledger.Record, error)       { return d.Journal.Head(), nil }
func (d onDisk) Close(context.Context) error                       { return d.Journal.Close() }
func (d onDisk) Read(_ context.Context, after uint64, n int) ([]ledger.Record, error) {
	return d.Journal.Read(after, n)
}

// smallDisk mounts a file system in memory. It needs the right to.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("a small disk cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill leaves no room, and says how to make some again.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	name := filepath.Join(dir, "ballast")
	f, err := os.Create(name)
	must(t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return func() { must(t, os.Remove(name)) }
}

// levels are the figures that a metric would show.
type levels struct {
	mu      sync.Mutex
	now     map[string]uint64
	written chan struct{} // the spool is, again
}

func (l *levels) set(name string, n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if name == audit.Spool && n == 0 && l.now[name] > 0 {
		l.written <- struct{}{}
	}
	l.now[name] = n
}

func (l *levels) of(name string) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now[name]
}

// TestFullDisk: the folder of the spool has no room, and has room again. Nobody waits
// meanwhile; what was accepted reaches every ledger once and in order, what was refused is
// counted in the chain, and states and figures tell the truth. What a loss of power would
// have left in between can be opened.
func TestFullDisk(t *testing.T) {
	disk := smallDisk(t, "512k")
	j, err := journal.Open(journal.Options{Dir: filepath.Join(disk, "ledger")})
	must(t, err)
	beside, far, forgets := onDisk{j}, &memory{}, &memory{}
	figures := &levels{now: map[string]uint64{}, written: make(chan struct{}, 16)}
	var log lines
	o := options(filepath.Join(disk, "audit"), audit.Sink{Name: "beside", Ledger: beside},
		audit.Sink{Name: "far", Ledger: far}, audit.Sink{Name: "forgets", Ledger: forgets, Forgets: true})
	o.Queue, o.Behind, o.Log = 16, figures.set, slog.New(slog.NewTextHandler(&log, nil))
	r := open(t, o)
	accepted, refused := 0, 0
	record := func() error {
		err := r.Record(t.Context(), audit.Purged("device", uint64(accepted), "test"))
		switch {
		case err == nil:
			accepted++
		case errors.Is(err, sdk.Unavailable) && errors.Is(err, syscall.ENOSPC):
			refused++
		default:
			t.Fatal(err)
		}
		return err
	}
	for range 5 {
		must(t, record())
	}
	must(t, r.Flush(t.Context()))

	free := fill(t, disk)
	for accepted < 10_000 && record() == nil {
	}
	for range 9 {
		if record() == nil {
			t.Error("recorded where there is no room")
		}
	}
	if s := r.States()[0]; s.Name != audit.Spool || !errors.Is(s.Err, syscall.ENOSPC) || s.Behind == 0 {
		t.Error(s)
	}
	if figures.of(audit.Spool) == 0 || !strings.Contains(log.String(), "audit spool not written") {
		t.Errorf("%d wait, log %s", figures.of(audit.Spool), log.String())
	}
	later := filepath.Join(t.TempDir(), "spool")
	must(t, os.CopyFS(later, os.DirFS(filepath.Join(o.Dir, "spool"))))
	left, err := journal.Open(journal.Options{Dir: later, Partial: true})
	must(t, err)
	if left.Head().Seq != r.Head().Seq {
		t.Errorf("a loss of power would leave %d records, %d are said to be kept", left.Head().Seq, r.Head().Seq)
	}
	must(t, left.Close())

	free()
	<-figures.written
	must(t, record())
	must(t, r.Flush(t.Context()))
	if s := r.States(); len(s) != 3 || figures.of(audit.Spool) != 0 {
		t.Error(s, figures.of(audit.Spool))
	}
	for name, l := range map[string]ledger.Ledger{"beside": beside, "far": far, "forgets": forgets} {
		if got, lost := purges(t, l); got != accepted || lost != refused {
			t.Errorf("%s: %d of %d events, %d lost of %d", name, got, accepted, lost, refused)
		}
	}

	// The end comes while there is no room: what waits in memory is in the log.
	free = fill(t, disk)
	before := accepted
	for accepted < 20_000 && record() == nil {
	}
	over, end := context.WithCancel(t.Context())
	end() // a ledger on the same disk takes nothing either
	if err := r.Close(over); !errors.Is(err, sdk.Unavailable) {
		t.Error("the end on a full disk:", err)
	}
	if !strings.Contains(log.String(), "audit record lost") || !strings.Contains(log.String(), fmt.Sprintf(`\"messages\":%d`, accepted-1)) {
		t.Error(log.String())
	}
	free()
	j, err = journal.Open(journal.Options{Dir: filepath.Join(disk, "ledger")})
	must(t, err)
	o.Sinks[0].Ledger = onDisk{j}
	r = open(t, o)
	must(t, r.Flush(t.Context()))
	if _, err := ledger.Verify(t.Context(), far); err != nil || len(far.records) < before {
		t.Error(len(far.records), err)
	}
	must(t, r.Close(t.Context()))
}

// purges counts the events in a ledger, which must be in order, and those that it says are
// lost.
func purges(t *testing.T, l ledger.Ledger) (events, lost int) {
	t.Helper()
	_, err := ledger.Verify(t.Context(), l)
	must(t, err)
	all, err := l.Read(t.Context(), 0, 100_000)
	must(t, err)
	for _, r := range all {
		if n := lostEvents(t, r); n > 0 {
			lost += n
			continue
		}
		var m struct{ Messages int }
		must(t, json.Unmarshal(r.Metadata, &m))
		if m.Messages != events {
			t.Fatalf("event %d stands in place of %d", m.Messages, events)
		}
		events++
	}
	return events, lost
}
