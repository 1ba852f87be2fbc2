package audit

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
)

// sentFolder in Options.Dir has a file for each ledger, with the number and the hash of the
// last record it took. One that forgets cannot be asked for its head; one that keeps records
// and has fewer than that was rolled back. The files are not synced; after a crash some
// records are given once more, and after a loss of power, which may leave an empty file, all
// that the spool has.
const sentFolder = "sent"

// mark is what such a file says.
type mark struct {
	there bool
	seq   uint64
	// hash is nil in files of older versions.
	hash []byte
}

func (m mark) of(r ledger.Record) bool {
	return m.seq == r.Seq && (m.hash == nil || string(m.hash) == string(r.Hash[:]))
}

// readMark reads a file, if it is there.
func readMark(dir, name string) (mark, error) {
	b, err := os.ReadFile(filepath.Join(dir, sentFolder, name))
	if errors.Is(err, fs.ErrNotExist) {
		return mark{}, nil
	}
	if err != nil {
		return mark{}, &sdk.Error{Kind: sdk.Unavailable, Op: "audit", Err: err}
	}
	m, err := parseMark(string(b))
	if err != nil {
		return m, fmt.Errorf("%s: %w", filepath.Join(dir, sentFolder, name), err)
	}
	return m, nil
}

var errNoMark = &sdk.Error{Kind: sdk.Corrupt, Op: "audit", Text: "not the number and hash of a record"}

func parseMark(text string) (mark, error) {
	number, hash, hashed := strings.Cut(strings.TrimSuffix(text, "\n"), " ")
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return mark{}, errNoMark
	}
	m := mark{there: true, seq: seq}
	if hashed {
		if m.hash, err = hex.DecodeString(hash); err != nil || len(m.hash) != 32 {
			return mark{}, errNoMark
		}
	}
	return m, nil
}

func (m mark) String() string {
	if m.hash == nil {
		return strconv.FormatUint(m.seq, 10) + "\n"
	}
	return fmt.Sprintf("%d %x\n", m.seq, m.hash)
}

// resume says up to where a ledger that forgets has been given records: where it was when
// the recorder was closed, or the head for one that is new. What nobody has any more it
// will not get.
func (r *Recorder) resume(ctx context.Context, name string) (uint64, error) {
	head := r.spool.Head()
	m, err := readMark(r.o.Dir, name)
	if sdk.KindOf(err) == sdk.Corrupt {
		done := head.Seq
		if first := r.spool.First(); first != 0 {
			done = first - 1
		}
		r.o.Log.Error("how far a ledger has come cannot be read; it is given what the spool has", "ledger", name, "from", done+1, "error", err)
		return done, nil
	}
	if err != nil {
		return 0, err
	}
	if !m.there {
		r.sent(name, head) // it is new
		return head.Seq, nil
	}
	if m.seq > head.Seq {
		r.o.Log.Error("the chain ends before what a ledger was given: it was rolled back, and the numbers that follow are given to the ledger twice",
			"ledger", name, "ends", head.Seq, "given", m.seq)
		r.owe(RolledBack(name, head.Seq, m.seq))
		return head.Seq, nil
	}
	if held, err := r.record(ctx, m.seq); err != nil {
		return 0, err
	} else if held.Seq != 0 && !m.of(held) {
		r.o.Log.Error("a ledger was given another record than the chain has: the chain was replaced", "ledger", name, "record", m.seq)
		r.owe(RolledBack(name, m.seq-1, m.seq))
	}
	if m.seq == head.Seq {
		return head.Seq, nil
	}
	next, err := r.record(ctx, m.seq+1)
	if err != nil {
		return 0, err
	}
	if next.Seq == 0 {
		first := r.spool.First()
		if first == 0 {
			first = head.Seq + 1
		}
		r.o.Log.Error("records are in no ledger any more and cannot be given to one that is behind", "ledger", name, "from", m.seq+1, "until", first-1)
		return first - 1, nil
	}
	return m.seq, nil
}

// compare names a ledger that has fewer records than it took. What it lacks it is given
// again, from the spool or another ledger that has it.
func (r *Recorder) compare(ctx context.Context, name string, has ledger.Record) error {
	m, err := readMark(r.o.Dir, name)
	if sdk.KindOf(err) == sdk.Corrupt {
		r.o.Log.Warn("whether a ledger was rolled back cannot be told", "ledger", name, "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	if m.seq <= has.Seq {
		return nil
	}
	r.owe(RolledBack(name, has.Seq, m.seq))
	next, err := r.record(ctx, has.Seq+1)
	if err != nil {
		return err
	}
	if next.Seq == 0 {
		r.o.Log.Error("a ledger has fewer records than it took, and those that follow are in no ledger any more: restore it from a copy that has them, or take it out of ledger.backends",
			"ledger", name, "has", has.Seq, "took", m.seq)
		return nil
	}
	r.o.Log.Error("a ledger has fewer records than it took: it was rolled back or replaced, or its disk lost them; it is given them again",
		"ledger", name, "has", has.Seq, "took", m.seq)
	return nil
}

// owe queues an event of Open itself, before anybody else has the recorder.
func (r *Recorder) owe(e Event) { r.queued(pending{event: e, at: r.o.Clock()}) }

// sent notes how far a ledger has come.
func (r *Recorder) sent(name string, last ledger.Record) {
	err := os.Mkdir(filepath.Join(r.o.Dir, sentFolder), 0o700)
	if err == nil || errors.Is(err, os.ErrExist) {
		tmp := filepath.Join(r.o.Dir, sentFolder, "."+name)
		if err = os.WriteFile(tmp, []byte(mark{true, last.Seq, last.Hash[:]}.String()), 0o600); err == nil {
			err = os.Rename(tmp, filepath.Join(r.o.Dir, sentFolder, name))
		}
	}
	if err != nil {
		r.o.Log.Warn("how far a ledger has come could not be noted", "ledger", name, "error", err)
	}
}
