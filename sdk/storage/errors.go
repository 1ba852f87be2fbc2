package storage

import (
	"fmt"

	"github.com/commucat/commucat/sdk"
)

// Error is the error of this kind of plugin; its Kind says what the caller can do:
//
//	sdk.Invalid      the input is wrong and will stay wrong
//	sdk.NotFound     what was named does not exist
//	sdk.Conflict     the state is not the expected one (see ConflictError)
//	sdk.Full         a queue's quota is used up
//	sdk.Unavailable  nothing is known of the call; repeat it later
//	sdk.Corrupt      stored data contradicts itself
//	sdk.Closed       the store has been closed
//	sdk.Other        everything else
//
// errors.Is(err, sdk.Unavailable) asks for a kind.
type Error = sdk.Error

// ErrFull answers an Append that would exceed its queue's quota.
var ErrFull error = &Error{Kind: sdk.Full, Text: "the queue is full"}

// ErrClosed answers calls after Close.
var ErrClosed error = &Error{Kind: sdk.Closed, Text: "the store is closed"}

// ConflictError names the first write of a Commit whose condition failed. Its kind
// is sdk.Conflict.
type ConflictError struct {
	Key
	// Index is the write's place in the Commit.
	Index int
	// Version is what the record has; 0 means that it is absent.
	Version uint64
}

// Error names the kind of the record, not its id: ids may be secrets' hashes.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("conflict: %s record has version %d", e.Kind, e.Version)
}

// Unwrap gives the kind.
func (e *ConflictError) Unwrap() error { return sdk.Conflict }
