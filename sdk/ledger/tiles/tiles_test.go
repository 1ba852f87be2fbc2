package tiles_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger/tiles"
)

const origin = "relay.example/audit"

// entry is the record with number i.
func entry(i int) []byte {
	return fmt.Appendf(nil, "record %d %s", i, strings.Repeat("x", i%90))
}

func entries(from, to int) (out [][]byte) {
	for i := from; i < to; i++ {
		out = append(out, entry(i))
	}
	return out
}

func options(t testing.TB, dir string) tiles.Options {
	t.Helper()
	private, public, err := note.GenerateKey(zeros{}, origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return tiles.Options{Dir: dir, Signer: signer, Key: public}
}

// zeros makes the same key each time.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func open(t testing.TB, o tiles.Options) *tiles.Log {
	t.Helper()
	l, err := tiles.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func reader(t testing.TB, o tiles.Options) *tiles.Reader {
	t.Helper()
	r, err := tiles.OpenReader(os.DirFS(o.Dir), o.Key)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// plainRoot computes RFC 6962's tree head by its definition.
func plainRoot(e [][]byte) [32]byte {
	switch len(e) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, e[0]...))
	}
	k := 1
	for 2*k < len(e) {
		k *= 2
	}
	left, right := plainRoot(e[:k]), plainRoot(e[k:])
	return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
}

func TestAppendInAnyBatches(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			o := options(t, filepath.Join(t.TempDir(), "log"))
			l := open(t, o)
			size := 0
			for size < 900 {
				n := 1 + r.IntN(330)
				if err := l.Append(entries(size, size+n)); err != nil {
					t.Fatal(err)
				}
				size += n
				if r.IntN(2) == 0 { // a restart
					if err := l.Close(); err != nil {
						t.Fatal(err)
					}
					l = open(t, o)
				}
				if head := l.Head(); head.Size != int64(size) || head.Root != plainRoot(entries(0, size)) {
					t.Fatalf("head %+v of %d", head, size)
				}
				rd := reader(t, o)
				if err := rd.Verify(t.Context(), nil); err != nil {
					t.Fatalf("%d: %v", size, err)
				}
				i := r.IntN(size)
				p, err := rd.Prove(int64(i))
				if err != nil {
					t.Fatal(err)
				}
				if p, err = tiles.ParseProof(p.Marshal()); err != nil {
					t.Fatal(err)
				}
				if c, err := p.Verify(entry(i), o.Key); err != nil || c.Size != int64(size) {
					t.Fatalf("proof of %d: %v", i, err)
				}
				if _, err := p.Verify(entry(i+1), o.Key); !errors.Is(err, sdk.Denied) {
					t.Fatalf("proof of another record: %v", err)
				}
				got, err := l.Read(int64(i), 300)
				if want := entries(i, min(i+300, size)); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
					t.Fatalf("read from %d: %d records, %v", i, len(got), err)
				}
			}
			partials, err := filepath.Glob(filepath.Join(o.Dir, "tile", "0", "*.p"))
			if err != nil || len(partials) > 1 {
				t.Errorf("partial tiles that full ones replaced remain: %v %v", partials, err)
			}
		})
	}
}

func TestConsistency(t *testing.T) {
	o := options(t, t.TempDir())
	l := open(t, o)
	var heads []tiles.Checkpoint
	for size := 0; size < 700; size += 70 {
		heads = append(heads, l.Head())
		if err := l.Append(entries(size, size+70)); err != nil {
			t.Fatal(err)
		}
	}
	r := reader(t, o)
	for _, h := range heads {
		p, err := r.Consistent(h)
		if err != nil {
			t.Fatalf("%d: %v", h.Size, err)
		}
		proof := make(tlog.TreeProof, len(p))
		for i := range p {
			proof[i] = p[i]
		}
		if h.Size > 0 && tlog.CheckTree(proof, r.Head().Size, r.Head().Root, h.Size, h.Root) != nil {
			t.Errorf("%d: the proof does not hold", h.Size)
		}
	}
	forged := heads[3]
	forged.Root[0]++
	for name, c := range map[string]tiles.Checkpoint{
		"replaced": forged, "cut off": {Origin: origin, Size: 701},
	} {
		var d *tiles.DamageError
		if _, err := r.Consistent(c); !errors.As(err, &d) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := r.Consistent(tiles.Checkpoint{Origin: "other", Size: 1}); !errors.Is(err, sdk.Invalid) {
		t.Errorf("another log: %v", err)
	}
}

// TestChangedHash: a proof that a changed hash is in the way of names the file.
func TestChangedHash(t *testing.T) {
	o := options(t, t.TempDir())
	l := open(t, o)
	if err := l.Append(entries(0, 300)); err != nil {
		t.Fatal(err)
	}
	early := l.Head()
	if err := l.Append(entries(300, 310)); err != nil {
		t.Fatal(err)
	}
	r := reader(t, o)
	name := filepath.Join(o.Dir, "tile", "0", "001.p", "54")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[100] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, consistent := r.Consistent(early)
	_, proved := r.Prove(299)
	for _, err := range []error{consistent, proved} {
		var d *tiles.DamageError
		if !errors.As(err, &d) || !strings.Contains(d.File, "tile/0/001.p/54") || !strings.Contains(d.Text, "a hash was changed") {
			t.Error(err)
		}
	}
}

func TestDamage(t *testing.T) {
	change := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[at] ^= 1; return b }
	}
	tests := []struct {
		name, file string
		change     func([]byte) []byte // nil removes the file
		want       string
	}{
		{"byte of a record", "tile/entries/001", change(5), "tile/entries/001: record 257 was changed"},
		{"length of a record", "tile/entries/000", change(1), "tile/entries/000: record 1 was changed"},
		{"record removed", "tile/entries/000", func(b []byte) []byte { return b[2+len(entry(0)):] }, "tile/entries/000: record 1 was changed or removed"},
		{"bundle cut", "tile/entries/002.p/88", func(b []byte) []byte { return b[:len(b)-3] }, "tile/entries/002.p/88: record 600 is cut off"},
		{"bundle gone", "tile/entries/001", nil, "tile/entries/001: record 257 and those that follow cannot be read"},
		{"hash of a record", "tile/0/001", change(32 * 7), "tile/0/001: record 264 has another hash"},
		{"upper hash", "tile/1/000.p/2", change(33), "tile/1/000.p/2: a hash is not that of the tile below"},
		{"tile cut", "tile/0/000", func(b []byte) []byte { return b[:100] }, "tile/0/000: it is too short"},
		{"tile too long", "tile/0/000", func(b []byte) []byte { return append(b, 0) }, "tile/0/000: it is longer"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := options(t, t.TempDir())
			l := open(t, o)
			if err := l.Append(entries(0, 600)); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(o.Dir, tt.file)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if tt.change == nil {
				err = os.Remove(file)
			} else {
				err = os.WriteFile(file, tt.change(b), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			err = reader(t, o).Verify(t.Context(), nil)
			if !errors.Is(err, sdk.Corrupt) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// A log that was written anew by somebody without the key.
func TestForgedCheckpoint(t *testing.T) {
	o := options(t, t.TempDir())
	if err := open(t, o).Append(entries(0, 3)); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(o.Dir, "checkpoint")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(strings.Replace(string(b), "\n3\n", "\n2\n", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := tiles.OpenReader(os.DirFS(o.Dir), o.Key); !errors.Is(err, sdk.Denied) {
		t.Error(err)
	}
}

// What a crash leaves between the tiles and the checkpoint is not there.
func TestCrashBeforeTheCheckpoint(t *testing.T) {
	o := options(t, t.TempDir())
	l := open(t, o)
	if err := l.Append(entries(0, 250)); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(o.Dir, "checkpoint")
	before, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Append(entries(250, 260)); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, before, 0o600); err != nil {
		t.Fatal(err)
	}
	l = open(t, o)
	if l.Head().Size != 250 {
		t.Fatal(l.Head().Size)
	}
	if err := l.Append([][]byte{[]byte("another record")}); err != nil {
		t.Fatal(err)
	}
	if err := reader(t, o).Verify(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

func TestOneWriter(t *testing.T) {
	o := options(t, t.TempDir())
	l := open(t, o)
	if _, err := tiles.Open(o); !errors.Is(err, sdk.Conflict) {
		t.Errorf("second writer: %v", err)
	}
	if err := l.Append([][]byte{make([]byte, tiles.MaxEntry+1)}); !errors.Is(err, sdk.Invalid) {
		t.Errorf("too long: %v", err)
	}
	if err := l.Append([][]byte{make([]byte, tiles.MaxEntry), nil}); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(entries(0, 1)); !errors.Is(err, sdk.Closed) {
		t.Errorf("closed: %v", err)
	}
}

// cosign makes a witness and its cosignature/v1 line for a checkpoint.
func cosign(name, text string, at uint64) (key, line string) {
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	public := append([]byte{4}, private.Public().(ed25519.PublicKey)...)
	id := sha256.Sum256(append([]byte(name+"\n"), public...))
	key = fmt.Sprintf("%s+%x+%s", name, id[:4], base64.StdEncoding.EncodeToString(public))
	sig := append(id[:4:4], binary.BigEndian.AppendUint64(nil, at)...)
	sig = append(sig, ed25519.Sign(private, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, text))...)
	return key, "— " + name + " " + base64.StdEncoding.EncodeToString(sig) + "\n"
}

func TestWitness(t *testing.T) {
	o := options(t, t.TempDir())
	if err := open(t, o).Append(entries(0, 3)); err != nil {
		t.Fatal(err)
	}
	r := reader(t, o)
	key, line := cosign("witness.example", r.Head().Text(), 1_800_000_000)
	signed := append(r.Signed(), line...)
	c, by, err := tiles.ParseCheckpoint(signed, o.Key, key)
	if err != nil || c != r.Head() || len(by) != 1 || by[0] != "witness.example" {
		t.Errorf("%+v %v %v", c, by, err)
	}
	_, wrong := cosign("witness.example", "another text\n", 1_800_000_000)
	if _, _, err := tiles.ParseCheckpoint(append(r.Signed(), wrong...), o.Key, key); !errors.Is(err, sdk.Denied) {
		t.Errorf("wrong cosignature: %v", err)
	}
	if _, _, err := tiles.ParseCheckpoint(signed, o.Key, "witness.example+00000000+BAAA"); !errors.Is(err, sdk.Invalid) {
		t.Errorf("malformed witness: %v", err)
	}
}

func FuzzParseProof(f *testing.F) {
	f.Add([]byte("c2sp.org/tlog-proof@v1\nindex 0\n\n" + origin + "\n1\nx\n"))
	f.Add([]byte("c2sp.org/tlog-proof@v1\nindex 7\n" + base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\n\nx"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := tiles.ParseProof(b)
		if err == nil && string(p.Marshal()) != string(b) {
			t.Errorf("%q became %q", b, p.Marshal())
		}
	})
}

func FuzzParseCheckpoint(f *testing.F) {
	o := options(f, f.TempDir())
	if err := open(f, o).Append(entries(0, 3)); err != nil {
		f.Fatal(err)
	}
	f.Add(reader(f, o).Signed())
	f.Fuzz(func(t *testing.T, b []byte) {
		c, _, err := tiles.ParseCheckpoint(b, o.Key)
		if err == nil && !strings.HasPrefix(string(b), c.Text()+"\n") {
			t.Errorf("%q became %q", b, c.Text())
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("batch=%d", n), func(b *testing.B) {
			l := open(b, options(b, b.TempDir()))
			batch := entries(0, n)
			for b.Loop() {
				if err := l.Append(batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

func Example() {
	dir, err := os.MkdirTemp("", "log")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	private, public, _ := note.GenerateKey(zeros{}, "relay.example/audit")
	signer, _ := note.NewSigner(private)
	l, err := tiles.Open(tiles.Options{Dir: dir, Signer: signer, Key: public})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	if err := l.Append([][]byte{[]byte("first"), []byte("second")}); err != nil {
		fmt.Println(err)
		return
	}
	r, err := tiles.OpenReader(os.DirFS(dir), public)
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := r.Prove(1)
	if err != nil {
		fmt.Println(err)
		return
	}
	c, err := p.Verify([]byte("second"), public)
	fmt.Println(c.Origin, c.Size, err)
	// Output: relay.example/audit 2 <nil>
}
