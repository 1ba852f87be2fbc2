package api

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestSnapshotAfterAnother: one that has ended is removed before there is another, which
// waits for that; one that goes on is not waited for.
func TestSnapshotAfterAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h held
		removed := false
		if !h.begin(t.Context()) {
			t.Fatal("the first was refused")
		}
		h.set(&Held{Snapshot: Snapshot{ID: "first"}, End: func() { time.Sleep(time.Minute); removed = true }})
		if h.begin(t.Context()) {
			t.Error("there were two")
		}
		go h.end()
		synctest.Wait()
		if h.get("first") != nil {
			t.Error("one that is being removed can still be released")
		}
		if !h.begin(t.Context()) || !removed {
			t.Errorf("the next one; the first was removed: %v", removed)
		}
		h.set(nil)
		if !h.begin(t.Context()) {
			t.Error("after one that was not made")
		}
	})
}
