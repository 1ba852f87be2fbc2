package postgres_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/storage/postgres"
	"github.com/commucat/commucat/plugins/storage/postgres/pgserver"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/plugintest/proxy"
	"github.com/commucat/commucat/sdk/storage"
)

// TestAnswerOfCommitLost: the server has written the commit down, and its answer does not
// arrive. The batch is repeated, and its row is there once, at the place that is answered.
func TestAnswerOfCommitLost(t *testing.T) {
	t.Parallel()
	s := pgserver.Start(t)
	line := proxy.Start(t, net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)))
	st, err := storage.Open(t.Context(), postgres.Plugin(), nil, map[string]any{"address": []any{line.Address()}, "timeout": "30s"})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close(context.Background())
	next := uint64(1)
	for _, fault := range []struct {
		name string
		do   func()
	}{
		{"killed", func() {
			s.Kill()
			if err := st.Ready(t.Context()); !errors.Is(err, sdk.Unavailable) {
				t.Errorf("ready without a server: %v", err)
			}
			s.Run()
		}},
		{"cut", line.Cut},
	} {
		// A commit then waits, already written, for a standby that there is not.
		s.Set("synchronous_standby_names", "nobody")
		failed := make(chan error, 1)
		go func() {
			for ; ; next++ { // the server takes a moment to know
				if _, err := put(context.Background(), st, "q", next); err != nil {
					failed <- err
					return
				}
			}
		}()
		waitFor(t, "a commit waits", func() bool {
			return s.SQL("postgres", "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'commucat'") != "0"
		})
		fault.do()
		if err := <-failed; !errors.Is(err, sdk.Unavailable) {
			t.Errorf("%s: %v", fault.name, err)
		}
		s.Set("synchronous_standby_names", "")
		position := putAlways(t, st, "q", next)
		rows, err := st.Queues.Read(t.Context(), time.Now(), "q", 0, storage.Page{Messages: 1 << 20})
		if err != nil || uint64(len(rows)) != next || rows[next-1].Position != position {
			t.Fatalf("%s: %d rows of %d: %v", fault.name, len(rows), next, err)
		}
		for i, r := range rows {
			if string(r.Payload) != strconv.Itoa(i+1) {
				t.Errorf("%s: row %s in place %d", fault.name, r.Payload, i+1)
			}
		}
		if d, err := st.Queues.Depths(t.Context(), []string{"q"}); err != nil || d[0].Messages != next {
			t.Errorf("%s: depth %v %v, want %d", fault.name, d, err, next)
		}
		waitFor(t, "it is ready again", func() bool { return st.Ready(t.Context()) == nil })
		next++
	}
}

// TestCloseWhileServerHangs: closing does not wait for a server that says nothing, and ends
// the calls that do.
func TestCloseWhileServerHangs(t *testing.T) {
	t.Parallel()
	s := pgserver.Start(t)
	st, err := storage.Open(t.Context(), postgres.Plugin(), nil, map[string]any{"address": []any{s.Address()}, "timeout": "5m"})
	if err != nil {
		t.Fatal(err)
	}
	putAlways(t, st, "q", 1)
	thaw := s.Freeze()
	defer thaw()
	began := make(chan struct{})
	hanging := make(chan error, 1)
	go func() {
		close(began)
		_, err := st.Queues.Read(context.Background(), time.Now(), "q", 0, storage.Page{})
		hanging <- err
	}()
	<-began
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := st.Ready(ctx); !errors.Is(err, sdk.Unavailable) {
		t.Errorf("ready: %v", err)
	}
	if err := st.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-hanging; !errors.Is(err, sdk.Unavailable) && !errors.Is(err, storage.ErrClosed) {
		t.Errorf("the call under way: %v", err)
	}
}
