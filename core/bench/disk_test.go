package bench

import (
	"os"
	"testing"
	"time"
)

func TestDiskFloorCountsEveryRecord(t *testing.T) {
	dir := t.TempDir()
	wait, syncs, err := DiskFloor(dir, 1000, 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if len(wait) != 100 || len(syncs) == 0 || len(syncs) > len(wait) {
		t.Errorf("%d records waited for %d syncs", len(wait), len(syncs))
	}
	for i, d := range wait {
		if d <= 0 {
			t.Fatalf("record %d waited %v", i, d)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, _, err := DiskFloor(dir+"/none", 1000, time.Millisecond); err == nil {
		t.Error("no error for a folder that is not there")
	}
}
