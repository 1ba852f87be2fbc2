package transport

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/commucat/commucat/sdk"
)

// Keys of the table of a transport that draws keys for itself. Where a table has both,
// 'commucat transport rotate' has new ones drawn by writing KeyRotated, and says by
// KeyOverlap how long the former ones stay good.
const (
	KeyRotated = "rotated" // a Moment
	KeyOverlap = "overlap" // a duration; 0 ends what is former at once
)

// Moment is a time in a table: RFC 3339 in whole seconds, zero where it is not set.
type Moment struct{ time.Time }

// UnmarshalText implements encoding.TextUnmarshaler; "" is not set.
func (m *Moment) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		m.Time = time.Time{}
		return nil
	}
	t, err := time.Parse(time.RFC3339, string(b))
	if err != nil || t.Unix() <= 0 {
		return fmt.Errorf("%q is not a time such as \"2026-01-02T15:04:05Z\"", b)
	}
	m.Time = t.UTC().Truncate(time.Second)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (m Moment) MarshalText() ([]byte, error) {
	if m.IsZero() {
		return nil, nil
	}
	return []byte(m.UTC().Format(time.RFC3339)), nil
}

// ConfigType names the type in reference pages.
func (Moment) ConfigType() string { return "time" }

// Rotation is what a table says of what is drawn.
type Rotation struct {
	At      Moment
	Overlap time.Duration
}

// Lot is one drawing.
type Lot[T any] struct {
	Value T
	// Until is when it stops being good; zero for the present one.
	Until time.Time
}

// Over reports whether the lot has stopped being good.
func (l Lot[T]) Over(now time.Time) bool { return !l.Until.IsZero() && !now.Before(l.Until) }

// maxFormer is how many former lots stay good at most.
const maxFormer = 3

// ahead is how far a rotation may lie in the future: clocks differ.
const ahead = 5 * time.Minute

// Lots gives what a transport has drawn, as JSON files called after name in folder
// (Env.State), which only their owner reads: the present lot first, then former ones that
// are still good, newest first, 3 at most. It draws where nothing was drawn before, and
// anew where r asks for it; what has stopped being good is removed. Several processes may
// call it at once: all get what the first one drew, so that a process that begins beside
// another has the same.
//
// The error has kind Corrupt for a file that does not hold a T, and is an
// *sdk.ConfigError for a rotation in the future.
func Lots[T any](folder, name string, r Rotation, now time.Time, draw func() (T, error)) ([]Lot[T], error) {
	if r.At.After(now.Add(ahead)) {
		return nil, &sdk.ConfigError{Key: KeyRotated, Text: "lies in the future: set this machine's clock right, or remove the key"}
	}
	drawn, err := drawings(folder, name)
	if err != nil {
		return nil, err
	}
	if len(drawn) == 0 || drawn[0].at.Before(r.At.Time) {
		d := drawing{at: r.At.Time, path: drawingPath(folder, name, r.At)}
		if err := d.draw(func() (any, error) { return draw() }); err != nil {
			return nil, err
		}
		drawn = slices.Insert(drawn, 0, d)
	}
	var out []Lot[T]
	for i, d := range drawn {
		var lot Lot[T]
		if i > 0 {
			lot.Until = drawn[i-1].at.Add(r.Overlap)
		}
		if lot.Over(now) || i > maxFormer {
			if err := os.Remove(d.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			continue
		}
		b, err := os.ReadFile(d.path)
		if i > 0 && errors.Is(err, fs.ErrNotExist) {
			continue // over for another process
		}
		if err != nil {
			return nil, err
		}
		if json.Unmarshal(b, &lot.Value) != nil {
			return nil, &sdk.Error{Kind: sdk.Corrupt, Op: d.path, Text: "it holds no drawn keys; restore it from a backup, or remove it and make all links anew"}
		}
		out = append(out, lot)
	}
	return out, nil
}

// drawing is a file with a lot; at is zero for the first one of a folder.
type drawing struct {
	at   time.Time
	path string
}

// inName is how a moment stands in a file's name.
const inName = "20060102T150405Z"

func drawingPath(folder, name string, at Moment) string {
	if at.IsZero() {
		return filepath.Join(folder, name+".json")
	}
	return filepath.Join(folder, name+"-"+at.UTC().Format(inName)+".json")
}

// drawings are those of a folder, the newest first.
func drawings(folder, name string) ([]drawing, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var out []drawing
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), name)
		rest, isJSON := strings.CutSuffix(rest, ".json")
		if !ok || !isJSON {
			continue
		}
		d := drawing{path: filepath.Join(folder, e.Name())}
		if rest != "" {
			if d.at, err = time.Parse("-"+inName, rest); err != nil {
				continue // not one of ours
			}
		}
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b drawing) int { return b.at.Compare(a.at) })
	return out, nil
}

// draw makes the file, unless another was first.
func (d drawing) draw(draw func() (any, error)) error {
	v, err := draw()
	if err != nil {
		return err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	folder := filepath.Dir(d.path)
	f, err := os.CreateTemp(folder, ".drawn-*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		if err = os.Link(f.Name(), d.path); errors.Is(err, fs.ErrExist) {
			err = nil
		}
	}
	if err = errors.Join(err, os.Remove(f.Name())); err != nil {
		return err
	}
	dir, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
