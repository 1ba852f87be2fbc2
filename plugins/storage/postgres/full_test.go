package postgres

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/commucat/commucat/sdk/storage"
)

// TestDoubtUntilWritten: after a write that failed the store is asked to write before it
// counts as ready, until something was written.
func TestDoubtUntilWritten(t *testing.T) {
	s := &store{}
	for i, step := range []struct {
		err   error
		doubt bool
	}{
		{nil, false},
		{context.Canceled, false},
		{&storage.ConflictError{}, false},
		{&pgconn.PgError{Code: "53100"}, true},
		{context.Canceled, true},
		{&storage.ConflictError{}, true},
		{nil, false},
		{context.DeadlineExceeded, true},
		{nil, false},
		{errUnsure, true},
	} {
		if err := s.written(step.err); err != step.err {
			t.Errorf("step %d: %v became %v", i, step.err, err)
		}
		if s.doubt.Load() != step.doubt {
			t.Errorf("step %d, after %v: doubt is %t", i, step.err, !step.doubt)
		}
	}
}
