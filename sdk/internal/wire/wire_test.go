package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
	"github.com/commucat/commucat/sdk/storage"
	"github.com/commucat/commucat/sdk/transport"
)

// over sends an error through its bytes.
func over(t *testing.T, err error) error {
	t.Helper()
	b, failed := proto.Marshal(&wirepb.Done{Error: FromError(err)})
	if failed != nil {
		t.Fatal(failed)
	}
	var d wirepb.Done
	if failed := proto.Unmarshal(b, &d); failed != nil {
		t.Fatal(failed)
	}
	return ToError(d.Error)
}

func TestErrors(t *testing.T) {
	if err := over(t, nil); err != nil {
		t.Error(err)
	}
	for kind := sdk.Other; kind <= sdk.Closed; kind++ {
		err := over(t, fmt.Errorf("around: %w", &sdk.Error{Kind: kind, Op: "op", Text: "text"}))
		if sdk.KindOf(err) != kind || err.Error() != "around: op: text" || kind != sdk.Other && !errors.Is(err, kind) {
			t.Errorf("%v: %v %v", kind, sdk.KindOf(err), err)
		}
	}
	for _, k := range []error{
		context.Canceled, context.DeadlineExceeded, net.ErrClosed, os.ErrDeadlineExceeded, errors.ErrUnsupported, io.EOF,
		transport.ErrRefused, storage.ErrFull, storage.ErrClosed,
	} {
		if err := over(t, fmt.Errorf("around: %w", k)); !errors.Is(err, k) && k != storage.ErrFull && k != storage.ErrClosed {
			t.Errorf("%v became %v", k, err)
		}
		if err := over(t, k); !errors.Is(err, k) || err.Error() != k.Error() {
			t.Errorf("%v became %v", k, err)
		}
	}
	want := &storage.ConflictError{Key: storage.Key{Kind: "user", ID: "a\xff"}, Index: 3, Version: 9}
	var conflict *storage.ConflictError
	if err := over(t, fmt.Errorf("x: %w", want)); !errors.As(err, &conflict) || *conflict != *want || !errors.Is(err, sdk.Conflict) {
		t.Error(err)
	}
	mistakes := sdk.ConfigErrors{{Key: "a.b[2]", Pos: sdk.Position{File: "f", Line: 3, Column: 4}, Text: "is wrong", Suggestion: "right"}, {Text: "two"}}
	var got sdk.ConfigErrors
	if err := over(t, mistakes); !errors.As(err, &got) || cmp.Diff(mistakes, got) != "" {
		t.Error(err)
	}
	var timeout net.Error
	if err := over(t, os.ErrDeadlineExceeded); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Error(err)
	}
	if err := over(t, errors.New("\x1b[2J"+strings.Repeat("x", 100_000))); len(err.Error()) > maxText || strings.Contains(err.Error(), "\x1b") {
		t.Error(len(err.Error()))
	}
}

func TestTable(t *testing.T) {
	at := sdk.Position{File: "f.toml", Line: 1, Column: 2}
	raw := map[string]any{
		"text": "t\xff", "bool": true, "int": int64(-5), "number": 1.5, "nothing": nil,
		"list": []any{"a", int64(1)}, "table": map[string]any{"x": "y"}, "file": sdk.NewFile("p", []byte("c")),
		"located": sdk.Located{Value: "v", Key: at, At: at},
	}
	table, err := FromTable(raw)
	if err != nil {
		t.Fatal(err)
	}
	b, err := proto.Marshal(table)
	if err != nil {
		t.Fatal(err)
	}
	again := &wirepb.Table{}
	if err := proto.Unmarshal(b, again); err != nil {
		t.Fatal(err)
	}
	got, err := ToTable(again)
	if d := cmp.Diff(raw, got, cmp.AllowUnexported(sdk.File{})); err != nil || d != "" {
		t.Error(err, d)
	}
	table, err = FromTable(map[string]any{"s": sdk.NewSecret([]byte("hush")), "d": time.Now(), "u": uint64(math.MaxUint64), "n": 7})
	if err != nil {
		t.Fatal(err)
	}
	got, err = ToTable(table)
	if err != nil || got["s"].(sdk.Secret).Text() != "hush" || got["d"] != (Other{"time.Time"}) || got["u"] != float64(math.MaxUint64) || got["n"] != int64(7) {
		t.Errorf("%v %v", got, err)
	}
	deep := map[string]any{}
	for range 40 {
		deep = map[string]any{"x": []any{deep}}
	}
	if _, err := FromTable(deep); !errors.Is(err, sdk.Invalid) {
		t.Error(err)
	}
}

func TestTimes(t *testing.T) {
	for _, at := range []time.Time{{}, time.Unix(0, 0).UTC(), time.Unix(1e9, 123).UTC(), first.UTC(), last.UTC()} {
		if got := ToTime(FromTime(at)); !got.Equal(at) || got.IsZero() != at.IsZero() {
			t.Errorf("%v became %v", at, got)
		}
	}
	for _, at := range []time.Time{time.Date(1000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if got := ToTime(FromTime(at)); got.IsZero() || got.Before(at) == (at.Year() == 1000) {
			t.Errorf("%v became %v", at, got)
		}
	}
}

func TestChoose(t *testing.T) {
	for _, tc := range []struct {
		ours, theirs []uint32
		want         uint32
	}{{[]uint32{2, 1}, []uint32{1}, 1}, {[]uint32{2, 1}, []uint32{1, 2, 3}, 2}, {[]uint32{1}, []uint32{2}, 0}, {[]uint32{1}, nil, 0}, {[]uint32{3, 2}, []uint32{1}, 0}} {
		got, err := Choose("x", tc.ours, tc.theirs)
		if got != tc.want || (err == nil) != (tc.want > 0) {
			t.Errorf("%v and %v: %d, %v", tc.ours, tc.theirs, got, err)
		}
	}
}

func rowsOf(n int) []storage.Append {
	rows := make([]storage.Append, n)
	for i := range rows {
		rows[i] = storage.Append{Queue: strings.Repeat("q", 1+i%7) + "\xff", ID: [16]byte{byte(i)}, Payload: bytes.Repeat([]byte{1}, i), Expires: time.Unix(int64(i+1), 0).UTC()}
	}
	return rows
}

func TestRows(t *testing.T) {
	want := rowsOf(50)
	m := &wirepb.Rows{}
	for i := range want {
		AppendRow(m, &want[i])
	}
	got, err := ToRows(nil, m)
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Error(err, d)
	}
	for name, spoil := range map[string]func(*wirepb.Rows){
		"ids":        func(m *wirepb.Rows) { m.Ids = m.Ids[1:] },
		"queues":     func(m *wirepb.Rows) { m.Queues = m.Queues[1:] },
		"payloads":   func(m *wirepb.Rows) { m.Payloads = append(m.Payloads, 1) },
		"sizes":      func(m *wirepb.Rows) { m.PayloadSizes[0] = math.MaxUint32 },
		"more sizes": func(m *wirepb.Rows) { m.QueueSizes = append(m.QueueSizes, 1) },
	} {
		bad := proto.CloneOf(m)
		spoil(bad)
		if _, err := ToRows(nil, bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestResults(t *testing.T) {
	in := []storage.Appended{{Position: 1}, {Position: 5, Duplicate: true}, {Err: storage.ErrFull}}
	got, err := ToResults(FromResults(in), 3)
	if err != nil || len(got) != 3 || got[0] != in[0] || got[1] != in[1] || !errors.Is(got[2].Err, storage.ErrFull) {
		t.Error(got, err)
	}
	for _, bad := range []*wirepb.Results{
		nil, {Positions: []uint64{1, 2}}, {Positions: []uint64{1, 2, 3}, Duplicates: []uint32{3}},
		{Positions: []uint64{1, 2, 3}, Errors: []*wirepb.RowError{{Row: 9, Error: &wirepb.Error{}}}}, {Positions: []uint64{1, 2, 3}, Errors: []*wirepb.RowError{{Row: 1}}},
	} {
		if _, err := ToResults(bad, 3); !errors.Is(err, sdk.Corrupt) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func FuzzRows(f *testing.F) {
	m := &wirepb.Rows{}
	for _, r := range rowsOf(3) {
		AppendRow(m, &r)
	}
	b, err := proto.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var m wirepb.Rows
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		rows, err := ToRows(nil, &m)
		if err != nil {
			return
		}
		again := &wirepb.Rows{}
		for i := range rows {
			AppendRow(again, &rows[i])
		}
		if !bytes.Equal(again.Queues, m.Queues) || !bytes.Equal(again.Payloads, m.Payloads) || !bytes.Equal(again.Ids, m.Ids) {
			t.Fatalf("%v became %v", &m, again)
		}
	})
}

func FuzzEnvelopes(f *testing.F) {
	m := &wirepb.Envelopes{}
	AppendEnvelope(m, &storage.Envelope{Position: 3, Payload: []byte("x")})
	b, err := proto.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, uint64(2))
	f.Fuzz(func(t *testing.T, b []byte, after uint64) {
		var m wirepb.Envelopes
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		rows, err := ToEnvelopes(nil, &m, after)
		if err != nil {
			return
		}
		again := &wirepb.Envelopes{}
		for i := range rows {
			if rows[i].Position <= after {
				t.Fatal("out of order")
			}
			after = rows[i].Position
			AppendEnvelope(again, &rows[i])
		}
		if !bytes.Equal(again.Payloads, m.Payloads) || len(again.Positions) != len(m.Positions) {
			t.Fatalf("%v became %v", &m, again)
		}
	})
}

func TestDocumentRefuses(t *testing.T) {
	const form = `{"plugins":[{"kind":"ledger","name":"x","version":"1","summary":"","protocols":[1],"ledger":{},"config":[%s]}]}`
	for _, field := range []string{
		`{"name":"A B","type":"text"}`, `{"name":"a","type":"text"},{"name":"a","type":"text"}`, `{"name":"a","type":"duration","default":"soon"}`,
		`{"name":"a","type":"size","min":"many"}`, `{"name":"a","type":"integer","default":"x"}`, `{"name":"a","type":"list of list of text"}`,
		`{"name":"*","type":"text"}`, `{"name":"a","type":"rest"}`, `{"name":"a","type":"text","enum":["b"],"default":"c"}`,
		`{"name":"a","type":"table","fields":[{"name":"b","type":"bool","default":"maybe"}]}`,
	} {
		if _, err := ParseDocument(fmt.Appendf(nil, form, field)); !errors.Is(err, sdk.Invalid) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := ParseDocument(fmt.Appendf(nil, form, `{"name":"a","type":"of its own","default":"\"q\""}`)); err != nil {
		t.Error(err)
	}
}

// What a document describes can be described again, and decoded into.
func FuzzDocument(f *testing.F) {
	f.Add([]byte(`{"plugins":[{"kind":"transport","name":"x","version":"1","summary":"s","protocols":[1],"transport":{"needs":[{"kind":"tcp-port"}]},` +
		`"config":[{"name":"a","type":"size","default":"1KiB","min":"1B"},{"name":"t","type":"list of tables","fields":[{"name":"b","type":"secret"}]}]}]}`))
	f.Add([]byte(`{"plugins":[{"kind":"storage","name":"s","version":"1","protocols":[1],"storage":{"lanes":-1}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ParseDocument(b)
		if err != nil {
			return
		}
		for i := range d.Plugins {
			p := &d.Plugins[i]
			if p.SDKKind() == 0 || p.Storage != nil && (p.Storage.Lanes < 1 || p.Storage.Lanes > maxLanes) {
				t.Fatalf("%+v", p)
			}
			_ = sdk.Fields(p.NewConfig())
			_ = sdk.Decode(map[string]any{"a": "x", "b": int64(7)}, nil, p.NewConfig())
		}
		again, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if len(again) > MaxDocument {
			return
		}
		if _, err := ParseDocument(again); err != nil {
			t.Fatalf("%s: %v", again, err)
		}
	})
}
