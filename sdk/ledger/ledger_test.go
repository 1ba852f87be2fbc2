package ledger_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
)

func record(t testing.TB, prev ledger.Record, text string) ledger.Record {
	t.Helper()
	m, err := ledger.Metadata(map[string]any{"text": text, "action": "test", "n": 1})
	if err != nil {
		t.Fatal(err)
	}
	r, err := ledger.Next(prev, time.Date(2026, 1, 2, 3, 4, 5, 6789, time.UTC), [32]byte{1, 2, 3}, m)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestForm holds the bytes of a record: another implementation must agree.
func TestForm(t *testing.T) {
	r := record(t, ledger.Record{}, "<é>")
	const want = `{"seq":1,"recorded_at":"2026-01-02T03:04:05.000006+00:00",` +
		`"digest":"0102030000000000000000000000000000000000000000000000000000000000",` +
		`"prev":"0000000000000000000000000000000000000000000000000000000000000000",` +
		`"hash":"HASH","metadata":{"action":"test","n":1,"text":"<é>"}}`
	line := string(r.AppendLine(nil))
	if d := cmp.Diff(strings.Replace(want, "HASH", hex.EncodeToString(r.Hash[:]), 1), line); d != "" {
		t.Error(d)
	}
	if got := hex.EncodeToString(r.Hash[:]); got != formHash {
		t.Errorf("hash %s", got)
	}
	back, err := ledger.ParseLine([]byte(line))
	if err != nil || cmp.Diff(r, back) != "" {
		t.Error(err, cmp.Diff(r, back))
	}
}

// formHash was computed independently of this package.
const formHash = "72cf4f5235cc569d931618eb9f607a92fef6e4ee194c4d3f68cd5b07b4d12b7d"

func TestCheck(t *testing.T) {
	good := record(t, ledger.Record{}, "x")
	for name, change := range map[string]func(*ledger.Record){
		"number":    func(r *ledger.Record) { r.Seq = 0 },
		"time":      func(r *ledger.Record) { r.Time = r.Time.Add(1) },
		"zone":      func(r *ledger.Record) { r.Time = r.Time.In(time.FixedZone("x", 3600)) },
		"year":      func(r *ledger.Record) { r.Time = time.Time{} },
		"digest":    func(r *ledger.Record) { r.Digest[0]++ },
		"prev":      func(r *ledger.Record) { r.Prev[0]++ },
		"space":     func(r *ledger.Record) { r.Metadata = []byte(`{ }`); r.Hash = r.Sum() },
		"order":     func(r *ledger.Record) { r.Metadata = []byte(`{"b":1,"a":1}`); r.Hash = r.Sum() },
		"twice":     func(r *ledger.Record) { r.Metadata = []byte(`{"a":1,"a":1}`); r.Hash = r.Sum() },
		"no object": func(r *ledger.Record) { r.Metadata = []byte(`null`); r.Hash = r.Sum() },
		"two":       func(r *ledger.Record) { r.Metadata = []byte(`{}{}`); r.Hash = r.Sum() },
		"long": func(r *ledger.Record) {
			r.Metadata = []byte(`{"a":"` + strings.Repeat("x", ledger.MaxMetadata) + `"}`)
			r.Hash = r.Sum()
		},
	} {
		r := good
		change(&r)
		if err := r.Check(); !errors.Is(err, sdk.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	if _, err := ledger.Metadata(map[string]any{"a": strings.Repeat("x", ledger.MaxMetadata)}); !errors.Is(err, sdk.Invalid) {
		t.Error(err)
	}
	if m, err := ledger.Metadata(nil); err != nil || string(m) != "{}" {
		t.Error(string(m), err)
	}
}

// list is a ledger in memory.
type list []ledger.Record

func (l list) Submit(context.Context, []ledger.Record) error { return nil }
func (l list) Close(context.Context) error                   { return nil }
func (l list) Head(context.Context) (ledger.Record, error)   { return l[len(l)-1], nil }
func (l list) Read(_ context.Context, after uint64, limit int) ([]ledger.Record, error) {
	if after >= uint64(len(l)) {
		return nil, nil
	}
	return l[after:min(int(after)+limit, len(l))], nil
}

func chain(t testing.TB, n int) list {
	var out list
	var prev ledger.Record
	for i := range n {
		prev = record(t, prev, fmt.Sprint(i))
		out = append(out, prev)
	}
	return out
}

func TestVerify(t *testing.T) {
	all := chain(t, 20)
	point := func(l list, seq uint64) ledger.Checkpoint {
		return ledger.Checkpoint{Domain: "relay.example", Seq: seq, Hash: l[seq-1].Hash}
	}
	forged := record(t, all[6], "forged")
	other := append(append(list{}, all[:7]...), forged)
	for len(other) < 20 {
		other = append(other, record(t, other[len(other)-1], "forged"))
	}
	cut := func(parts ...list) list {
		var out list
		for _, p := range parts {
			out = append(out, p...)
		}
		return out
	}
	edited := cut(all)
	edited[4].Metadata = []byte(`{}`)
	rehashed := cut(edited)
	rehashed[4].Hash = rehashed[4].Sum()
	for name, c := range map[string]struct {
		l     list
		point []ledger.Checkpoint
		seq   uint64 // where it is broken; 0: it is good
	}{
		"good":                 {all, []ledger.Checkpoint{point(all, 20), point(all, 3)}, 0},
		"deleted":              {cut(all[:4], all[5:]), nil, 5},
		"first deleted":        {all[1:], nil, 1},
		"swapped":              {cut(all[:4], all[5:6], all[4:5], all[6:]), nil, 5},
		"edited":               {edited, nil, 5},
		"edited, new hash":     {rehashed, nil, 6},
		"forked":               {cut(all[:7], list{forged}, all[8:]), nil, 9},
		"truncated":            {all[:15], nil, 0},
		"truncated, known":     {all[:15], []ledger.Checkpoint{point(all, 18)}, 16},
		"replaced":             {other, nil, 0},
		"replaced, known":      {other, []ledger.Checkpoint{point(all, 10)}, 10},
		"replaced, known late": {other, []ledger.Checkpoint{point(all, 7)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			report, err := ledger.Verify(t.Context(), c.l, c.point...)
			var broken *ledger.BrokenError
			switch {
			case c.seq == 0 && (err != nil || report.Records != uint64(len(c.l))):
				t.Error(report, err)
			case c.seq != 0 && (!errors.As(err, &broken) || broken.Seq != c.seq || !errors.Is(err, sdk.Corrupt)):
				t.Error(err)
			}
		})
	}
}

func TestCheckpoint(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))
	public := key.Public().(ed25519.PublicKey)
	c := ledger.Checkpoint{Domain: "relay.example", Seq: 9, Hash: [32]byte{1}}
	line := c.Sign(key)
	if got, err := ledger.ParseCheckpoint(line+"\n", public); err != nil || got != c {
		t.Error(got, err)
	}
	for name, bad := range map[string]string{
		"empty": "", "short": "a 1 b", "number": strings.Replace(line, " 9 ", " 09 ", 1),
		"changed": strings.Replace(line, " 9 ", " 8 ", 1), "domain": "x" + line, "case": strings.ToUpper(line),
	} {
		if _, err := ledger.ParseCheckpoint(bad, public); err == nil {
			t.Error(name)
		}
	}
	if _, err := ledger.ParseCheckpoint(line, nil); !errors.Is(err, sdk.Denied) {
		t.Error(err)
	}
}

func FuzzParseLine(f *testing.F) {
	for _, r := range chain(f, 3) {
		f.Add(r.AppendLine(nil))
	}
	f.Add([]byte(`{"seq":1,"recorded_at":"2026-01-02T03:04:05.000006+00:00","digest":"`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := ledger.ParseLine(line)
		if err != nil {
			if !errors.Is(err, sdk.Corrupt) {
				t.Fatal(err)
			}
			return
		}
		if again := r.AppendLine(nil); !bytes.Equal(again, line) {
			t.Fatalf("%q became %q", line, again)
		}
	})
}

func BenchmarkParseLine(b *testing.B) {
	line := chain(b, 1)[0].AppendLine(nil)
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ledger.ParseLine(line); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleChain() {
	var chain ledger.Chain
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	first, _ := ledger.Next(ledger.Record{}, at, [32]byte{}, []byte(`{"action":"start"}`))
	second, _ := ledger.Next(first, at, [32]byte{}, []byte(`{"action":"stop"}`))
	fmt.Println(chain.Add(second))
	fmt.Println(chain.Add(first), chain.Add(second))
	// Output:
	// the chain is broken at record 1: it is missing, record 2 follows
	// <nil> <nil>
}
