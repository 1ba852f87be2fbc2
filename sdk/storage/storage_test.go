package storage_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

type config struct {
	Path string `cfg:"path" default:"relay.db" doc:"database file"`
}

func plugin() sdk.Plugin {
	return storage.Define(storage.Descriptor{
		Name: "sample", Version: "1.0.0", Summary: "a sample", Traits: storage.Traits{Batch: 16},
	}, func(_ context.Context, env sdk.Env, c config) (storage.Store, error) {
		if env == nil || c.Path == "" {
			return storage.Store{}, errors.New("no path")
		}
		return storage.Store{Ready: func(context.Context) error { return errors.New(c.Path) }}, nil
	})
}

func TestOpen(t *testing.T) {
	p := plugin()
	if p.Kind() != sdk.Storage || p.Name() != "sample" || p.Config().(*config).Path != "relay.db" {
		t.Fatalf("description: %v %v %+v", p.Kind(), p.Name(), p.Config())
	}
	if tr := storage.TraitsOf(p); tr.Batch != 16 || tr.Lanes != 1 {
		t.Fatalf("traits %+v", tr)
	}
	s, err := storage.Open(t.Context(), p, nil, map[string]any{"path": "x.db"})
	if err != nil || s.Ready(t.Context()).Error() != "x.db" {
		t.Fatalf("open: %v", err)
	}
	if _, err := storage.Open(t.Context(), p, nil, map[string]any{"pth": "x"}); sdk.KindOf(err) != sdk.Invalid {
		t.Fatalf("unknown key: %v", err)
	}
	if _, err := storage.Open(t.Context(), p, nil, map[string]any{"path": ""}); err == nil || !strings.HasPrefix(err.Error(), "storage sample: ") {
		t.Fatalf("error of the plugin: %v", err)
	}
}

func TestCombine(t *testing.T) {
	var order []string
	part := func(name string, err error) storage.Store {
		f := func(context.Context) error { order = append(order, name); return err }
		return storage.Store{Ready: f, Close: f}
	}
	s := storage.Combine(part("durable", nil), part("volatile", storage.ErrClosed))
	if err := s.Ready(t.Context()); !errors.Is(err, storage.ErrClosed) {
		t.Fatal(err)
	}
	_ = s.Close(t.Context())
	if got := strings.Join(order, " "); got != "durable volatile volatile durable" {
		t.Fatal(got)
	}
	if err := storage.Combine(storage.Store{}, storage.Store{}).Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestErrors(t *testing.T) {
	if sdk.KindOf(storage.ErrFull) != sdk.Full || !errors.Is(storage.ErrFull, sdk.Full) {
		t.Error("ErrFull has no kind")
	}
	err := fmt.Errorf("claim: %w", &storage.ConflictError{Key: storage.Key{Kind: "pair", ID: "secret"}, Version: 7})
	if sdk.KindOf(err) != sdk.Conflict || strings.Contains(err.Error(), "secret") {
		t.Errorf("conflict: %v", err)
	}
}

func TestLimits(t *testing.T) {
	long := strings.Repeat("x", 600)
	soon := time.Unix(1, 0)
	tests := map[string]error{
		"queue":   (&storage.Append{Expires: soon}).Check(),
		"long":    (&storage.Append{Queue: long, Expires: soon}).Check(),
		"payload": (&storage.Append{Queue: "q", Expires: soon, Payload: make([]byte, storage.MaxPayload+1)}).Check(),
		"expiry":  (&storage.Append{Queue: "q"}).Check(),
		"mark":    (&storage.Mark{Key: long}).Check(),
		"value":   (&storage.Mark{Key: "k", Value: make([]byte, storage.MaxMark+1)}).Check(),
		"range":   (&storage.Done{Queue: "q", Ranges: [][2]uint64{{2, 1}}}).Check(),
		"kind":    storage.CheckKind("Upper"),
		"id":      storage.Key{Kind: "k", ID: long}.Check(),
		"no id":   storage.Key{Kind: "k"}.Check(),
		"limit":   storage.Range{Kind: "k"}.Check(),
		"twice":   storage.CheckWrites([]storage.Write{{Key: storage.Key{Kind: "k", ID: "a"}}, {Key: storage.Key{Kind: "k", ID: "a"}}}),
		"many":    storage.CheckWrites(make([]storage.Write, storage.MaxWrites+1)),
		"big":     storage.CheckWrites([]storage.Write{{Key: storage.Key{Kind: "k", ID: "a"}, Value: make([]byte, storage.MaxValue+1)}}),
	}
	for name, err := range tests {
		if sdk.KindOf(err) != sdk.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (&storage.Append{Queue: "q", Expires: soon, Payload: make([]byte, storage.MaxPayload)}).Check(); err != nil {
		t.Error(err)
	}
}

func TestLane(t *testing.T) {
	var used [8]int
	for i := range 4096 {
		q := fmt.Sprintf("%032x", i)
		l := storage.Lane(q, 8)
		used[l]++
		if storage.Lane(q, 64)%8 != l || storage.Lane(q, 1) != 0 || storage.Lane(q, 0) != 0 {
			t.Fatal(q)
		}
	}
	for l, n := range used {
		if n < 400 || n > 624 {
			t.Errorf("lane %d has %d of 4096 queues", l, n)
		}
	}
}

func BenchmarkLane(b *testing.B) {
	for b.Loop() {
		storage.Lane("0123456789abcdef0123456789abcdef", 64)
	}
}

func ExampleDefine() {
	p := storage.Define(storage.Descriptor{Name: "nothing", Version: "0.1.0"},
		func(context.Context, sdk.Env, struct{}) (storage.Store, error) {
			return storage.Store{}, nil // a store that offers no part
		})
	s, err := storage.Open(context.Background(), p, nil, nil)
	fmt.Println(p.Name(), s.Queues == nil, err)
	// Output: nothing true <nil>
}
