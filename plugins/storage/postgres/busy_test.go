package postgres

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/commucat/commucat/plugins/storage/postgres/pgserver"
	"github.com/commucat/commucat/sdk"
)

// TestBusyIsNotBroken: while all connections of the readers are taken a probe and a write
// end with their time, and the lanes keep their connections. A server that falls silent on
// one that a call has costs all of them.
func TestBusyIsNotBroken(t *testing.T) {
	server := pgserver.Start(t)
	s := &store{lines: timelines{schema: "public"}, life: t.Context()}
	c := Config{
		Address: []string{"127.0.0.1:" + strconv.Itoa(server.Port)}, Database: "commucat", User: "commucat",
		Schema: "public", Timeout: 30 * time.Second, TLS: "off",
	}
	for _, pool := range []**pgxpool.Pool{&s.appends, &s.pool} {
		var err error
		if *pool, err = s.connections(t.Context(), &c, 2); err != nil {
			t.Fatal(err)
		}
		defer (*pool).Close()
	}
	take := func(pool *pgxpool.Pool) (all [2]*pgxpool.Conn) {
		t.Helper()
		for i := range all {
			var err error
			if all[i], err = pool.Acquire(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		return all
	}
	// lanes are the lanes' connections, which are idle afterwards.
	lanes := func() map[*pgx.Conn]bool {
		t.Helper()
		all := map[*pgx.Conn]bool{}
		for _, c := range take(s.appends) {
			all[c.Conn()] = true
			c.Release()
		}
		return all
	}
	before := lanes()
	kept := func() (n int) {
		t.Helper()
		for c := range lanes() {
			if before[c] && !c.IsClosed() {
				n++
			}
		}
		return n
	}
	ending := func(call func(ctx context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it ended with %v", err)
		}
	}
	readers := take(s.pool)
	ending(func(ctx context.Context) error {
		err := s.ready(ctx)
		if !errors.Is(err, sdk.Unavailable) {
			t.Errorf("ready: %v", err)
		}
		return err
	})
	ending(func(ctx context.Context) error {
		return s.write(ctx, s.pool, func(pgx.Tx, int64) error { t.Error("it has a connection"); return nil })
	})
	if n := kept(); n != 2 {
		t.Errorf("the lanes have %d of their 2 connections", n)
	}
	for _, c := range readers {
		c.Release()
	}
	// The same with a connection.
	thaw := server.Freeze()
	ending(func(ctx context.Context) error {
		return s.write(ctx, s.appends, func(pgx.Tx, int64) error { t.Error("it has an answer"); return nil })
	})
	thaw()
	if n := kept(); n != 0 {
		t.Errorf("the lanes still have %d connections", n)
	}
}
