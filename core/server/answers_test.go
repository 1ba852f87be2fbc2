package server

import (
	"context"
	"testing"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/sdk/ccp"
)

// A device that connects again is told of its way without a question, until the process is
// another one, some time has passed, or the key was the device's no more in between.
func TestEndpointToldAgain(t *testing.T) {
	s, announce := keyedServer(t)
	k := announce("1")
	door := &keeper{process: 1}
	asks := func(want int) {
		t.Helper()
		e, err := s.tellEndpoint(t.Context(), door, "relay.example", "dev-a", k)
		if err != nil || e.Port != 444 || len(door.let) != want {
			t.Errorf("%v %v, asked %d times, want %d", e, err, len(door.let), want)
		}
	}
	asks(1)
	asks(1)
	door.process = 2
	asks(2)
	asks(2)
	announce("2")
	announce("1")
	asks(3)
	door.process = nil // not ready: what it says then is not kept
	asks(4)
	asks(5)
}

// A transport that hangs keeps the Acks of devices that it knows waiting once, not each time.
func TestSilentTransport(t *testing.T) {
	s, announce := keyedServer(t)
	k := announce("1")
	door := &keeper{process: 1}
	if _, err := s.tellEndpoint(t.Context(), door, "relay.example", "dev-a", k); err != nil {
		t.Fatal(err)
	}
	asked := 0
	hangs := &keeper{process: 2}
	late, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	hangs.invite = func() error { asked++; return late.Err() }
	for range 3 {
		if _, err := s.tellEndpoint(deaf{t.Context(), late}, hangs, "relay.example", "dev-a", k); err == nil {
			t.Error("no error")
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	if s.answers.skip("d-new", "door", time.Now()) {
		t.Error("a key that it does not know is not let in")
	}
}

// deaf is a context whose time is over for who looks afterwards, but that stops nobody.
type deaf struct {
	context.Context
	over context.Context
}

func (d deaf) Err() error { return d.over.Err() }

func TestAnswerBounds(t *testing.T) {
	var (
		all answers
		now = time.Unix(1_800_000_000, 0)
		e   = ccp.Endpoint{Transport: "door", Host: "h", Port: 1}
	)
	all.keep("a", 1, e, 0, now)
	if _, _, ok := all.find("a", 1, now.Add(answerFor)); ok {
		t.Error("too old")
	}
	_, round, _ := all.find("b", 1, now)
	all.forget(account.GuestID("dev", []byte("1")))
	all.keep("b", 1, e, round, now)
	if _, _, ok := all.find("b", 1, now); ok {
		t.Error("it may be what was forgotten")
	}
	for i := range answerMost + 1 {
		all.keep(string(rune(i)), 1, e, 1, now)
	}
	if n := len(all.all); n > answerMost {
		t.Error(n)
	}
}
