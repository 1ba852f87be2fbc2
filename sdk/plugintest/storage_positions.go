package plugintest

import (
	"testing"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

var positionCases = map[string]func(T, *storageKit){
	"highest": positionsHighest,
	"raise":   positionsRaise,
}

func highest(t testing.TB, s storage.Store) uint64 {
	t.Helper()
	n, err := s.Positions.Highest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// positionsHighest: it covers queues that are empty by now, and other lives of the store.
func positionsHighest(t T, k *storageKit) {
	s, dir := k.fresh(t)
	at := put(t, s, messages("q", 0, 3)...)
	if n := highest(t, s); n < at[2] {
		t.Errorf("%d is below %d", n, at[2])
	}
	if err := s.Queues.Done(t.Context(), []storage.Done{{Queue: "q", Cursor: at[2]}}); err != nil {
		t.Fatal(err)
	}
	if n := highest(t, s); n < at[2] {
		t.Errorf("of an empty queue: %d is below %d", n, at[2])
	}
	s = k.again(t, s, dir)
	if n := highest(t, s); n < at[2] {
		t.Errorf("opened again: %d is below %d", n, at[2])
	}
}

// positionsRaise: queues that are there and new ones go on above, after opening again too,
// and nothing is ever lowered.
func positionsRaise(t T, k *storageKit) {
	s, dir := k.fresh(t)
	at := put(t, s, messages("old", 0, 3)...)
	above := at[2] + 7_200_000_000 // two hours in µs
	if err := s.Positions.Raise(t.Context(), above); err != nil {
		t.Fatal(err)
	}
	if err := s.Positions.Raise(t.Context(), at[0]); err != nil {
		t.Fatal(err)
	}
	if err := s.Positions.Raise(t.Context(), storage.MaxPosition+1); sdk.KindOf(err) != sdk.Invalid {
		t.Errorf("above everything: %v", err)
	}
	if n := highest(t, s); n < above {
		t.Errorf("the highest is %d, below %d", n, above)
	}
	last := above
	for life := range 2 {
		for _, queue := range []string{"old", "new"} {
			got := put(t, s, messages(queue, 10*(life+1), 2)...)
			if got[0] <= above || got[1] <= got[0] {
				t.Errorf("%s, life %d: positions %d, want them above %d", queue, life, got, above)
			}
			last = max(last, got[1])
		}
		rows, err := s.Queues.Read(t.Context(), epoch, "old", 0, storage.Page{})
		if err != nil || len(rows) != 3+2*(life+1) {
			t.Errorf("life %d: %d rows, %v", life, len(rows), err)
		}
		if n := highest(t, s); n < last {
			t.Errorf("life %d: the highest is %d, below %d", life, n, last)
		}
		s = k.again(t, s, dir)
	}
}
