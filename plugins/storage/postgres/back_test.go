package postgres

import (
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/commucat/commucat/plugins/storage/postgres/pgserver"
)

// TestBackToFormerServer: a store that was open while another server, whose positions are
// ahead of the clock, took this one's place goes on above those when it comes back to this
// one, which was restarted and knows of nothing.
func TestBackToFormerServer(t *testing.T) {
	server := pgserver.Start(t)
	c := Config{
		Address: []string{"127.0.0.1:" + strconv.Itoa(server.Port)}, Database: "commucat", User: "commucat",
		Schema: "commucat", Timeout: 30 * time.Second, TLS: "off",
	}
	start := func() *store {
		s := &store{lines: timelines{schema: c.Schema}, life: t.Context(), timeout: c.Timeout}
		for _, pool := range []**pgxpool.Pool{&s.appends, &s.pool} {
			var err error
			if *pool, err = s.connections(t.Context(), &c, 2); err != nil {
				t.Fatal(err)
			}
			t.Cleanup((*pool).Close)
		}
		if err := s.prepare(t.Context(), c.Schema, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		return s
	}
	write := func(s *store) (floor int64) {
		t.Helper()
		if err := s.write(t.Context(), s.appends, func(_ pgx.Tx, f int64) error { floor = f; return nil }); err != nil {
			t.Fatal(err)
		}
		return floor
	}
	restarted := func() {
		server.SQL("commucat", "UPDATE commucat.timeline SET line = split_part(line, ' ', 1) || ' before' WHERE line NOT LIKE '% before'")
	}
	s := start()
	first := write(s)
	restarted()
	s.lines.forget()
	if second := write(s); second <= first || second > time.Now().Add(clockSkew/2).UnixMicro() {
		t.Errorf("a restart: floor %d after %d", second, first)
	}
	other := time.Now().Add(clockSkew).UnixMicro()
	s.lines.forget()
	s.lines.learn(timeline{system: "another"}, other)
	server.SQL("commucat", "DELETE FROM commucat.timeline WHERE line NOT LIKE '% before'")
	back := write(s)
	if back < other+clockSkew.Microseconds() {
		t.Errorf("back again: floor %d, the other server's was %d", back, other)
	}
	if again := write(s); again != back {
		t.Errorf("the floor became %d after %d", again, back)
	}
	if later := write(start()); later != back {
		t.Errorf("a store that was opened later: floor %d, not %d", later, back)
	}
}
