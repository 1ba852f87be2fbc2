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
		done, err := g.KeyWork(ctx, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		type result struct {
			id   int
			err  error
			done func()
		}
		results := make(chan result, 16)
		start := func(id int, entered bool) {
			go func() {
				d, err := g.KeyWork(ctx, nil, entered)
				results <- result{id, err, d}
			}()
			synctest.Wait()
		}
		for id := range 4 {
			start(id, false)
		}
		start(4, false) // full: refused at once
		if r := <-results; r.id != 4 || !errors.Is(r.err, ErrBusy) {
			t.Fatalf("got %+v", r)
		}
		start(5, true) // pushes out the oldest
		if r := <-results; r.id != 0 || !errors.Is(r.err, ErrBusy) {
			t.Fatalf("got %+v", r)
		}
		done()
		done() // once only
		for _, want := range []int{5, 1, 2, 3} {
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
		done, _ := g.KeyWork(context.Background(), nil, false)
		begin := time.Now()
		if _, err := g.KeyWork(context.Background(), nil, true); !errors.Is(err, ErrBusy) || time.Since(begin) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := g.KeyWork(ctx, nil, true); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		done()
		if again, err := g.KeyWork(context.Background(), nil, false); err != nil {
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
		done, _ := g.KeyWork(context.Background(), nil, false)
		ctx, cancel := context.WithCancel(context.Background())
		for range 50 {
			k, err := g.Admit(from("203.0.113.7"))
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				defer k.Release()
				if d, err := g.KeyWork(ctx, k, false); err == nil {
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
