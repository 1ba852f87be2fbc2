package tiles

import (
	"fmt"

	"github.com/commucat/commucat/sdk"
)

func corrupt(format string, args ...any) error {
	return failure(sdk.Corrupt, fmt.Sprintf(format, args...), nil)
}

// DamageError names the first place of a log that cannot be believed. Its kind is
// Corrupt.
type DamageError struct {
	// File is the damaged file, relative to the log's folder.
	File string
	// Record is the number, from 0, of the first record that cannot be believed;
	// -1 where the damage is in a hash above the records.
	Record int64
	Text   string
}

// Error names file and record. Records are counted from 1, as everywhere else in
// an audit chain.
func (e *DamageError) Error() string {
	if e.Record < 0 {
		return fmt.Sprintf("%s: %s", e.File, e.Text)
	}
	return fmt.Sprintf("%s: record %d %s", e.File, e.Record+1, e.Text)
}

// Unwrap gives the kind.
func (e *DamageError) Unwrap() error { return sdk.Corrupt }
