package journal_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
	"github.com/commucat/commucat/sdk/ledger/journal"
)

var start = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)

func records(t testing.TB, after ledger.Record, n int) []ledger.Record {
	t.Helper()
	out := make([]ledger.Record, 0, n)
	for range n {
		m, err := ledger.Metadata(map[string]any{"action": "test", "number": after.Seq + 1, "text": "a b"})
		must(t, err)
		r, err := ledger.Next(after, start.Add(time.Duration(after.Seq)*time.Second), [32]byte{byte(after.Seq)}, m)
		must(t, err)
		out, after = append(out, r), r
	}
	return out
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, dir string, change ...func(*journal.Options)) *journal.Journal {
	t.Helper()
	o := journal.Options{Dir: dir, Rotate: 2 * sdk.KiB}
	for _, f := range change {
		f(&o)
	}
	j, err := journal.Open(o)
	must(t, err)
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func files(t testing.TB, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	must(t, err)
	return names
}

func TestKeepsOverFilesAndRestarts(t *testing.T) {
	dir := t.TempDir()
	all := records(t, ledger.Record{}, 600)
	j := open(t, dir)
	for i := 0; i < len(all); i += 7 {
		must(t, j.Append(all[i:min(i+7, len(all))]))
	}
	check := func(j *journal.Journal) {
		t.Helper()
		if !j.Head().Equal(all[599]) || j.First() != 1 {
			t.Fatal(j.Head().Seq, j.First())
		}
		for _, c := range [][2]int{{0, 600}, {0, 1}, {299, 5}, {598, 10}, {600, 5}, {300, 0}} {
			got, err := j.Read(uint64(c[0]), c[1])
			must(t, err)
			want := all[c[0]:min(c[0]+c[1], len(all))]
			if d := cmp.Diff(append([]ledger.Record{}, want...), append([]ledger.Record{}, got...)); d != "" {
				t.Fatal(c, d)
			}
		}
	}
	check(j)
	if _, err := journal.Open(journal.Options{Dir: dir}); !errors.Is(err, sdk.Conflict) {
		t.Fatal("opened twice:", err)
	}
	must(t, j.Close())
	must(t, j.Close())
	if err := j.Append(all[:1]); !errors.Is(err, sdk.Closed) {
		t.Fatal(err)
	}
	j = open(t, dir)
	check(j)
	if n := len(files(t, dir)); n < 20 {
		t.Error("files", n)
	}
	must(t, j.Append(records(t, all[599], 3)))
	if j.Head().Seq != 603 {
		t.Error(j.Head().Seq)
	}
}

func TestAppendRefuses(t *testing.T) {
	j := open(t, t.TempDir())
	all := records(t, ledger.Record{}, 10)
	must(t, j.Append(all[:5]))
	must(t, j.Append(all[2:6])) // three of them again
	fork := records(t, ledger.Record{}, 1)[0]
	fork.Metadata = []byte(`{"other":1}`)
	fork.Hash = fork.Sum()
	changed := all[6]
	changed.Metadata = []byte(`{}`)
	spaced := all[6]
	spaced.Metadata = []byte(`{"a": 1}`)
	spaced.Hash = spaced.Sum()
	for name, c := range map[string]struct {
		in   []ledger.Record
		kind sdk.ErrorKind
	}{
		"gap":        {all[7:], sdk.Conflict},
		"fork":       {[]ledger.Record{fork}, sdk.Conflict},
		"changed":    {[]ledger.Record{changed}, sdk.Invalid},
		"not sorted": {[]ledger.Record{spaced}, sdk.Invalid},
		"half good":  {[]ledger.Record{all[6], all[8]}, sdk.Conflict},
	} {
		if err := j.Append(c.in); !errors.Is(err, c.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if j.Head().Seq != 6 {
		t.Error(j.Head().Seq)
	}
}

func TestTrim(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, func(o *journal.Options) { o.Partial = true })
	all := records(t, ledger.Record{}, 100)
	must(t, j.Append(nil))
	for _, r := range all {
		must(t, j.Append([]ledger.Record{r}))
	}
	must(t, j.Trim(50))
	first := j.First()
	if first < 40 || first > 51 {
		t.Fatal(first)
	}
	must(t, j.Close())
	if _, err := journal.Open(journal.Options{Dir: dir}); !errors.Is(err, sdk.Corrupt) {
		t.Error("a trimmed journal passed as whole:", err)
	}
	j = open(t, dir, func(o *journal.Options) { o.Partial = true })
	got, err := j.Read(0, 1000)
	must(t, err)
	if d := cmp.Diff(all[first-1:], got); d != "" {
		t.Error(d)
	}
	must(t, j.Trim(1000))
	if len(files(t, dir)) != 1 || !j.Head().Equal(all[99]) {
		t.Error(files(t, dir))
	}
}

func TestBeginsAfter(t *testing.T) {
	all := records(t, ledger.Record{}, 20)
	dir := t.TempDir()
	later := func(o *journal.Options) { o.Partial, o.After = true, all[9] }
	j := open(t, dir, later)
	if !j.Head().Equal(all[9]) || j.First() != 0 {
		t.Fatal(j.Head())
	}
	must(t, j.Append(all[10:12]))
	must(t, j.Close())
	j = open(t, dir, later)
	if !j.Head().Equal(all[11]) || j.First() != 11 {
		t.Fatal(j.Head())
	}
}

func TestTornEndIsRepaired(t *testing.T) {
	all := records(t, ledger.Record{}, 10)
	line := func(i int) []byte { return append(all[i].AppendLine(nil), '\n') }
	for name, c := range map[string]struct {
		tail []byte
		head uint64
	}{
		"half a line":       {line(8)[:100], 8},
		"one byte":          {[]byte("{"), 8},
		"no line end":       {bytes.TrimSuffix(line(8), []byte("\n")), 9},
		"another line end":  {append(bytes.TrimSuffix(line(8), []byte("\n")), 0x0b), 9},
		"zeros":             {make([]byte, 4096), 8},
		"zeros and a line":  {append(make([]byte, 512), line(9)...), 8},
		"a line, then half": {append(line(8), line(9)[:7]...), 9},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			big := func(o *journal.Options) { o.Rotate = sdk.MiB }
			j := open(t, dir, big)
			must(t, j.Append(all[:8]))
			must(t, j.Close())
			file := files(t, dir)[0]
			was, err := os.ReadFile(file)
			must(t, err)
			must(t, os.WriteFile(file, append(was, c.tail...), 0o600))
			j = open(t, dir, big)
			if j.Head().Seq != c.head {
				t.Fatal(j.Head().Seq)
			}
			must(t, j.Append(all[c.head:]))
			must(t, j.Close())
			got, err := open(t, dir, big).Read(0, 100)
			must(t, err)
			if d := cmp.Diff(all, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestEmptyFileIsForgotten(t *testing.T) {
	dir := t.TempDir()
	all := records(t, ledger.Record{}, 3)
	j := open(t, dir)
	must(t, j.Append(all[:2]))
	must(t, j.Close())
	must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%020d.jsonl", 3)), nil, 0o600))
	j = open(t, dir)
	must(t, j.Append(all[2:]))
	must(t, j.Close())
	open(t, dir)
}

// TestChangesAreNoticed changes a journal in every way and expects that it is either
// refused, or gives only records that were really written.
func TestChangesAreNoticed(t *testing.T) {
	all := records(t, ledger.Record{}, 40)
	dir := t.TempDir()
	j := open(t, dir)
	must(t, j.Append(all[:13]))
	must(t, j.Append(all[13:26]))
	must(t, j.Append(all[26:]))
	must(t, j.Close())
	names := files(t, dir)
	if len(names) != 3 {
		t.Fatal(len(names))
	}
	var texts [][]byte
	for _, n := range names {
		b, err := os.ReadFile(n)
		must(t, err)
		texts = append(texts, b)
	}
	lines := bytes.SplitAfter(texts[1], []byte("\n"))

	try := func(t *testing.T, name string, changed [][]byte, mayShorten bool) {
		t.Helper()
		dir := t.TempDir()
		for i, b := range changed {
			if b != nil {
				must(t, os.WriteFile(filepath.Join(dir, filepath.Base(names[i])), b, 0o600))
			}
		}
		j, err := journal.Open(journal.Options{Dir: dir, Rotate: 2 * sdk.KiB})
		if err != nil {
			if !errors.Is(err, sdk.Corrupt) || !strings.Contains(err.Error(), "0000") {
				t.Fatalf("%s: %v", name, err)
			}
			return
		}
		defer j.Close()
		got, err := j.Read(0, 1000)
		must(t, err)
		if len(got) < len(all) && !mayShorten {
			t.Fatalf("%s: %d records were lost in silence", name, len(all)-len(got))
		}
		if d := cmp.Diff(all[:len(got)], got); d != "" {
			t.Fatalf("%s: %s", name, d)
		}
	}
	with := func(i int, b []byte) [][]byte {
		out := append([][]byte{}, texts...)
		out[i] = b
		return out
	}
	join := func(l ...[]byte) []byte { return bytes.Join(l, nil) }

	t.Run("delete", func(t *testing.T) {
		try(t, "a record", with(1, join(join(lines[:3]...), join(lines[4:]...))), false)
		try(t, "the first file", with(0, nil), false)
		try(t, "a file", with(1, nil), false)
		try(t, "the end of a file", with(1, join(lines[:5]...)), false)
	})
	t.Run("swap", func(t *testing.T) {
		try(t, "records", with(1, join(lines[0], lines[2], lines[1], join(lines[3:]...))), false)
		try(t, "files", [][]byte{texts[0], texts[2], texts[1]}, false)
	})
	t.Run("insert", func(t *testing.T) {
		try(t, "a record twice", with(1, join(lines[0], lines[0], join(lines[1:]...))), false)
		try(t, "an empty line", with(1, join(lines[0], []byte("\n"), join(lines[1:]...))), false)
	})
	t.Run("edit with a new hash", func(t *testing.T) {
		forged := all[15]
		forged.Metadata = []byte(`{"action":"nothing"}`)
		forged.Hash = forged.Sum()
		try(t, "edit", with(1, bytes.Replace(texts[1], all[15].AppendLine(nil), forged.AppendLine(nil), 1)), false)
	})
	t.Run("bit flips", func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 2))
		for n := range 1000 {
			i := n % 3
			b := bytes.Clone(texts[i])
			at := rng.IntN(len(b))
			if n < 3 {
				at = len(b) - 1
			}
			b[at] ^= 1 << rng.IntN(8)
			try(t, fmt.Sprintf("file %d offset %d", i, at), with(i, b), false)
		}
	})
	t.Run("truncate", func(t *testing.T) {
		for n := 0; n < len(texts[2]); n += 37 {
			try(t, fmt.Sprint("the last file to ", n), with(2, texts[2][:n]), true)
		}
	})
}

func TestReadNoticesALaterChange(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	must(t, j.Append(records(t, ledger.Record{}, 5)))
	name := files(t, dir)[0]
	b, err := os.ReadFile(name)
	must(t, err)
	b[30] ^= 1
	must(t, os.WriteFile(name, b, 0o600))
	if _, err := j.Read(0, 5); !errors.Is(err, sdk.Corrupt) {
		t.Error(err)
	}
}

func TestInterval(t *testing.T) {
	for _, p := range []journal.Policy{journal.Interval, journal.Never} {
		dir := t.TempDir()
		j := open(t, dir, func(o *journal.Options) { o.Sync = p })
		must(t, j.Append(records(t, ledger.Record{}, 2)))
		must(t, j.Sync())
		must(t, j.Close())
		if open(t, dir).Head().Seq != 2 {
			t.Error(p)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, p := range []journal.Policy{journal.Always, journal.Never} {
		b.Run(string(p), func(b *testing.B) {
			j, err := journal.Open(journal.Options{Dir: b.TempDir(), Sync: p})
			must(b, err)
			defer j.Close()
			head := ledger.Record{}
			for b.Loop() {
				b.StopTimer()
				batch := records(b, head, 16)
				head = batch[15]
				b.StartTimer()
				must(b, j.Append(batch))
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	j, err := journal.Open(journal.Options{Dir: dir, Sync: journal.Never})
	must(b, err)
	must(b, j.Append(records(b, ledger.Record{}, 20000)))
	size := j.Size()
	must(b, j.Close())
	b.SetBytes(size)
	for b.Loop() {
		j, err := journal.Open(journal.Options{Dir: dir})
		must(b, err)
		must(b, j.Close())
	}
}
