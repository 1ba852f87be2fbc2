package admission

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestKeyWorkPrefersTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{KeyWork: 1, KeyQueue: 4})
		ctx := context.Background()
		done, err := g.KeyWork(ctx, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		type result struct {
			id   int
			err  error
			done func()
		}
		results := make(chan result, 16)
		start := func(id int, rank Rank) {
			go func() {
				d, err := g.KeyWork(ctx, nil, rank)
				results <- result{id, err, d}
			}()
			synctest.Wait()
		}
		for id := range 4 {
			start(id, 0)
		}
		start(4, 0) // full: refused at once
		if r := <-results; r.id != 4 || !errors.Is(r.err, ErrBusy) {
			t.Fatalf("got %+v", r)
		}
		for out, in := range []struct {
			id   int
			rank Rank
		}{{5, Entered}, {6, Begun}, {7, Entered | Begun}} {
			start(in.id, in.rank) // pushes out the oldest of the lowest rank
			if r := <-results; r.id != out || !errors.Is(r.err, ErrBusy) {
				t.Fatalf("got %+v", r)
			}
		}
		start(8, Begun) // pushes out the last stranger
		if r := <-results; r.id != 3 || !errors.Is(r.err, ErrBusy) {
			t.Fatalf("got %+v", r)
		}
		start(9, Begun) // its like only
		if r := <-results; r.id != 9 || !errors.Is(r.err, ErrBusy) {
			t.Fatalf("got %+v", r)
		}
		done()
		done() // once only
		for _, want := range []int{7, 5, 6, 8} {
			r := <-results
			if r.id != want || r.err != nil {
				t.Fatalf("got %+v, want %d", r, want)
			}
			synctest.Wait()
			if len(results) != 0 {
				t.Fatal("two at a time")
			}
			r.done()
		}
		synctest.Wait()
		if s := g.Stats(); s.Running != 0 || s.Waiting != 0 {
			t.Errorf("left over: %+v", s)
		}
	})
}

func TestKeyWorkTimesOutAndCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{KeyWork: 1})
		done, _ := g.KeyWork(context.Background(), nil, 0)
		begin := time.Now()
		if _, err := g.KeyWork(context.Background(), nil, Entered); !errors.Is(err, ErrBusy) || time.Since(begin) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := g.KeyWork(ctx, nil, Entered); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		done()
		if again, err := g.KeyWork(context.Background(), nil, 0); err != nil {
			t.Error(err)
		} else {
			again()
		}
	})
}

// TestT46OnePrefixCannotFillTheQueue: a quarter of the places without token.
func TestT46OnePrefixCannotFillTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{KeyWork: 1, KeyQueue: 16})
		done, _ := g.KeyWork(context.Background(), nil, 0)
		ctx, cancel := context.WithCancel(context.Background())
		for range 50 {
			k, err := g.Admit(from("203.0.113.7"))
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				defer k.Release()
				if d, err := g.KeyWork(ctx, k, 0); err == nil {
					d()
				}
			}()
		}
		synctest.Wait()
		if s := g.Stats(); s.Waiting != 4 {
			t.Errorf("%d waiting, want 4", s.Waiting)
		}
		cancel()
		synctest.Wait()
		done()
		if s := g.Stats(); s.Waiting != 0 || s.Running != 0 || s.Open != 0 {
			t.Errorf("left over: %+v", s)
		}
	})
}
