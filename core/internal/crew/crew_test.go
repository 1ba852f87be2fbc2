package crew

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAllRunAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := make(chan struct{})
		c := New(over)
		n := 10 * runtime.GOMAXPROCS(0)
		for range 3 {
			var all sync.WaitGroup
			all.Add(n)
			together := make(chan struct{})
			for range n {
				c.Go(func() {
					all.Done()
					<-together // none gets on before all have begun
				})
			}
			all.Wait()
			close(together)
			synctest.Wait()
			if got, most := len(c.spare), cap(c.spare); got != most {
				t.Fatalf("%d goroutines wait for work, want %d", got, most)
			}
		}
		close(over)
		synctest.Wait()
		if got := len(c.spare); got != 0 {
			t.Errorf("%d goroutines wait after the end", got)
		}
		done := false
		c.Go(func() { done = true })
		synctest.Wait()
		if !done {
			t.Error("work given after the end did not run")
		}
	})
}
