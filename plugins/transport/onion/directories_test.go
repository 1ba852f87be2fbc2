package onion

import (
	"fmt"
	"testing"
	"time"
)

// directoryOf is tor as it is with a service whose descriptor cannot be read: each attempt
// asks one more directory, and one that was asked is let alone for a while.
type directoryOf struct {
	clock *time.Time
	until [6]time.Time
}

func (t *directoryOf) attempt() (asked bool) {
	for i, until := range t.until {
		if !t.clock.Before(until) {
			t.until[i] = t.clock.Add(15 * time.Minute)
			return true
		}
	}
	return false
}

// dialling attempts to reach a service for a time.
func dialling(d *directories, tor *directoryOf, during time.Duration) (attempts, asked, purges int) {
	for end := tor.clock.Add(during); ; {
		*tor.clock = tor.clock.Add(d.wait("a") + time.Millisecond)
		if !tor.clock.Before(end) {
			return attempts, asked, purges
		}
		attempts++
		if tor.attempt() {
			asked++
			d.asked("a")
		}
		if d.failed("a", true) {
			purges++
			tor.until = [6]time.Time{}
		}
	}
}

// A service that does not come: directories are asked some times at first, then ever more
// rarely, and never not at all.
func TestPausesGrow(t *testing.T) {
	clock := time.Unix(1e9, 0)
	d := newDirectories(func() time.Time { return clock })
	tor := &directoryOf{clock: &clock}
	if attempts, asked, purges := dialling(d, tor, time.Minute); attempts < 5 || attempts > 9 || asked < 5 || purges > 1 {
		t.Errorf("in a minute %d attempts, of which %d asked, %d purges", attempts, asked, purges)
	}
	if attempts, asked, purges := dialling(d, tor, time.Hour); attempts > 245 || asked < 24 || purges == 0 || purges > 12 {
		t.Errorf("in an hour %d attempts, of which %d asked, %d purges", attempts, asked, purges)
	}
}

// Attempts at the same time are one, and who comes through ends the pauses of that service
// alone.
func TestPausesAreShared(t *testing.T) {
	clock := time.Unix(1e9, 0)
	d := newDirectories(func() time.Time { return clock })
	d.asked("a")
	for range 2 {
		if d.failed("a", true) {
			t.Error("a purge, though directories were asked")
		}
	}
	if d.wait("a") != time.Second || d.wait("b") != 0 {
		t.Errorf("waits of %v and %v", d.wait("a"), d.wait("b"))
	}
	d.asked("b")
	d.failed("b", true)
	d.reached("a")
	if d.wait("a") != 0 || d.wait("b") != time.Second {
		t.Errorf("then waits of %v and %v", d.wait("a"), d.wait("b"))
	}
	// It took too long, and tor goes on.
	clock = clock.Add(time.Minute)
	if d.failed("a", false) {
		t.Error("a purge under tor's attempt")
	}
	// Nobody was asked, twice: one purge serves all, and another must wait.
	want := []string{"", "a", "", "", "a"}
	for i, after := range []time.Duration{time.Minute, 4 * time.Second, 8 * time.Second, 9 * time.Second, 15 * time.Second} {
		clock = clock.Add(after)
		got := ""
		for _, address := range []string{"a", "b"} {
			if d.failed(address, true) {
				got += address
			}
		}
		if got != want[i] {
			t.Errorf("attempt %d: purges for %q, want %q", i, got, want[i])
		}
	}
}

func TestPausesAreBounded(t *testing.T) {
	clock := time.Unix(1e9, 0)
	d := newDirectories(func() time.Time { return clock })
	for i := range 3 * maxServices {
		d.failed(fmt.Sprint(i), true)
		clock = clock.Add(time.Millisecond)
	}
	if len(d.services) != maxServices || d.services[fmt.Sprint(3*maxServices-1)] == nil {
		t.Errorf("%d services are remembered", len(d.services))
	}
}
