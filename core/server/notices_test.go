package server

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/account/accounttest"
	"github.com/commucat/commucat/core/relay"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/storage"
)

// queues takes messages and counts them, unless it is away.
type queues struct {
	mu   sync.Mutex
	away bool
	rows map[string]int
}

func (q *queues) Append(_ context.Context, _ time.Time, b storage.Batch) ([]storage.Appended, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.away {
		return nil, &sdk.Error{Kind: sdk.Unavailable, Op: "append"}
	}
	out := make([]storage.Appended, len(b.Rows))
	for i, r := range b.Rows {
		q.rows[r.Queue]++
		out[i].Position = uint64(q.rows[r.Queue])
	}
	return out, nil
}

func (q *queues) count(queue string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.rows[queue]
}

func (q *queues) set(away bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.away = away
}

func (q *queues) Read(context.Context, time.Time, string, uint64, storage.Page) ([]storage.Envelope, error) {
	return nil, nil
}
func (q *queues) Done(context.Context, []storage.Done) error { return nil }
func (q *queues) Depths(_ context.Context, names []string) ([]storage.Depth, error) {
	return make([]storage.Depth, len(names)), nil
}
func (q *queues) Marks(_ context.Context, keys []string) ([][]byte, error) {
	return make([][]byte, len(keys)), nil
}
func (q *queues) Drop(context.Context, string) (uint64, error)       { return 0, nil }
func (q *queues) Purge(context.Context, time.Time, int) (int, error) { return 0, nil }

// telling is as much of a Server as telling devices of their account needs.
func telling(t *testing.T, q *queues, dir *accounttest.Directory) (s *Server, stop func()) {
	t.Helper()
	ca, err := identity.NewCA(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	s = &Server{log: slog.New(slog.DiscardHandler)}
	s.accounts = account.New(dir, account.Options{Domain: "relay.example", CA: func() identity.CA { return ca }, Registration: account.Open})
	s.accounts.OnChange(s.tellSoon)
	s.hub, err = relay.New(relay.Options{Store: storage.Store{Queues: q, Directory: dir}, Accounts: directory{s.accounts}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.hub.Run(ctx) }()
	return s, func() { s.telling.Wait(); cancel(); <-ended }
}

// TestNoticesOutliveTheRelay: what an account's devices are told of a new one is told once,
// at once or by the relay that runs next.
func TestNoticesOutliveTheRelay(t *testing.T) {
	for name, away := range map[string]bool{"told at once": false, "storage was away": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, dir := &queues{rows: map[string]int{}}, &accounttest.Directory{}
				s, stop := telling(t, q, dir)
				g, err := s.accounts.Establish(t.Context(), account.Request{Device: "dev-a", Public: publicKey(t), User: account.Hint{Handle: "alice"}})
				if err != nil {
					t.Fatal(err)
				}
				for i, id := range []string{"dev-b", "dev-c"} {
					code := []byte{byte(i), 15: 0}
					if err := s.accounts.CreatePair(t.Context(), g.User.ID, "dev-a", account.PairID(code), time.Minute); err != nil {
						t.Fatal(err)
					}
					q.set(away && id == "dev-c")
					if _, err := s.accounts.Establish(t.Context(), account.Request{Device: id, Public: publicKey(t), Pair: code}); err != nil {
						t.Fatal(err)
					}
					s.telling.Wait()
				}
				stop()
				if n := dir.Count("owed-notice"); n != 0 == !away {
					t.Fatalf("%d notices owed", n)
				}
				q.set(false)
				s, stop = telling(t, q, dir)
				defer stop()
				time.Sleep(2 * time.Minute)
				s.tellOwed(t.Context())
				s.tellOwed(t.Context())
				if a, b, c := q.count("dev-a"), q.count("dev-b"), q.count("dev-c"); a != 2 || b != 1 || c != 0 {
					t.Errorf("the devices were told %d, %d and %d times, want 2, 1, 0", a, b, c)
				}
				if n := dir.Count("owed-notice"); n != 0 {
					t.Errorf("%d notices still owed", n)
				}
			})
		})
	}
}

func publicKey(t *testing.T) [32]byte {
	t.Helper()
	d, err := identity.GenerateDevice(nil)
	if err != nil {
		t.Fatal(err)
	}
	return d.Public()
}
