package audit

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/commucat/commucat/sdk"
)

// holdPatience is how long Hold waits for a ledger that is taking records.
const holdPatience = 5 * time.Second

// Hold keeps records from the ledgers until release is called, so that what they keep
// can be copied, and makes dir, which is not there yet, a folder like Options.Dir that
// goes with it: it holds every record that a ledger lacks, and ends after some record.
// Nobody waits meanwhile: events are recorded in the spool as ever. busy names ledgers
// that were taking records and have not come to an end of it.
//
// The copy is what a crash at this moment would leave, so a recorder can be opened on it.
func (r *Recorder) Hold(ctx context.Context, dir string) (busy []string, release func(), err error) {
	patience, cancel := context.WithTimeout(ctx, holdPatience)
	defer cancel()
	var held []*feeder
	for _, f := range r.sinks {
		select {
		case f.gate <- struct{}{}:
			held = append(held, f)
		case <-patience.Done():
			busy = append(busy, f.sink.Name)
		}
	}
	release = func() {
		for _, f := range held {
			<-f.gate
		}
		held = nil
	}
	if err = ctx.Err(); err == nil {
		err = r.copy(dir)
	}
	if err != nil {
		release()
		return nil, nil, err
	}
	return busy, release, nil
}

// copy copies the checkpoint first: the spool has at least what it speaks of.
func (r *Recorder) copy(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return &sdk.Error{Kind: sdk.Unavailable, Op: "audit", Err: err}
	}
	b, err := os.ReadFile(filepath.Join(r.o.Dir, CheckpointFile))
	if err == nil {
		err = replace(filepath.Join(dir, CheckpointFile), b)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &sdk.Error{Kind: sdk.Unavailable, Op: "audit", Err: err}
	}
	if err := copySent(filepath.Join(r.o.Dir, sentFolder), filepath.Join(dir, sentFolder)); err != nil {
		return &sdk.Error{Kind: sdk.Unavailable, Op: "audit", Err: err}
	}
	return r.spool.Copy(filepath.Join(dir, "spool"))
}

func copySent(from, to string) error {
	list, err := os.ReadDir(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	for _, e := range list {
		if e.Name()[0] == '.' {
			continue // one that is being written
		}
		b, err := os.ReadFile(filepath.Join(from, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // one that was being replaced
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, e.Name()), b, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
