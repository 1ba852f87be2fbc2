package reality

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// clock is set by hand.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func idOf(n int) (id [sessionSize]byte) {
	binary.BigEndian.PutUint64(id[:], uint64(n)+1)
	return id
}

const testWindow = time.Minute

func openTestSeen(t *testing.T, folder string, limit int, c *clock) (*seen, bool) {
	t.Helper()
	s, doubt, err := openSeen(folder, testWindow, limit, c.now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.close() })
	return s, doubt == ""
}

func TestSeen(t *testing.T) {
	for _, folder := range []string{"", t.TempDir()} {
		c := &clock{time.Unix(1_800_000_000, 0)}
		s, _ := openTestSeen(t, folder, 1000, c)
		for i := range 100 {
			if f := s.add(idOf(i), c.t); f != fresh {
				t.Fatalf("%d: %d", i, f)
			}
		}
		// A hello may be made a window ahead and is good for two.
		for range 12 {
			for i := range 100 {
				if f := s.add(idOf(i), c.t); f != repeated {
					t.Fatalf("%d at %v: %d", i, c.t, f)
				}
			}
			c.t = c.t.Add(testWindow / 6)
		}
		c.t = c.t.Add(6 * testWindow)
		if f := s.add(idOf(1000), c.t); f != fresh {
			t.Fatal(f)
		}
		if n := s.len(); n != 1 {
			t.Errorf("%d are remembered long after, want the new one", n)
		}
	}
}

func TestSeenFull(t *testing.T) {
	c := &clock{time.Unix(1_800_000_000, 0)}
	s, _ := openTestSeen(t, t.TempDir(), 10, c)
	for i := range 10 {
		s.add(idOf(i), c.t)
	}
	if f := s.add(idOf(10), c.t); f != full {
		t.Errorf("eleventh of ten: %d", f)
	}
	if f := s.add(idOf(3), c.t); f != repeated {
		t.Errorf("an old one while full: %d", f)
	}
	c.t = c.t.Add(2 * testWindow)
	if f := s.add(idOf(10), c.t); f != fresh {
		t.Errorf("in the next span: %d", f)
	}
}

// TestSeenRestart: a killed process, a clean end, and a machine that went down.
func TestSeenRestart(t *testing.T) {
	for _, tc := range []struct {
		name            string
		clean, rebooted bool
		recovered       bool
	}{
		{"killed", false, false, true}, {"clean", true, false, true},
		{"clean and rebooted", true, true, true}, {"power cut", false, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			folder := t.TempDir()
			c := &clock{time.Unix(1_800_000_000, 0)}
			s, _ := openTestSeen(t, folder, 1000, c)
			for i := range 50 {
				s.add(idOf(i), c.t)
			}
			if tc.clean {
				if err := s.close(); err != nil {
					t.Fatal(err)
				}
			}
			if tc.rebooted {
				otherBoot(t, folder)
			}
			c.t = c.t.Add(10 * time.Second)
			again, recovered := openTestSeen(t, folder, 1000, c)
			if recovered != tc.recovered {
				t.Errorf("recovered %v", recovered)
			}
			made := c.t.Add(testWindow) // the latest that may have been captured
			for i := range 50 {
				if f := again.add(idOf(i), made); f == fresh {
					t.Fatalf("%d is new again", i)
				}
			}
			if f := again.add(idOf(99), made); (f == fresh) != tc.recovered {
				t.Errorf("a new one at once: %d", f)
			}
			c.t = made.Add(time.Second)
			if f := again.add(idOf(100), c.t); f != fresh {
				t.Errorf("a new one a window later: %d", f)
			}
		})
	}
}

// otherBoot makes the files look like those of before a reboot.
func otherBoot(t *testing.T, folder string) {
	t.Helper()
	writeBoot(t, folder, "another boot")
}

func writeBoot(t *testing.T, folder, boot string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(folder, seenPrefix+"*"))
	if err != nil || len(names) == 0 {
		t.Fatalf("%v %v", names, err)
	}
	for _, n := range names {
		f, err := os.OpenFile(n, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte(boot), int64(len(seenMagic))); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
}

// TestSeenDoubt: what is said of a record that is not trusted.
func TestSeenDoubt(t *testing.T) {
	for want, boot := range map[string]string{doubtDown: "another boot", doubtUnknown: strings.Repeat("\x00", seenHeader-len(seenMagic)), "": ""} {
		folder := t.TempDir()
		c := &clock{time.Unix(1_800_000_000, 0)}
		s, _ := openTestSeen(t, folder, 10, c)
		s.add(idOf(1), c.t)
		if boot != "" {
			writeBoot(t, folder, boot)
		}
		again, doubt, err := openSeen(folder, testWindow, 10, c.now)
		if err != nil || doubt != want {
			t.Errorf("%q %v, want %q", doubt, err, want)
		}
		_ = again.close()
	}
}

// TestPause: a pause is told as what it is, with its length, and is over by itself.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		told := make(chan error, 4)
		s := &server{
			settings: &settings{Config: Config{Window: time.Minute}}, log: slog.New(slog.NewJSONHandler(&log, nil)), now: time.Now,
			seen: &seen{notBefore: time.Now().Add(time.Minute)}, ctx: t.Context(),
		}
		s.health.tell = func(err error) { told <- err }
		s.pauseClients(doubtDown)
		if err := <-told; err == nil || !strings.Contains(err.Error(), doubtDown+": clients are let in from 00:01:00 UTC on") || !strings.Contains(log.String(), `"pause":"1m"`) {
			t.Errorf("told %v, log %s", err, &log)
		}
		began := time.Now()
		if err := <-told; err != nil || time.Since(began) != time.Minute {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

// TestSeenShared: what one process accepts the other has seen, as during an upgrade.
func TestSeenShared(t *testing.T) {
	folder := t.TempDir()
	c := &clock{time.Unix(1_800_000_000, 0)}
	a, _ := openTestSeen(t, folder, 1000, c)
	b, _ := openTestSeen(t, folder, 1000, c)
	for i := range 200 {
		one, other := a, b
		if i%2 == 1 {
			one, other = b, a
		}
		if f := one.add(idOf(i), c.t); f != fresh {
			t.Fatalf("%d: %d", i, f)
		}
		if f := other.add(idOf(i), c.t); f != repeated {
			t.Fatalf("%d at the other: %d", i, f)
		}
		c.t = c.t.Add(2 * time.Second) // over several generations
	}
}

// TestSeenClock: a clock that was wrong and is put right does not make an old hello
// new.
func TestSeenClock(t *testing.T) {
	c := &clock{time.Unix(1_800_000_000, 0)}
	s, _ := openTestSeen(t, t.TempDir(), 1000, c)
	s.add(idOf(1), c.t)
	right := c.t
	c.t = right.Add(3 * testWindow)
	s.add(idOf(2), c.t)
	c.t = right.Add(time.Second)
	if f := s.add(idOf(1), c.t); f != repeated {
		t.Errorf("after the clock was put back: %d", f)
	}
}

// TestSeenDamage: half an entry is no reason to trust the rest.
func TestSeenDamage(t *testing.T) {
	folder := t.TempDir()
	c := &clock{time.Unix(1_800_000_000, 0)}
	s, _ := openTestSeen(t, folder, 1000, c)
	s.add(idOf(1), c.t)
	s.add(idOf(2), c.t)
	names, _ := filepath.Glob(filepath.Join(folder, seenPrefix+"*"))
	info, err := os.Stat(names[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(names[0], info.Size()-5); err != nil {
		t.Fatal(err)
	}
	again, recovered := openTestSeen(t, folder, 1000, c)
	if recovered {
		t.Error("a cut file counts as whole")
	}
	if f := again.add(idOf(2), c.t); f != unsure {
		t.Errorf("the lost one: %d", f)
	}
	if err := os.WriteFile(names[0], []byte("something else entirely, and longer than the header of a record"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openSeen(folder, testWindow, 10, c.now); err == nil {
		t.Error("another file was taken for a record")
	}
}

func BenchmarkSeen(b *testing.B) {
	s, _, err := openSeen(b.TempDir(), testWindow, 1<<30, time.Now)
	if err != nil {
		b.Fatal(err)
	}
	defer s.close()
	for i := 0; b.Loop(); i++ {
		s.add(idOf(i), time.Now())
	}
}
