package entry_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/entry"
)

var (
	master = bytes.Repeat([]byte{0x55}, 32)
	made   = time.Unix(1799990000, 0)
	nonce  = []byte{1, 2, 3, 4, 5, 6, 7, 8}
)

const connectPath = "/assets/9f3c61d2"

func exampleID(t testing.TB) (id [8]byte) {
	t.Helper()
	raw, err := hex.DecodeString("6b49d200deadbeef")
	if err != nil {
		t.Fatal(err)
	}
	copy(id[:], raw)
	return id
}

// The worked examples of protocol-extensions, section 7.
func TestExamples(t *testing.T) {
	c := entry.Derive(master, exampleID(t))
	if got := hex.EncodeToString(c.Key[:]); got != "39ac2d108a5359cadc7a59529037ac82" {
		t.Errorf("key %s", got)
	}
	if got := c.Token("POST", connectPath, "", made, bytes.NewReader(nonce)); got != "a0nSAN6tvu9rSarwAQIDBAUGBwiCff02FPssTQmBB2FZB-TN" {
		t.Errorf("token %s", got)
	}
	s := entry.Stream{Op: entry.OpDown, Offset: 4096}
	for i := range s.ID {
		s.ID[i] = 0xa0 + byte(i)
	}
	want := "a0nSAN6tvu9rSarwAQIDBAUGBwjrdjcxz83LjGDjtSE6kARR.AaChoqOkpaanqKmqq6ytrq8AAAAAAAAQAA"
	got := c.Token("GET", connectPath, s.String(), made, bytes.NewReader(nonce))
	if got != want {
		t.Errorf("split token %s", got)
	}
	v := verifier(made)
	back, has, err := v.Verify("GET", connectPath, got)
	if err != nil || !has || back != s {
		t.Errorf("Verify = %v %v %v", back, has, err)
	}
	if len(got) != entry.MaxLength || len(want) != entry.TokenLength+1+entry.StreamLength {
		t.Errorf("length %d", len(got))
	}
}

func verifier(now time.Time) *entry.Verifier {
	return entry.NewVerifier(func() [][]byte { return [][]byte{bytes.Repeat([]byte{0x77}, 32), master} },
		func() time.Time { return now })
}

func TestVerifyRefuses(t *testing.T) {
	c := entry.Derive(master, exampleID(t))
	st := entry.Stream{Op: entry.OpUp, Offset: 9}.String()
	plain := c.Token("POST", connectPath, "", made, bytes.NewReader(nonce))
	split := c.Token("POST", connectPath, st, made, bytes.NewReader(nonce))
	flipped := []byte(plain)
	flipped[40] ^= 1
	expiry := time.Unix(int64(binary.BigEndian.Uint32(c.ID[:4])), 0)
	last := c.Token("POST", connectPath, "", expiry.Add(-time.Second), bytes.NewReader(nonce))
	other := entry.Derive(bytes.Repeat([]byte{0x56}, 32), exampleID(t)).Token("POST", connectPath, "", made, bytes.NewReader(nonce))
	tests := []struct {
		name         string
		method, path string
		value        string
		now          time.Time
		want         error
	}{
		{"good", "POST", connectPath, plain, made, nil},
		{"good with stream", "POST", connectPath, split, made, nil},
		{"120 s late", "POST", connectPath, plain, made.Add(120*time.Second + 999*time.Millisecond), nil},
		{"121 s late", "POST", connectPath, plain, made.Add(121 * time.Second), entry.ErrClock},
		{"120 s early", "POST", connectPath, plain, made.Add(-120 * time.Second), nil},
		{"121 s early", "POST", connectPath, plain, made.Add(-121 * time.Second), entry.ErrClock},
		{"last second", "POST", connectPath, last, expiry.Add(-time.Second), nil},
		{"expired", "POST", connectPath, last, expiry, entry.ErrExpired},
		{"other method", "GET", connectPath, plain, made, entry.ErrMAC},
		{"other path", "POST", connectPath + "x", plain, made, entry.ErrMAC},
		{"stream removed", "POST", connectPath, split[:entry.TokenLength], made, entry.ErrMAC},
		{"stream added", "POST", connectPath, plain + "." + st, made, entry.ErrMAC},
		{"other stream", "POST", connectPath, split[:entry.TokenLength] + "." + entry.Stream{Op: entry.OpUp, Offset: 8}.String(), made, entry.ErrMAC},
		{"bit flipped", "POST", connectPath, string(flipped), made, entry.ErrMAC},
		{"other master", "POST", connectPath, other, made, entry.ErrMAC},
		{"empty", "POST", connectPath, "", made, entry.ErrMalformed},
		{"short", "POST", connectPath, plain[1:], made, entry.ErrMalformed},
		{"long", "POST", connectPath, plain + "A", made, entry.ErrMalformed},
		{"standard base64", "POST", connectPath, strings.Replace(plain, "-", "+", 1), made, entry.ErrMalformed},
		{"line break", "POST", connectPath, "\n" + plain[1:], made, entry.ErrMalformed},
		{"bad op", "POST", connectPath, plain + "." + entry.Stream{Op: 4}.String(), made, entry.ErrMalformed},
		{"stray bits", "POST", connectPath, plain + "." + st[:len(st)-1] + "B", made, entry.ErrMalformed},
		{"dot elsewhere", "POST", connectPath, plain[:20] + "." + plain[20:] + st, made, entry.ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, err := verifier(tt.now).Verify(tt.method, tt.path, tt.value); !errors.Is(err, tt.want) {
				t.Errorf("Verify = %v, want %v", err, tt.want)
			}
		})
	}
}

func TestReplay(t *testing.T) {
	now := made
	v := entry.NewVerifier(func() [][]byte { return [][]byte{master} }, func() time.Time { return now })
	c := entry.Derive(master, exampleID(t))
	// The token is from the future, so it stays good for the longest time.
	token := c.Token("POST", connectPath, "", made.Add(entry.MaxSkew), rand.Reader)
	if _, _, err := v.Verify("POST", connectPath, token); err != nil {
		t.Fatal(err)
	}
	for _, later := range []time.Duration{0, time.Second, 120 * time.Second, 240 * time.Second} {
		now = made.Add(later)
		if _, _, err := v.Verify("POST", connectPath, token); !errors.Is(err, entry.ErrReplay) {
			t.Errorf("after %v: %v", later, err)
		}
		// Traffic turns the generations.
		if _, _, err := v.Verify("POST", connectPath, c.Token("POST", connectPath, "", now, rand.Reader)); err != nil {
			t.Fatal(err)
		}
	}
	now = made.Add(241 * time.Second)
	if _, _, err := v.Verify("POST", connectPath, token); !errors.Is(err, entry.ErrClock) {
		t.Errorf("at the end: %v", err)
	}
}

func TestNonceMemoryIsBounded(t *testing.T) {
	v := verifier(made)
	c := entry.Derive(master, exampleID(t))
	var n [8]byte
	var first, last string
	for i := range entry.NonceMemory + 1 {
		binary.BigEndian.PutUint64(n[:], uint64(i))
		last = c.Token("POST", connectPath, "", made, bytes.NewReader(n[:]))
		if i == 0 {
			first = last
		}
		if _, _, err := v.Verify("POST", connectPath, last); err != nil {
			t.Fatal(i, err)
		}
	}
	if v.Skipped() != 1 {
		t.Errorf("skipped %d", v.Skipped())
	}
	if _, _, err := v.Verify("POST", connectPath, first); !errors.Is(err, entry.ErrReplay) {
		t.Errorf("first: %v", err)
	}
	if _, _, err := v.Verify("POST", connectPath, last); err != nil {
		t.Errorf("beyond the memory: %v", err)
	}
}

func TestNew(t *testing.T) {
	c := entry.New(master, made, rand.Reader)
	if !c.Expires().Equal(made) || c != entry.Derive(master, c.ID) {
		t.Fatalf("%v", c)
	}
	for name, bad := range map[string]entry.Credential{
		"short master":  entry.New(master[:31], made, rand.Reader),
		"late expiry":   entry.New(master, time.Unix(1<<32, 0), rand.Reader),
		"no randomness": entry.New(master, made, bytes.NewReader(nil)),
	} {
		if bad != (entry.Credential{}) {
			t.Errorf("%s accepted", name)
		}
	}
	if got := c.Token("POST", "/", "", made, bytes.NewReader(nil)); got != "" {
		t.Errorf("token without nonce: %q", got)
	}
	for _, text := range []string{c.String(), fmt.Sprintf("%v %+v %#v", c, c, c), c.LogValue().String()} {
		if strings.Contains(text, hex.EncodeToString(c.Key[:])) || strings.Contains(text, fmt.Sprint(c.Key)) {
			t.Errorf("key shown in %q", text)
		}
	}
}

func FuzzStream(f *testing.F) {
	f.Add(entry.Stream{Op: entry.OpUp, Offset: 4096}.String())
	f.Add("AaChoqOkpaanqKmqq6ytrq8AAAAAAAAQAA")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := entry.ParseStream(text)
		if err == nil && s.String() != text {
			t.Errorf("%q parsed and became %q", text, s.String())
		}
	})
}

func FuzzVerify(f *testing.F) {
	c := entry.Derive(master, exampleID(f))
	f.Add(c.Token("POST", connectPath, "", made, bytes.NewReader(nonce)))
	f.Add(c.Token("POST", connectPath, entry.Stream{Op: entry.OpUp}.String(), made, bytes.NewReader(nonce)))
	f.Fuzz(func(t *testing.T, value string) {
		s, has, err := verifier(made).Verify("POST", connectPath, value)
		if err != nil {
			return
		}
		if has != strings.Contains(value, ".") || has && !strings.HasSuffix(value, s.String()) {
			t.Errorf("%q: %v %v", value, s, has)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	v := verifier(made)
	c := entry.Derive(master, exampleID(b))
	value := c.Token("POST", connectPath, "", made, rand.Reader)
	b.ReportAllocs()
	for b.Loop() {
		_, _, _ = v.Verify("POST", connectPath, value)
	}
}

func Example() {
	master := bytes.Repeat([]byte{7}, 32)
	now := time.Unix(1_800_000_000, 0)
	verifier := entry.NewVerifier(func() [][]byte { return [][]byte{master} }, func() time.Time { return now })

	credential := entry.New(master, now.Add(24*time.Hour), rand.Reader)
	value := credential.Token("POST", "/app/sync", "", now, rand.Reader)

	_, _, err := verifier.Verify("POST", "/app/sync", value)
	fmt.Println(err)
	_, _, err = verifier.Verify("POST", "/app/sync", value)
	fmt.Println(err)
	// Output:
	// <nil>
	// entry: token seen before
}
