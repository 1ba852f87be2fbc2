package journal

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
)

// TestFailedWriteIsTakenBack replaces the growing file by one that cannot be
// written, and expects that the same records go through afterwards.
func TestFailedWriteIsTakenBack(t *testing.T) {
	var all []ledger.Record
	prev := ledger.Record{}
	for range 4 {
		r, err := ledger.Next(prev, time.Unix(1, 0), [32]byte{}, []byte(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		all, prev = append(all, r), r
	}
	dir := t.TempDir()
	j, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Append(all[:1]); err != nil {
		t.Fatal(err)
	}
	good := j.active
	bad, err := os.Open(j.segments[0].path) // read only: write and truncate both fail
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	j.active = bad
	for range 2 {
		if err := j.Append(all[1:3]); !errors.Is(err, sdk.Unavailable) {
			t.Fatal(err)
		}
	}
	if j.Head().Seq != 1 {
		t.Fatal(j.Head().Seq)
	}
	j.active = good
	if _, err := good.WriteAt([]byte("half of a line"), j.segments[0].size); err != nil {
		t.Fatal(err)
	}
	if err := j.Append(all[1:]); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if j, err = Open(Options{Dir: dir}); err != nil || !j.Head().Equal(all[3]) {
		t.Fatal(err)
	}
	defer j.Close()
	if got, err := j.Read(0, 10); err != nil || len(got) != 4 {
		t.Fatal(len(got), err)
	}
}
