package transport

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/sdk"
)

type secretOf struct {
	Key int `json:"key"`
}

// drawer draws 1, 2, 3 …
func drawer() func() (secretOf, error) {
	var mu sync.Mutex
	n := 0
	return func() (secretOf, error) {
		mu.Lock()
		defer mu.Unlock()
		n++
		return secretOf{n}, nil
	}
}

func moment(t *testing.T, text string) (m Moment) {
	t.Helper()
	if err := m.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestLots: drawn once, anew when asked, and the former good until the overlap ends.
func TestLots(t *testing.T) {
	folder, draw := t.TempDir(), drawer()
	day := func(n int) time.Time { return time.Date(2026, 3, n, 12, 0, 0, 0, time.UTC) }
	at := func(n int) Moment { return Moment{day(n)} }
	const week = 7 * 24 * time.Hour
	for _, step := range []struct {
		name string
		r    Rotation
		now  time.Time
		want string
	}{
		{"the first", Rotation{Overlap: week}, day(1), "1"},
		{"the same again", Rotation{Overlap: week}, day(2), "1"},
		{"rotated", Rotation{at(2), week}, day(2), "2 1<9"},
		{"a restart", Rotation{at(2), week}, day(3), "2 1<9"},
		{"the key is gone from the table", Rotation{Overlap: week}, day(3), "2 1<9"},
		{"rotated again", Rotation{at(4), week}, day(4), "3 2<11 1<9"},
		{"a longer overlap", Rotation{at(4), 2 * week}, day(5), "3 2<18 1<16"},
		{"the first is over", Rotation{at(4), week}, day(9), "3 2<11"},
		{"it is gone for good", Rotation{at(4), 2 * week}, day(9), "3 2<18"},
		{"an older rotation asks for nothing", Rotation{at(3), week}, day(9), "3 2<11"},
		{"ended", Rotation{at(4), 0}, day(9), "3"},
		{"and gone", Rotation{at(4), week}, day(10), "3"},
	} {
		lots, err := Lots(folder, "drawn", step.r, step.now, draw)
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		got := ""
		for _, l := range lots {
			if got += fmt.Sprint(" ", l.Value.Key); !l.Until.IsZero() {
				got += fmt.Sprint("<", l.Until.Day())
			}
		}
		if d := cmp.Diff(step.want, got[1:]); d != "" {
			t.Errorf("%s: %s", step.name, d)
		}
	}
	names, _ := filepath.Glob(filepath.Join(folder, "*"))
	if len(names) != 1 || filepath.Base(names[0]) != "drawn-20260304T120000Z.json" {
		t.Errorf("files %v", names)
	}
	if info, err := os.Stat(names[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	var mistake *sdk.ConfigError
	if _, err := Lots(folder, "drawn", Rotation{At: at(20)}, day(10), draw); !errors.As(err, &mistake) || mistake.Key != KeyRotated {
		t.Errorf("in the future: %v", err)
	}
	if err := os.WriteFile(names[0], []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Lots(folder, "drawn", Rotation{}, day(10), draw); sdk.KindOf(err) != sdk.Corrupt {
		t.Errorf("damaged: %v", err)
	}
}

// TestLotsBounded: however often is rotated, few former lots stay.
func TestLotsBounded(t *testing.T) {
	folder, draw := t.TempDir(), drawer()
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for range 9 {
		now = now.Add(time.Hour)
		lots, err := Lots(folder, "drawn", Rotation{Moment{now}, 30 * 24 * time.Hour}, now, draw)
		if err != nil || len(lots) > 1+maxFormer {
			t.Fatalf("%d lots, %v", len(lots), err)
		}
	}
	if names, _ := filepath.Glob(filepath.Join(folder, "*")); len(names) != 1+maxFormer {
		t.Errorf("files %v", names)
	}
}

// TestLotsTogether: processes that rotate at once agree.
func TestLotsTogether(t *testing.T) {
	folder, draw := t.TempDir(), drawer()
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for _, r := range []Rotation{{}, {Moment{now}, time.Hour}} {
		got := make([]int, 8)
		var wg sync.WaitGroup
		for i := range got {
			wg.Go(func() {
				lots, err := Lots(folder, "drawn", r, now, draw)
				if err != nil {
					t.Error(err)
					return
				}
				got[i] = lots[0].Value.Key
			})
		}
		wg.Wait()
		for _, k := range got {
			if k != got[0] {
				t.Fatalf("drawn %v", got)
			}
		}
	}
}

func TestMoment(t *testing.T) {
	for _, text := range []string{"", "2026-03-01T12:00:00Z"} {
		m := moment(t, text)
		if b, err := m.MarshalText(); err != nil || string(b) != text {
			t.Errorf("%q, %v", b, err)
		}
	}
	if m := moment(t, "2026-03-01T13:00:00.5+01:00"); !m.Equal(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)) {
		t.Error(m)
	}
	var m Moment
	if m.UnmarshalText([]byte("yesterday")) == nil || m.UnmarshalText([]byte("1900-01-01T00:00:00Z")) == nil {
		t.Error("taken")
	}
}
