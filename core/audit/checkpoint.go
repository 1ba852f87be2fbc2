package audit

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
)

// CheckpointFile is the checkpoint's name in Options.Dir. A copy kept elsewhere shows
// that a chain was cut off even if the whole data folder was replaced.
const CheckpointFile = "checkpoint"

// checkpoint writes a signed statement of the head.
func (r *Recorder) checkpoint() error {
	head := r.spool.Head()
	if r.o.Key == nil || head.Seq == r.saved {
		return nil
	}
	line := ledger.Checkpoint{Domain: r.o.Domain, Seq: head.Seq, Hash: head.Hash}.Sign(r.o.Key)
	if err := replace(filepath.Join(r.o.Dir, CheckpointFile), []byte(line+"\n")); err != nil {
		return err
	}
	r.saved = head.Seq
	return nil
}

// replace writes a file so that a crash leaves the old or the new one.
func replace(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// ReadCheckpoint reads the checkpoint of a folder; Seq 0 when there is none.
func ReadCheckpoint(dir string, key ed25519.PublicKey) (ledger.Checkpoint, error) {
	b, err := os.ReadFile(filepath.Join(dir, CheckpointFile))
	if errors.Is(err, os.ErrNotExist) {
		return ledger.Checkpoint{}, nil
	}
	if err != nil {
		return ledger.Checkpoint{}, err
	}
	c, err := ledger.ParseCheckpoint(string(b), key)
	if err != nil {
		return c, fmt.Errorf("%s cannot be used; restore it from a backup, or move it away to go on without: %w", filepath.Join(dir, CheckpointFile), err)
	}
	return c, nil
}

// checkCheckpoint refuses a chain that is shorter than the last checkpoint, or
// another one.
func (r *Recorder) checkCheckpoint(ctx context.Context, head ledger.Record) error {
	if r.o.Key == nil {
		return nil
	}
	public, ok := r.o.Key.Public().(ed25519.PublicKey)
	if !ok {
		return &sdk.Error{Kind: sdk.Invalid, Op: "audit", Text: "the checkpoint key is malformed"}
	}
	c, err := ReadCheckpoint(r.o.Dir, public)
	if err != nil {
		return err
	}
	r.saved = c.Seq
	if c.Seq == 0 {
		if head.Seq > 0 {
			r.o.Log.Warn("the audit checkpoint is missing: nobody can tell whether records were cut off at the end", "records", head.Seq)
		}
		return nil
	}
	file := filepath.Join(r.o.Dir, CheckpointFile)
	if c.Seq > head.Seq {
		return &sdk.Error{Kind: sdk.Corrupt, Op: "audit", Err: &ledger.BrokenError{Seq: head.Seq + 1, Text: fmt.Sprintf(
			"%s knows record %d: the chain was cut off; restore it, or move the checkpoint away to go on without", file, c.Seq)}}
	}
	held, err := r.record(ctx, c.Seq)
	if err != nil {
		return err
	}
	if held.Seq != 0 && held.Hash != c.Hash {
		return &sdk.Error{Kind: sdk.Corrupt, Op: "audit", Err: &ledger.BrokenError{Seq: c.Seq, Text: fmt.Sprintf(
			"%s knows another record: the chain was replaced", file)}}
	}
	return nil
}
