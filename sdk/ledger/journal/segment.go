package journal

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
)

// every is how many records lie between two places that are remembered.
const every = 256

// segment is one file.
type segment struct {
	path        string
	first, last uint64
	size        int64
	marks       []mark
}

type mark struct {
	seq    uint64
	offset int64
}

func (s *segment) mark(seq uint64, offset int64) {
	if n := len(s.marks); n == 0 || seq >= s.marks[n-1].seq+every {
		s.marks = append(s.marks, mark{seq, offset})
	}
}

// before is the nearest place at or before seq.
func (s *segment) before(seq uint64) int64 {
	low, high := 0, len(s.marks)
	for high-low > 1 {
		if mid := (low + high) / 2; s.marks[mid].seq <= seq {
			low = mid
		} else {
			high = mid
		}
	}
	if high == 0 {
		return 0
	}
	return s.marks[low].offset
}

const suffix = ".jsonl"

func segmentName(first uint64) string { return fmt.Sprintf("%020d", first) + suffix }

// list finds the files of a folder, in order.
func list(dir string) ([]*segment, error) {
	entries, err := os.ReadDir(dir) // sorted by name, so by number
	if err != nil {
		return nil, err
	}
	var out []*segment
	for _, e := range entries {
		text, ok := strings.CutSuffix(e.Name(), suffix)
		first, err := strconv.ParseUint(text, 10, 64)
		if !ok || err != nil || segmentName(first) != e.Name() {
			continue
		}
		out = append(out, &segment{path: filepath.Join(dir, e.Name()), first: first})
	}
	return out, nil
}

// load reads all files in order.
func (j *Journal) load() error {
	var err error
	if j.segments, err = list(j.o.Dir); err != nil {
		return fail(sdk.Unavailable, err)
	}
	j.chain.Head = j.o.After
	for i, s := range j.segments {
		if i == 0 && j.o.Partial {
			j.chain.Head = ledger.Record{Seq: s.first - 1}
		}
		if s.first != j.chain.Head.Seq+1 {
			return &sdk.Error{Kind: sdk.Corrupt, Op: "journal", Err: &ledger.BrokenError{
				Seq: j.chain.Head.Seq + 1, Text: fmt.Sprintf("the file with it is missing before %s", s.path),
			}}
		}
		if err := j.loadSegment(s, i == 0, i == len(j.segments)-1); err != nil {
			return err
		}
	}
	if n := len(j.segments); n > 0 && j.segments[n-1].size == 0 {
		// A crash came between the file and its first record.
		if err := os.Remove(j.segments[n-1].path); err != nil {
			return fail(sdk.Unavailable, err)
		}
		if j.segments = j.segments[:n-1]; n == 1 {
			j.chain.Head = j.o.After
		}
	}
	if n := len(j.segments); n > 0 {
		if j.active, err = os.OpenFile(j.segments[n-1].path, os.O_RDWR, 0); err != nil {
			return fail(sdk.Unavailable, err)
		}
		j.first = j.segments[0].first
	}
	return nil
}

// loadSegment checks one file; in the newest one it repairs what a crash left.
func (j *Journal) loadSegment(s *segment, oldest, newest bool) error {
	f, err := os.Open(s.path)
	if err != nil {
		return fail(sdk.Unavailable, err)
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, ledger.MaxLine+2)
	for line := 1; ; line++ {
		text, err := in.ReadSlice('\n')
		if len(text) == 0 && errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
			return fail(sdk.Unavailable, err)
		}
		complete := err == nil
		r, bad := ledger.ParseLine(bytes.TrimSuffix(text, []byte{'\n'}))
		if bad == nil {
			bad = j.follow(r, oldest && line == 1)
		}
		if bad == nil && !complete && !newest {
			bad = errors.New("the line has no end")
		}
		if bad != nil && !complete && newest && len(text) > 1 {
			// Only the line end may be damaged.
			if again, err := ledger.ParseLine(text[:len(text)-1]); err == nil && j.follow(again, oldest && line == 1) == nil {
				r, bad, text = again, nil, text[:len(text)-1]
			}
		}
		if bad != nil {
			if newest && torn(f, s.size, complete) {
				return j.cut(s, f)
			}
			return &sdk.Error{Kind: sdk.Corrupt, Op: fmt.Sprintf("%s:%d", s.path, line), Err: bad}
		}
		s.mark(r.Seq, s.size)
		s.last = r.Seq
		s.size += int64(len(text))
		if !complete {
			return j.end(s)
		}
	}
}

// follow adds r to the chain. The first record of a trimmed journal is taken as it is.
func (j *Journal) follow(r ledger.Record, beginning bool) error {
	if beginning && j.o.Partial && r.Seq == j.chain.Head.Seq+1 {
		j.chain.Head.Hash = r.Prev
	}
	err := j.chain.Add(r)
	if err == nil {
		j.chain.Head.Metadata = append([]byte(nil), r.Metadata...)
	}
	return err
}

// torn decides whether what follows the last good record is what a crash leaves: a
// last line without its end, or zeros. Anything else was written and then changed.
func torn(f *os.File, from int64, complete bool) bool {
	if !complete {
		info, err := f.Stat()
		if err == nil && info.Size()-from <= ledger.MaxLine {
			return true
		}
	}
	tail := io.NewSectionReader(f, from, 1<<40)
	zeros, in := 0, bufio.NewReader(tail)
	for {
		c, err := in.ReadByte()
		if err != nil {
			return false
		}
		if zeros++; c != 0 {
			zeros = 0
		}
		if zeros == 64 {
			return true
		}
	}
}

// cut takes a torn end off.
func (j *Journal) cut(s *segment, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return fail(sdk.Unavailable, err)
	}
	w, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return fail(sdk.Unavailable, err)
	}
	defer w.Close()
	if err := errors.Join(w.Truncate(s.size), w.Sync()); err != nil {
		return fail(sdk.Unavailable, err)
	}
	if j.o.Repaired != nil {
		j.o.Repaired(s.path, info.Size()-s.size)
	}
	return nil
}

// end writes the line end that a crash took from a complete last record.
func (j *Journal) end(s *segment) error {
	w, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return fail(sdk.Unavailable, err)
	}
	defer w.Close()
	if _, err := w.WriteAt([]byte{'\n'}, s.size); err != nil {
		return fail(sdk.Unavailable, err)
	}
	s.size++
	if err := w.Sync(); err != nil {
		return fail(sdk.Unavailable, err)
	}
	return nil
}

// Read returns at most limit records with numbers greater than after, in order. Each
// one is checked again as it is read: kind Corrupt says that a file changed since.
func (j *Journal) Read(after uint64, limit int) ([]ledger.Record, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil, errClosed
	}
	return j.read(after, limit)
}

func (j *Journal) read(after uint64, limit int) ([]ledger.Record, error) {
	if j.first == 0 || limit <= 0 {
		return nil, nil
	}
	var out []ledger.Record
	var chain ledger.Chain
	for _, s := range j.segments {
		if s.size == 0 || s.last <= after || len(out) == limit {
			continue
		}
		var err error
		if out, err = s.read(out, &chain, after, limit); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *segment) read(out []ledger.Record, chain *ledger.Chain, after uint64, limit int) ([]ledger.Record, error) {
	f, err := os.Open(s.path)
	if err != nil {
		return nil, fail(sdk.Unavailable, err)
	}
	defer f.Close()
	from := s.before(after + 1)
	in := bufio.NewReaderSize(io.NewSectionReader(f, from, s.size-from), ledger.MaxLine+2)
	for len(out) < limit {
		text, err := in.ReadSlice('\n')
		if len(text) == 0 && errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, &sdk.Error{Kind: sdk.Corrupt, Op: s.path, Err: err}
		}
		r, err := ledger.ParseLine(bytes.TrimSuffix(text, []byte{'\n'}))
		if err != nil {
			return nil, &sdk.Error{Kind: sdk.Corrupt, Op: s.path, Err: err}
		}
		if chain.Head.Seq == 0 {
			chain.Head = ledger.Record{Seq: r.Seq - 1, Hash: r.Prev}
		}
		if err := chain.Add(r); err != nil {
			return nil, &sdk.Error{Kind: sdk.Corrupt, Op: s.path, Err: err}
		}
		if r.Seq > after {
			r.Metadata = append([]byte(nil), r.Metadata...)
			out = append(out, r)
		}
	}
	return out, nil
}
