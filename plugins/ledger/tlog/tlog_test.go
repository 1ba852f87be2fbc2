package tlog_test

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/commucat/commucat/plugins/ledger/tlog"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
	"github.com/commucat/commucat/sdk/ledger/tiles"
	"github.com/commucat/commucat/sdk/plugintest"
)

func TestConformance(t *testing.T) {
	plugintest.Ledger(t, tlog.Plugin, plugintest.LedgerOptions{Config: map[string]any{"origin": "relay.example/audit"}})
}

func open(t *testing.T, state string, raw map[string]any) (ledger.Ledger, error) {
	t.Helper()
	l, err := ledger.Open(t.Context(), tlog.Plugin, sdk.NewEnv(sdk.EnvOptions{State: state}), raw)
	if err == nil {
		t.Cleanup(func() { _ = l.Close(t.Context()) })
	}
	return l, err
}

// Records can be proved to whoever has the key and nothing else of the relay.
func TestProof(t *testing.T) {
	state := t.TempDir()
	l, err := open(t, state, nil)
	if err != nil {
		t.Fatal(err)
	}
	records := plugintest.LedgerRecords(t, ledger.Record{}, 300)
	if err := l.Submit(t.Context(), records); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(state, "log", "key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	public := strings.TrimSpace(string(key))
	r, err := tiles.OpenReader(os.DirFS(filepath.Join(state, "log")), public)
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.Prove(256)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := p.Verify(records[256].AppendLine(nil), public); err != nil || !strings.HasPrefix(c.Origin, "audit-") || c.Size != 300 {
		t.Errorf("%+v %v", c, err)
	}
}

func TestOriginIsKept(t *testing.T) {
	state := t.TempDir()
	l, err := open(t, state, map[string]any{"origin": "relay.example/audit"})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, state, map[string]any{"origin": "other.example/audit"}); !errors.Is(err, sdk.Invalid) || !strings.Contains(err.Error(), "relay.example/audit") {
		t.Error(err)
	}
	info, err := os.Stat(filepath.Join(state, "key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(state, "key"), []byte("PRIVATE+KEY+x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, state, nil); !errors.Is(err, sdk.Corrupt) || strings.Contains(err.Error(), "PRIVATE") {
		t.Error(err)
	}
}

func TestConfig(t *testing.T) {
	for name, raw := range map[string]map[string]any{
		"origin":       {"origin": "a b"},
		"witnesses[1]": {"witnesses": []any{"sigsum.org/w+e4ade967+BBQwEVwBUgPfNNPsXZ4FKAmk5u7kCxQsGyO8Bhsw0yTS", "x"}},
	} {
		_, err := open(t, t.TempDir(), raw)
		if sdk.KindOf(err) != sdk.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ledger.Open(t.Context(), tlog.Plugin, nil, nil); !errors.Is(err, sdk.Invalid) {
		t.Errorf("no folder: %v", err)
	}
}

// TestDiskIsFull: what a write that fails stands for here is a name that cannot be made.
// There is no new start afterwards, and no record twice.
func TestDiskIsFull(t *testing.T) {
	state := t.TempDir()
	l, err := open(t, state, nil)
	if err != nil {
		t.Fatal(err)
	}
	records := plugintest.LedgerRecords(t, ledger.Record{}, 30)
	if err := l.Submit(t.Context(), records[:10]); err != nil {
		t.Fatal(err)
	}
	obstacle := filepath.Join(state, "log", "checkpoint.new")
	if err := os.Mkdir(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := l.Submit(t.Context(), records[10:20]); !errors.Is(err, sdk.Unavailable) {
			t.Fatal(err)
		}
	}
	if head, err := l.Head(t.Context()); err != nil || !head.Equal(records[9]) {
		t.Fatal(head.Seq, err)
	}
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	if err := l.Submit(t.Context(), records[5:]); err != nil {
		t.Fatal(err)
	}
	got, err := l.Read(t.Context(), 0, 100)
	if err != nil || len(got) != 30 || !got[29].Equal(records[29]) {
		t.Fatal(len(got), err)
	}
}

// TestPublicKeyStays: opening does not begin by emptying what others read.
func TestPublicKeyStays(t *testing.T) {
	state := t.TempDir()
	name := filepath.Join(state, "log", "key.pub")
	var first os.FileInfo
	for range 2 {
		l, err := open(t, state, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != 0o644 || first != nil && !info.ModTime().Equal(first.ModTime()) {
			t.Fatal(info, err)
		}
		first = info
	}
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, state, nil); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(name); err != nil || len(b) == 0 {
		t.Error(string(b), err)
	}
}

// TestForgedHashes: who changes records and the hashes beside them is found out by the tree
// head, and the record is named by the chain.
func TestForgedHashes(t *testing.T) {
	records := plugintest.LedgerRecords(t, ledger.Record{}, 300)
	forged := records[270]
	forged.Metadata = []byte(`{"action":"forged"}`)
	forged.Hash = forged.Sum()
	for name, c := range map[string]struct {
		change func([]ledger.Record)
		want   string
	}{
		"swapped": {func(r []ledger.Record) { r[259], r[260] = r[260], r[259] }, "record 260 is not there: record 261 stands in its place"},
		"removed": {func(r []ledger.Record) { copy(r[265:], r[266:]) }, "record 266 is not there: record 267 stands in its place"},
		"changed": {func(r []ledger.Record) { r[270] = forged }, "record 272 cannot be believed: it does not follow the record before it"},
	} {
		t.Run(name, func(t *testing.T) {
			state := t.TempDir()
			l, err := open(t, state, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Submit(t.Context(), records); err != nil {
				t.Fatal(err)
			}
			other := slices.Clone(records)
			c.change(other)
			var bundle, hashes []byte
			for _, r := range other[256:] {
				line := r.AppendLine(nil)
				bundle = append(binary.BigEndian.AppendUint16(bundle, uint16(len(line))), line...)
				hash := sha256.Sum256(append([]byte{0}, line...))
				hashes = append(hashes, hash[:]...)
			}
			log := filepath.Join(state, "log")
			for file, b := range map[string][]byte{"tile/entries/001.p/44": bundle, "tile/0/001.p/44": hashes} {
				if err := os.WriteFile(filepath.Join(log, file), b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			key, err := os.ReadFile(filepath.Join(log, "key.pub"))
			if err != nil {
				t.Fatal(err)
			}
			r, err := tiles.OpenReader(os.DirFS(log), strings.TrimSpace(string(key)))
			if err != nil {
				t.Fatal(err)
			}
			if err := r.VerifyRecords(t.Context(), nil); err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, sdk.Corrupt) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}
