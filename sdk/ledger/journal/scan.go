package journal

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
)

// Scan gives each record of the journal in dir with a number greater than after, in order,
// until each answers an error, which it returns. It takes no lock and mends nothing, so it
// may run beside the process that appends and trims: it ends before a line that is not
// complete, and leaves out files that were removed. Form and hash of a record are checked
// (kind Corrupt), the chain is the caller's business. A folder that is not there is empty.
func Scan(dir string, after uint64, each func(ledger.Record) error) error {
	segments, err := list(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fail(sdk.Unavailable, err)
	}
	for i, s := range segments {
		if i+1 < len(segments) && segments[i+1].first <= after+1 {
			continue
		}
		if err := s.scan(after, each); err != nil {
			return err
		}
	}
	return nil
}

func (s *segment) scan(after uint64, each func(ledger.Record) error) error {
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fail(sdk.Unavailable, err)
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, ledger.MaxLine+2)
	for {
		text, err := in.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return fail(sdk.Unavailable, err)
		}
		r, err := ledger.ParseLine(bytes.TrimSuffix(text, []byte{'\n'}))
		if err != nil {
			if zeroed(text) {
				return nil
			}
			return &sdk.Error{Kind: sdk.Corrupt, Op: s.path, Err: err}
		}
		if r.Seq <= after {
			continue
		}
		r.Metadata = bytes.Clone(r.Metadata)
		if err := each(r); err != nil {
			return err
		}
	}
}

// zeroed says that text begins with what a crash leaves in place of what was not written.
func zeroed(text []byte) bool { return len(text) >= 64 && len(bytes.Trim(text[:64], "\x00")) == 0 }
