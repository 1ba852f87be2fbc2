package postgres

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/commucat/commucat/sdk/storage"
)

// TestDoubtUntilWritten: after a write that failed the store is asked to write before it
// counts as ready, until something was written.
func TestDoubtUntilWritten(t *testing.T) {
	s := &store{}
	c := Config{Address: []string{"127.0.0.1:1"}, Timeout: time.Second}
	for _, pool := range []**pgxpool.Pool{&s.appends, &s.pool} {
		var err error
		if *pool, err = s.connections(t.Context(), &c, 1); err != nil {
			t.Fatal(err)
		}
		defer (*pool).Close()
	}
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
		if err := s.written(true, step.err); err != step.err {
			t.Errorf("step %d: %v became %v", i, step.err, err)
		}
		if s.doubt.Load() != step.doubt {
			t.Errorf("step %d, after %v: doubt is %t", i, step.err, !step.doubt)
		}
	}
}
