package pluginhost

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
)

// hostility is a way to misbehave and what comes of it.
type hostility struct {
	behave string
	// want is looked for in the state's error, log in the log; state is where it
	// ends up, "" where it goes on.
	want, log string
	state     Phase
}

// TestHostile: each is contained and named, and a neighbour serves all the while.
func TestHostile(t *testing.T) {
	contained(t, []hostility{
		{"panic", "panic: on purpose", "plugin parked", Parked},
		{"exit", "it ended with status 9", "plugin parked", Parked},
		{"flood", "", "the plugin logs too much", ""},
		{"half", "", "", ""},
		{"json", "", "plugin output", ""},
		{"foreign", "", "", ""},
	})
}

// TestBudgetHostileMemory: so is one that takes more memory than it may have.
func TestBudgetHostileMemory(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector needs address space without end")
	}
	contained(t, []hostility{{"memory", "", "plugin parked", Parked}})
}

func contained(t *testing.T, tests []hostility) {
	for _, tt := range tests {
		t.Run(tt.behave, func(t *testing.T) {
			s := newStand(t, nil)
			neighbour := s.serving(t, "neighbour", nil)
			first := s.States()[0].PID
			hostile := spec("hostile", map[string]any{"behave": tt.behave})
			hostile.Settings.Memory = min(hostile.Settings.Memory, 256<<20)
			bad, err := s.Transport(hostile)
			must(t, err)
			if tt.state == "" {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				must(t, bad.Wait(ctx))
			}
			state := func() State {
				for _, st := range s.States() {
					if st.Name == "hostile" {
						return st
					}
				}
				return State{}
			}
			seen := func() bool {
				st := state()
				if tt.behave == "foreign" && st.Foreign == 0 || tt.behave == "flood" && st.LogDropped == 0 {
					return false
				}
				return (tt.state == "" || st.State == tt.state) && strings.Contains(st.Error, tt.want) && strings.Contains(s.notes.String(), tt.log)
			}
			for end := time.Now().Add(patience); !seen(); {
				if time.Now().After(end) {
					t.Fatalf("%+v", state())
				}
				if err := echoes(neighbour.Addr().String()); err != nil {
					t.Fatalf("the neighbour: %v", err)
				}
			}
			if tt.state == "" {
				if err := echoes(bad.Addr().String()); err != nil {
					t.Errorf("it could serve: %v", err)
				}
			}
			if n := len(s.notes.String()); n > 8<<20 {
				t.Errorf("%d bytes of log", n)
			}
			if strings.Contains(s.notes.String(), "\x1b") {
				t.Error("control characters in the log")
			}
			if st := s.States()[1]; st.Name != "neighbour" || st.PID != first || st.Restarts != 0 {
				t.Errorf("the neighbour: %+v", st)
			}
		})
	}
}

// TestHostileStart: what goes wrong before a plugin is spoken to.
func TestHostileStart(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		states     []Phase
	}{
		{"early-exit", "it ended before it could be used: it ended with status 3", []Phase{Parked}},
		{"early-panic", "panic: at once", []Phase{Parked}},
		{"half-line", "", []Phase{Backoff}},
		// Half a line is waited for, a whole one that is none is judged at once: which of
		// both this is depends on how the pipe cuts it.
		{"chatter", "", []Phase{Backoff, Parked}},
		{"liar", `it calls itself version "6.6.6", the list says "1.0.0"`, []Phase{Parked}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStand(t, nil)
			s.pace.start = 3 * time.Second
			s.plain(t, tt.name, nil)
			for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
				st := s.States()[0]
				if slices.Contains(tt.states, st.State) && strings.Contains(st.Error, tt.want) {
					t.Log(st.Error)
					break
				}
				if time.Now().After(end) {
					t.Fatalf("%+v", st)
				}
			}
		})
	}
}

// TestHungIsKilled: a stopped process answers no ping.
func TestHungIsKilled(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	s.pace.ping = 500 * time.Millisecond
	tr := s.serving(t, "x", nil)
	pid := s.States()[0].PID
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if st := s.States()[0]; st.State == Running && st.PID != pid {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%+v", s.States())
		}
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d: %v", pid, err)
	}
	if err := echoes(tr.Addr().String()); err != nil {
		t.Error(err)
	}
}

// TestDrainIgnored: a plugin whose streams never end is closed when its time is over.
func TestDrainIgnored(t *testing.T) {
	s := newStand(t, func(o *Options) {
		o.Drain = 300 * time.Millisecond
		o.Accept = func(*Conn) {} // never closed
	})
	tr := s.serving(t, "x", map[string]any{"pump": true})
	c, err := net.Dial("tcp", tr.Addr().String())
	must(t, err)
	defer c.Close()
	eventually(t, "one stream", func() bool { return s.States()[0].Streams == 1 })
	pid := s.States()[0].PID
	tr.Stop()
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d: %v", pid, err)
	}
	if !strings.Contains(s.notes.String(), "plugin did not drain in time") {
		t.Error("nothing was said")
	}
}

// TestNothingLeaks: goroutines and descriptors come back after starts, crashes and
// upgrades.
func TestNothingLeaks(t *testing.T) {
	rounds := 4
	if os.Getenv("COMMUCAT_SOAK") != "" {
		rounds = 50
	}
	s := newStand(t, nil)
	round := func() {
		tr := s.serving(t, "x", map[string]any{"pump": true})
		for range 3 {
			must(t, echoes(tr.Addr().String()))
		}
		must(t, syscall.Kill(s.States()[0].PID, syscall.SIGKILL))
		must(t, echoes(tr.held()))
		must(t, tr.Upgrade(t.Context(), tr.Spec()))
		if err := tr.Upgrade(t.Context(), spec("x", map[string]any{"behave": 1})); sdk.KindOf(err) != sdk.Invalid {
			t.Error(err)
		}
		tr.Stop()
	}
	round()
	before, files := runtime.NumGoroutine(), descriptors(t)
	for range rounds {
		round()
	}
	eventually(t, "goroutines return", func() bool { return runtime.NumGoroutine() <= before })
	eventually(t, "descriptors return", func() bool { runtime.GC(); return descriptors(t) <= files })
}

func descriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(list)
}
