package transfer

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/storage"
)

// empty is a store without rows that has given positions.
type empty struct {
	storage.Inventory
	given uint64
}

func (*empty) Queues(context.Context, string, int) ([]string, error) { return nil, nil }

func (e *empty) Highest(context.Context) (uint64, error) { return e.given, nil }

func (e *empty) Raise(_ context.Context, above uint64) error {
	e.given = max(e.given, above)
	return nil
}

// TestAheadOfAnotherClock: a target goes on above what the source gave, also where that is
// past by the clock of the machine that copies: the target may go by a clock that is behind.
func TestAheadOfAnotherClock(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, given := range []time.Duration{-time.Hour, time.Hour} {
		from, to := &empty{given: uint64(now.Add(given).UnixMicro())}, new(empty)
		c := &target{Options: &Options{
			From: Side{Name: "from", Store: storage.Store{Inventory: from, Positions: from}}, To: Side{Name: "to", Store: storage.Store{Positions: to}},
			Now: now, Progress: new(Progress),
		}}
		if err := c.ahead(t.Context()); err != nil || to.given != from.given {
			t.Errorf("positions up to %d, want %d: %v", to.given, from.given, err)
		}
	}
}

// TestSameAfterInterruption: a target that differs after a copy that was taken up says what
// may have changed it.
func TestSameAfterInterruption(t *testing.T) {
	for _, got := range []Report{{Counts: Counts{Records: 1}}, {Digest: [32]byte{1}}} {
		for _, resumed := range []bool{false, true} {
			err := same("there", got, Report{Resumed: resumed})
			if err == nil || strings.Contains(err.Error(), "has used the source in between") != resumed || !strings.HasSuffix(err.Error(), "begin with an empty storage") {
				t.Errorf("resumed %v: %v", resumed, err)
			}
		}
	}
}
