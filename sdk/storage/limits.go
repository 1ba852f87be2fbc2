package storage

import (
	"fmt"

	"github.com/commucat/commucat/sdk"
)

// Limits of the contract. A backend accepts everything within them and refuses
// the rest with kind sdk.Invalid.
const (
	MaxQueue   = 255           // bytes of a queue's name
	MaxPayload = 16<<20 + 4096 // bytes of a row
	MaxMarkKey = 255           // bytes
	MaxMark    = 16 << 10      // bytes of a mark's value
	MaxKind    = 32            // bytes of a record's kind
	MaxID      = 512           // bytes of a record's id
	MaxValue   = 1 << 20       // bytes of a record's value
	MaxWrites  = 4096          // writes of one Commit
	MaxState   = 64            // bytes of a presence state
	MaxProfile = 4 << 10       // bytes of a presence profile
)

func invalid(format string, args ...any) error {
	return &Error{Kind: sdk.Invalid, Text: fmt.Sprintf(format, args...)}
}

// CheckQueue checks a queue's name: 1 to MaxQueue bytes of any value.
func CheckQueue(queue string) error {
	if len(queue) == 0 || len(queue) > MaxQueue {
		return invalid("queue name of %d bytes, want 1 to %d", len(queue), MaxQueue)
	}
	return nil
}

// Check checks one row against the limits.
func (a *Append) Check() error {
	if err := CheckQueue(a.Queue); err != nil {
		return err
	}
	if len(a.Payload) > MaxPayload {
		return invalid("payload of %d bytes, want at most %d", len(a.Payload), MaxPayload)
	}
	if a.Expires.IsZero() {
		return invalid("row without an expiry")
	}
	return nil
}

// Check checks one mark against the limits.
func (m *Mark) Check() error {
	if len(m.Key) == 0 || len(m.Key) > MaxMarkKey {
		return invalid("mark key of %d bytes, want 1 to %d", len(m.Key), MaxMarkKey)
	}
	if len(m.Value) > MaxMark {
		return invalid("mark of %d bytes, want at most %d", len(m.Value), MaxMark)
	}
	return nil
}

// Check checks a queue's name and the order within each range.
func (d *Done) Check() error {
	if err := CheckQueue(d.Queue); err != nil {
		return err
	}
	for _, r := range d.Ranges {
		if r[0] > r[1] {
			return invalid("range from %d to %d", r[0], r[1])
		}
	}
	return nil
}

// CheckKind checks a record's kind: 1 to MaxKind of a-z 0-9 . -
func CheckKind(kind string) error {
	if len(kind) == 0 || len(kind) > MaxKind {
		return invalid("kind of %d bytes, want 1 to %d", len(kind), MaxKind)
	}
	for i := range len(kind) {
		c := kind[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' {
			return invalid("kind %q has a byte outside a-z 0-9 . -", kind)
		}
	}
	return nil
}

// Check checks a record's name.
func (k Key) Check() error {
	if err := CheckKind(k.Kind); err != nil {
		return err
	}
	if len(k.ID) == 0 || len(k.ID) > MaxID {
		return invalid("%s id of %d bytes, want 1 to %d", k.Kind, len(k.ID), MaxID)
	}
	return nil
}

// Check checks a range: the kind, and lengths of Prefix and After.
func (r Range) Check() error {
	if err := CheckKind(r.Kind); err != nil {
		return err
	}
	if len(r.Prefix) > MaxID || len(r.After) > MaxID {
		return invalid("%s range of more than %d bytes", r.Kind, MaxID)
	}
	if r.Limit <= 0 {
		return invalid("%s range with limit %d", r.Kind, r.Limit)
	}
	return nil
}

// CheckPage checks the arguments of Inventory's methods.
func CheckPage(after string, limit int) error {
	if len(after) > MaxQueue {
		return invalid("a name of %d bytes, want at most %d", len(after), MaxQueue)
	}
	if limit <= 0 {
		return invalid("a page with limit %d", limit)
	}
	return nil
}

// CheckWrites checks a Commit: sizes, and that no key is written twice.
func CheckWrites(w []Write) error {
	if len(w) > MaxWrites {
		return invalid("%d writes, want at most %d", len(w), MaxWrites)
	}
	for i := range w {
		if err := w[i].Key.Check(); err != nil {
			return err
		}
		if len(w[i].Value) > MaxValue {
			return invalid("%s value of %d bytes, want at most %d", w[i].Kind, len(w[i].Value), MaxValue)
		}
	}
	return checkTwice(w)
}

func checkTwice(w []Write) error {
	if len(w) <= 8 {
		for i := range w {
			for j := range i {
				if w[i].Key == w[j].Key {
					return invalid("two writes of one %s record", w[i].Kind)
				}
			}
		}
		return nil
	}
	seen := make(map[Key]struct{}, len(w))
	for i := range w {
		if _, ok := seen[w[i].Key]; ok {
			return invalid("two writes of one %s record", w[i].Kind)
		}
		seen[w[i].Key] = struct{}{}
	}
	return nil
}

// CheckBeat checks a presence beat.
func CheckBeat(b *Beat) error {
	if len(b.State) > MaxState {
		return invalid("presence state of %d bytes, want at most %d", len(b.State), MaxState)
	}
	if len(b.User) > MaxProfile {
		return invalid("presence profile of %d bytes, want at most %d", len(b.User), MaxProfile)
	}
	return nil
}

// MaxSnapshot is the longest name of a snapshot in bytes.
const MaxSnapshot = 64

// CheckSnapshot checks the name of a snapshot's folder: letters, digits and hyphens.
func CheckSnapshot(name string) error {
	if name == "" || len(name) > MaxSnapshot {
		return invalid("the name of a snapshot has 1 to 64 bytes")
	}
	for _, c := range []byte(name) {
		if c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return invalid("the name of a snapshot has letters, digits and hyphens alone")
		}
	}
	return nil
}

// CheckRaise checks what Positions.Raise is asked for.
func CheckRaise(above uint64) error {
	if above > MaxPosition {
		return invalid("positions above %d, want at most %d", above, uint64(MaxPosition))
	}
	return nil
}
