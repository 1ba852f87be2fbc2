package onion

import (
	"fmt"
	"testing"
	"time"
)

// asked is what a client asks tor for in a time, each attempt failing at once.
func asked(d *directories, clock *time.Time, address string, during time.Duration, locked func(request string) bool) (attempts int, requests []string) {
	for end := clock.Add(during); clock.Before(end); {
		*clock = clock.Add(d.wait(address))
		if !clock.Before(end) {
			break
		}
		attempts++
		request := d.failed(address)
		if request != "" {
			requests = append(requests, request)
		}
		if locked(request) {
			d.lockedOut(address)
		}
		*clock = clock.Add(time.Millisecond)
	}
	return attempts, requests
}

func count(requests []string, one string) (n int) {
	for _, r := range requests {
		if r == one {
			n++
		}
	}
	return n
}

// A service that never comes: tor is asked a few times at first, then ever more rarely,
// in one long dial as in many short ones.
func TestPausesGrow(t *testing.T) {
	clock := time.Unix(1e9, 0)
	d := newDirectories(func() time.Time { return clock })
	// As tor: after six questions it is locked out, until it is told to forget.
	left := 6
	directory := func(request string) bool {
		if request == "SIGNAL NEWNYM" {
			left = 6
		}
		left--
		return left < 0
	}
	minute, requests := asked(d, &clock, "a", time.Minute, directory)
	if minute < 5 || minute > 9 || len(requests) > minute || count(requests, "SIGNAL NEWNYM") > 1 {
		t.Errorf("in a minute %d attempts and %q", minute, requests)
	}
	hour, requests := asked(d, &clock, "a", time.Hour, directory)
	if n := count(requests, "SIGNAL NEWNYM"); hour > 245 || n == 0 || n > 12 {
		t.Errorf("in an hour %d attempts, %d purges", hour, n)
	}
}

// Attempts at the same time are one question, and who comes through ends the pauses of
// that service alone.
func TestPausesAreShared(t *testing.T) {
	clock := time.Unix(1e9, 0)
	d := newDirectories(func() time.Time { return clock })
	if first, second := d.failed("a"), d.failed("a"); first != "HSFETCH a" || second != "" {
		t.Errorf("%q and %q", first, second)
	}
	if d.wait("a") != time.Second || d.wait("b") != 0 {
		t.Errorf("waits of %v and %v", d.wait("a"), d.wait("b"))
	}
	d.failed("b")
	d.reached("a")
	if d.wait("a") != 0 || d.wait("b") != time.Second {
		t.Errorf("then waits of %v and %v", d.wait("a"), d.wait("b"))
	}
	// Locked out: one purge serves all, and another must wait.
	clock = clock.Add(time.Minute)
	d.lockedOut("a")
	d.lockedOut("b")
	if got := d.failed("a"); got != "SIGNAL NEWNYM" {
		t.Errorf("%q", got)
	}
	if got := d.failed("b"); got != "HSFETCH b" {
		t.Errorf("%q", got)
	}
	d.lockedOut("a")
	clock = clock.Add(2 * time.Second)
	if got := d.failed("a"); got != "" {
		t.Errorf("%q", got)
	}
}

func TestPausesAreBounded(t *testing.T) {
	clock := time.Unix(1e9, 0)
	d := newDirectories(func() time.Time { return clock })
	for i := range 3 * maxServices {
		d.failed(fmt.Sprint(i))
		clock = clock.Add(time.Millisecond)
	}
	if len(d.services) != maxServices || d.services[fmt.Sprint(3*maxServices-1)] == nil {
		t.Errorf("%d services are remembered", len(d.services))
	}
}
