package postgres

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestFullUntilWritten: a disk that was full counts as full until something was written.
func TestFullUntilWritten(t *testing.T) {
	s := &store{}
	for i, step := range []struct {
		err  error
		full bool
	}{
		{nil, false},
		{context.DeadlineExceeded, false},
		{&pgconn.PgError{Code: diskFull}, true},
		{context.DeadlineExceeded, true},
		{&pgconn.PgError{Code: "57P01"}, true},
		{errUndo, false},
		{&pgconn.PgError{Code: diskFull}, true},
		{nil, false},
	} {
		if err := s.written(step.err); err != step.err {
			t.Errorf("step %d: %v became %v", i, step.err, err)
		}
		if s.full.Load() != step.full {
			t.Errorf("step %d, after %v: full is %t", i, step.err, !step.full)
		}
	}
}
