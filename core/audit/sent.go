package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/commucat/commucat/sdk"
)

// sentFolder in Options.Dir has a file for each ledger that forgets, with the number of
// the last record it took: such a ledger cannot be asked for its head. The files are not
// synced; after a crash some records are given once more, and after a loss of power, which
// may leave an empty file, all that the spool has.
const sentFolder = "sent"

func (r *Recorder) sentFile(name string) string { return filepath.Join(r.o.Dir, sentFolder, name) }

// resume says up to where a ledger that forgets has been given records: where it was when
// the recorder was closed, or the head for one that is new. What nobody has any more it
// will not get.
func (r *Recorder) resume(ctx context.Context, name string) (uint64, error) {
	head := r.spool.Head().Seq
	b, err := os.ReadFile(r.sentFile(name))
	if errors.Is(err, os.ErrNotExist) {
		r.sent(name, head)
		return head, nil
	}
	if err != nil {
		return 0, &sdk.Error{Kind: sdk.Unavailable, Op: "audit", Err: err}
	}
	done, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		done = head
		if first := r.spool.First(); first != 0 {
			done = first - 1
		}
		r.o.Log.Error("how far a ledger has come cannot be read; it is given what the spool has", "ledger", name, "from", done+1, "error", err)
		return done, nil
	}
	if done >= head {
		return head, nil // or of a chain that was begun anew
	}
	next, err := r.record(ctx, done+1)
	if err != nil {
		return 0, err
	}
	if next.Seq == 0 {
		first := r.spool.First()
		if first == 0 {
			first = head + 1
		}
		r.o.Log.Error("records are in no ledger any more and cannot be given to one that is behind", "ledger", name, "from", done+1, "until", first-1)
		return first - 1, nil
	}
	return done, nil
}

// sent notes how far a ledger that forgets has come.
func (r *Recorder) sent(name string, seq uint64) {
	err := os.Mkdir(filepath.Join(r.o.Dir, sentFolder), 0o700)
	if err == nil || errors.Is(err, os.ErrExist) {
		tmp := r.sentFile("." + name)
		if err = os.WriteFile(tmp, fmt.Appendf(nil, "%d\n", seq), 0o600); err == nil {
			err = os.Rename(tmp, r.sentFile(name))
		}
	}
	if err != nil {
		r.o.Log.Warn("how far a ledger has come could not be noted", "ledger", name, "error", err)
	}
}
