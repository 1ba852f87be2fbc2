package keyring

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/entry"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/noise"
)

const day = 24 * time.Hour

type clock struct{ now time.Time }

func (c *clock) time() time.Time     { return c.now }
func (c *clock) add(d time.Duration) { c.now = c.now.Add(d) }

func options(c *clock) Options {
	return Options{Domain: "relay.example", Clock: c.time, Features: ccp.AllCapabilities, Min: ccp.Ack}
}

func mustOpen(t *testing.T, dir string, opt Options) *Ring {
	t.Helper()
	r, _, err := Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func start() *clock { return &clock{time.Unix(1.8e9, 0).UTC()} }

func content(t *testing.T, r *Ring) link.Catalogue {
	t.Helper()
	var s link.Signed
	if err := json.Unmarshal(r.Catalogue(), &s); err != nil {
		t.Fatal(err)
	}
	root := r.RootPublic()
	c, err := link.OpenCatalogue(s, ed25519.PublicKey(root[:]))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestW39FirstStartAndNext(t *testing.T) {
	c, dir := start(), filepath.Join(t.TempDir(), "data", "keys")
	r, changes, err := Open(dir, options(c))
	if err != nil {
		t.Fatal(err)
	}
	var made []string
	for _, x := range changes {
		made = append(made, x.What)
	}
	if got := strings.Join(made, " "); got != "root ca storage audit noise entry catalogue" {
		t.Errorf("made %s", got)
	}
	if _, _, _, err := r.SelfSigned(); err != nil {
		t.Fatal(err)
	}
	st, _ := os.Stat(dir)
	if st.Mode().Perm() != 0o700 {
		t.Errorf("folder %v", st.Mode())
	}
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		if info, _ := f.Info(); info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", f.Name(), info.Mode())
		}
	}
	if len(files) != 9 {
		t.Errorf("files %v", files)
	}
	again, changes, err := Open(dir, options(c))
	if err != nil || len(changes) != 0 {
		t.Fatalf("%v %v", changes, err)
	}
	if again.RootPublic() != r.RootPublic() || again.CA().Public() != r.CA().Public() || again.StorageKey() != r.StorageKey() ||
		again.AuditKey() != r.AuditKey() || again.NoiseKeys()[0].Pair != r.NoiseKeys()[0].Pair || !bytes.Equal(again.Catalogue(), r.Catalogue()) ||
		!bytes.Equal(again.EntryMasters()[0], r.EntryMasters()[0]) {
		t.Error("keys differ after a restart")
	}
	keys := [][]byte{r.Root().Seed(), r.EntryMasters()[0], again.NoiseKeys()[0].Pair.Private[:]}
	for _, k := range [][32]byte{r.StorageKey(), r.AuditKey()} {
		keys = append(keys, k[:])
	}
	for i, a := range keys {
		for _, b := range keys[:i] {
			if bytes.Equal(a, b) {
				t.Error("two keys are the same")
			}
		}
	}
}

// TestDamage: each kind of damage has one clear error that names the file and
// shows nothing of it.
func TestDamage(t *testing.T) {
	files := []string{"root", "ca", "storage", "audit", "noise.json", "entry.json", "tls.key"}
	for _, tc := range []struct {
		name, want string
		files      []string
		do         func(path string) error
	}{
		{"missing", "is missing", files[:6], os.Remove},
		{"empty", "is damaged", files, func(p string) error { return os.WriteFile(p, nil, 0o600) }},
		{"cut", "is damaged", files, func(p string) error { return os.Truncate(p, 40) }},
		{"junk", "is damaged", files, func(p string) error { return os.WriteFile(p, []byte("{}x"), 0o600) }},
		{"empty object", "is damaged", files[4:5], func(p string) error { return os.WriteFile(p, []byte("{}"), 0o600) }},
		{"one digit turned", "is damaged", files[:6], turnDigit},
		{"huge", "is damaged", files, func(p string) error { return os.WriteFile(p, make([]byte, 1<<20), 0o600) }},
		{"open to the group", "chmod 600", files, func(p string) error { return os.Chmod(p, 0o640) }},
		{"a folder", "not a regular file", files, func(p string) error {
			if err := os.Remove(p); err != nil {
				return err
			}
			return os.Mkdir(p, 0o700)
		}},
		{"a link", "not a regular file", files, func(p string) error {
			if err := os.Rename(p, p+".real"); err != nil {
				return err
			}
			return os.Symlink(p+".real", p)
		}},
	} {
		for _, file := range tc.files {
			t.Run(tc.name+" "+file, func(t *testing.T) {
				c, dir := start(), filepath.Join(t.TempDir(), "keys")
				r := mustOpen(t, dir, options(c))
				if _, _, _, err := r.SelfSigned(); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(dir, file)
				secret, _ := os.ReadFile(path)
				if err := tc.do(path); err != nil {
					t.Fatal(err)
				}
				r, _, err := Open(dir, options(c))
				if err == nil {
					_, _, _, err = r.SelfSigned()
				}
				if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") {
					t.Fatalf("got %v", err)
				}
				if len(secret) > 20 && strings.Contains(err.Error(), string(secret[:20])) {
					t.Errorf("the error shows the key: %v", err)
				}
			})
		}
	}
}

// turnDigit changes one hex digit of the first secret in a file.
func turnDigit(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	run := 0
	for i, c := range b {
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'f' {
			run++
		} else {
			run = 0
		}
		if run == 64 {
			b[i] = "10"[b[i]&1]
			if c == b[i] {
				b[i] ^= 1
			}
			return os.WriteFile(path, b, 0o600)
		}
	}
	return errors.New("no secret found")
}

func TestFolderErrors(t *testing.T) {
	c := start()
	open := filepath.Join(t.TempDir(), "keys")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(open, options(c)); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("open folder: %v", err)
	}
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(file, options(c)); err == nil {
		t.Error("a file was taken for a folder")
	}
	if _, _, err := Open(t.TempDir(), Options{}); err == nil {
		t.Error("no domain")
	}
	if os.Geteuid() != 0 {
		return
	}
	dir := filepath.Join(t.TempDir(), "keys")
	mustOpen(t, dir, options(c))
	if err := os.Chown(filepath.Join(dir, "ca"), 4321, -1); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(dir, options(c)); err == nil || !strings.Contains(err.Error(), "another user") {
		t.Errorf("foreign file: %v", err)
	}
}

// TestCrashDuringTheFirstStart: what was begun is completed, with the keys that
// were there.
func TestCrashDuringTheFirstStart(t *testing.T) {
	c, dir := start(), filepath.Join(t.TempDir(), "keys")
	r := mustOpen(t, dir, options(c))
	for _, f := range []string{"storage", "noise.json", "entry.json", "catalogue"} {
		if err := os.Remove(filepath.Join(dir, f)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, beginFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again := mustOpen(t, dir, options(c))
	if again.RootPublic() != r.RootPublic() || again.StorageKey() == r.StorageKey() {
		t.Error("not completed")
	}
	if _, err := os.Lstat(filepath.Join(dir, beginFile)); !errors.Is(err, os.ErrNotExist) {
		t.Error("the mark stayed")
	}
}

func TestNoiseRotation(t *testing.T) {
	c, dir := start(), filepath.Join(t.TempDir(), "keys")
	r := mustOpen(t, dir, options(c))
	first := r.NoiseKeys()[0]
	serial := content(t, r).Serial
	for month := 1; month <= 12; month++ {
		c.add(30*day + time.Hour)
		changes, err := r.Rotate()
		if err != nil || len(changes) == 0 || changes[0].What != "noise" {
			t.Fatalf("month %d: %v %v", month, changes, err)
		}
		keys := r.NoiseKeys()
		if keys[0].Version != uint32(month+1) || len(keys) > maxNoiseKeys || len(keys) < 2 {
			t.Fatalf("month %d: %d keys, newest %d", month, len(keys), keys[0].Version)
		}
		cat := content(t, r)
		if cat.Serial <= serial || len(cat.Noise) != len(keys) || cat.Newest().Public != keys[0].Pair.Public || cat.Check("relay.example", c.now, serial) != nil {
			t.Fatalf("month %d: catalogue %+v", month, cat)
		}
		serial = cat.Serial
		if more, err := r.Rotate(); err != nil || len(more) != 0 {
			t.Fatalf("again: %v %v", more, err)
		}
	}
	for _, k := range r.NoiseKeys() {
		if k.Version == first.Version {
			t.Error("the first key is still accepted")
		}
	}
	if again := mustOpen(t, dir, options(c)); content(t, again).Serial != serial || again.NoiseKeys()[0].Version != 13 {
		t.Error("state is lost in a restart")
	}
}

// TestRenewKeepsEveryGrace: however often the operator asks for a new key, none that
// devices were promised ends early.
func TestRenewKeepsEveryGrace(t *testing.T) {
	for _, pinned := range []bool{false, true} {
		c, dir := start(), filepath.Join(t.TempDir(), "keys")
		o := options(c)
		o.Pinned = pinned
		r := mustOpen(t, dir, o)
		for range maxNoiseKeys - 1 {
			if _, err := r.Renew(); err != nil {
				t.Fatal(err)
			}
		}
		before := r.NoiseKeys()
		if changes, err := r.Renew(); !errors.Is(err, sdk.Conflict) || len(changes) != 0 {
			t.Errorf("a fourth key was made: %v %v", changes, err)
		}
		if after := mustOpen(t, dir, o).NoiseKeys(); !slices.EqualFunc(before, after, func(a, b NoiseKey) bool { return a.Version == b.Version }) {
			t.Errorf("pinned %t: %v became %v", pinned, before, after)
		}
		c.add(31 * day)
		if _, err := r.Renew(); err != nil {
			t.Errorf("after the grace: %v", err)
		}
	}
}

// TestW29ExpiryIsCheckedOnUse: an expired key is not given out, even when no
// rotation ran since.
func TestW29ExpiryIsCheckedOnUse(t *testing.T) {
	c := start()
	r := mustOpen(t, filepath.Join(t.TempDir(), "keys"), options(c))
	c.add(31 * day)
	if _, err := r.Rotate(); err != nil {
		t.Fatal(err)
	}
	if n := len(r.NoiseKeys()); n != 2 {
		t.Fatalf("%d keys", n)
	}
	c.add(29 * day)
	if n := len(r.NoiseKeys()); n != 2 {
		t.Errorf("%d keys during grace", n)
	}
	c.add(2 * day)
	if k := r.NoiseKeys(); len(k) != 1 || k[0].Version != 2 {
		t.Errorf("%v after grace", k)
	}
	c.add(1000 * day)
	if k := r.NoiseKeys(); len(k) != 1 {
		t.Error("no key at all")
	}
}

// TestW02PinnedKey: with compat.pinned_keys the first key is accepted for ever,
// and ends after the switch is off.
func TestW02PinnedKey(t *testing.T) {
	c, dir := start(), filepath.Join(t.TempDir(), "keys")
	opt := options(c)
	opt.Pinned = true
	r := mustOpen(t, dir, opt)
	first := r.NoiseKeys()[0].Pair.Public
	for range 24 {
		c.add(31 * day)
		if _, err := r.Rotate(); err != nil {
			t.Fatal(err)
		}
		keys := r.NoiseKeys()
		if len(keys) > maxNoiseKeys || keys[len(keys)-1].Pair.Public != first {
			t.Fatalf("%d keys, the first is not among them", len(keys))
		}
		if _, err := r.Rotate(); err != nil {
			t.Fatal(err)
		}
	}
	opt.Pinned = false
	r = mustOpen(t, dir, opt)
	c.add(61 * day)
	if _, err := r.Rotate(); err != nil {
		t.Fatal(err)
	}
	for _, k := range r.NoiseKeys() {
		if k.Pair.Public == first {
			t.Error("still pinned")
		}
	}
}

func TestCatalogueSerialNeverFalls(t *testing.T) {
	c, dir := start(), filepath.Join(t.TempDir(), "keys")
	before := content(t, mustOpen(t, dir, options(c))).Serial
	opt := options(c)
	for i := range 5 {
		opt.Min = ccp.Capabilities(i)
		if s := content(t, mustOpen(t, dir, opt)).Serial; s <= before && i > 0 {
			t.Fatalf("serial %d after %d", s, before)
		} else {
			before = s
		}
	}
	if err := os.Remove(filepath.Join(dir, "catalogue")); err != nil {
		t.Fatal(err)
	}
	c.add(time.Minute)
	if s := content(t, mustOpen(t, dir, opt)).Serial; s <= before {
		t.Errorf("serial %d after %d", s, before)
	}
}

// TestEntryMasters: a credential made on any day is accepted for its 60 days.
func TestEntryMasters(t *testing.T) {
	c := start()
	r := mustOpen(t, filepath.Join(t.TempDir(), "keys"), options(c))
	verifier := entry.NewVerifier(r.EntryMasters, c.time)
	type held struct {
		cred  entry.Credential
		until time.Time
	}
	var creds []held
	for range 60 {
		until := c.now.Add(60 * day)
		creds = append(creds, held{r.NewEntry(until), until})
		c.add(5 * day)
		if _, err := r.Rotate(); err != nil {
			t.Fatal(err)
		}
		if n := len(r.EntryMasters()); n > 3 {
			t.Fatalf("%d masters", n)
		}
		for _, h := range creds {
			_, _, err := verifier.Verify("GET", "/x", h.cred.Token("GET", "/x", "", c.now, nonces{}))
			if live := c.now.Before(h.until); live && err != nil && !errors.Is(err, entry.ErrReplay) {
				t.Fatalf("live credential: %v", err)
			} else if !live && err == nil {
				t.Fatal("dead credential accepted")
			}
		}
	}
}

// nonces is a source that never repeats in a test.
type nonces struct{}

func (nonces) Read(b []byte) (int, error) {
	sum := sha256.Sum256([]byte(time.Now().String()))
	return copy(b, sum[:]), nil
}

// TestSelfSigned: P-256, the domain and nothing else, the same key for ever.
func TestSelfSigned(t *testing.T) {
	c, dir := start(), filepath.Join(t.TempDir(), "keys")
	r := mustOpen(t, dir, options(c))
	cert, key, pin, err := r.SelfSigned()
	if err != nil {
		t.Fatal(err)
	}
	load := func() *tls.Certificate {
		p, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return &p
	}
	p := load()
	leaf := p.Leaf
	if k, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || k.Params().BitSize != 256 {
		t.Errorf("key %T", leaf.PublicKey)
	}
	if len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != "relay.example" || len(leaf.Subject.Organization) != 0 || len(leaf.IPAddresses) != 0 ||
		len(leaf.EmailAddresses) != 0 || strings.Contains(strings.ToLower(string(leaf.Raw)), "commu") {
		t.Errorf("subject %v names %v", leaf.Subject, leaf.DNSNames)
	}
	if pin != sha256.Sum256(leaf.RawSubjectPublicKeyInfo) {
		t.Error("pin")
	}
	c.add(380 * day)
	if _, _, again, err := r.SelfSigned(); err != nil || again != pin {
		t.Errorf("%v", err)
	}
	if n := load().Leaf; !n.NotAfter.After(c.now.Add(300 * day)) {
		t.Errorf("not renewed: %v", n.NotAfter)
	}
	opt := options(c)
	opt.Domain = "192.0.2.7"
	if _, _, again, err := mustOpen(t, dir, opt).SelfSigned(); err != nil || again != pin {
		t.Errorf("%v", err)
	}
	if n := load().Leaf; len(n.IPAddresses) != 1 || len(n.DNSNames) != 0 {
		t.Errorf("names %v %v", n.IPAddresses, n.DNSNames)
	}
	if path, err := exec.LookPath("openssl"); err == nil {
		out, err := exec.Command(path, "x509", "-in", cert, "-noout", "-text").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "prime256v1") {
			t.Errorf("%s %v", out, err)
		}
	}
}

func TestImport(t *testing.T) {
	c := start()
	opt := options(c)
	ca, static := [32]byte{1, 2, 3}, [32]byte{4, 5, 6}
	opt.Import = Import{CA: &ca, Noise: &static}
	dir := filepath.Join(t.TempDir(), "keys")
	r := mustOpen(t, dir, opt)
	want, _ := identity.NewCA(ca[:])
	if r.CA().Public() != want.Public() || r.NoiseKeys()[0].Pair.Public != noise.KeyPairFrom(static).Public {
		t.Error("keys were not taken over")
	}
	other := [32]byte{9}
	opt.Import = Import{CA: &other, Noise: &other}
	if again := mustOpen(t, dir, opt); again.CA().Public() != want.Public() {
		t.Error("an import replaced a key")
	}
}

// TestT60NothingSecretIsPrinted: no way of printing shows a key.
func TestT60NothingSecretIsPrinted(t *testing.T) {
	r := mustOpen(t, filepath.Join(t.TempDir(), "keys"), options(start()))
	var b bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&b, nil))
	log.Info("x", "ring", r, "noise", r.NoiseKeys()[0].Pair)
	fmt.Fprintf(&b, "%v %+v %#v %s %x %v", r, r, r, r, r, r.NoiseKeys())
	storage, audit := r.StorageKey(), r.AuditKey()
	static := r.NoiseKeys()[0].Pair.Private
	for _, k := range [][]byte{r.Root().Seed(), r.EntryMasters()[0], storage[:], audit[:], static[:]} {
		if strings.Contains(b.String(), hex.EncodeToString(k)) || strings.Contains(b.String(), fmt.Sprint(k)) {
			t.Errorf("a key is shown:\n%s", &b)
		}
	}
	if root := r.RootPublic(); !strings.Contains(b.String(), hex.EncodeToString(root[:8])) {
		t.Error("the root's public key is not shown")
	}
}

// TestUnwritable: a failed write keeps the old state in use.
func TestUnwritable(t *testing.T) {
	c, dir := start(), filepath.Join(t.TempDir(), "keys")
	r := mustOpen(t, dir, options(c))
	before := r.NoiseKeys()[0].Version
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	c.add(31 * day)
	if _, err := r.Rotate(); err == nil || !strings.Contains(err.Error(), "cannot be written") {
		t.Errorf("got %v", err)
	}
	if r.NoiseKeys()[0].Version != before {
		t.Error("a key that was not stored is in use")
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Rotate(); err != nil || r.NoiseKeys()[0].Version != before+1 {
		t.Errorf("afterwards: %v", err)
	}
}

func FuzzNoiseFile(f *testing.F) {
	f.Add([]byte(`{"keys":[{"version":1,"private":"00","check":"","valid_after":"2024-01-01T00:00:00Z"}]}`))
	f.Add([]byte(`{"keys":null}`))
	dir := f.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &Ring{opt: Options{Clock: time.Now}, dir: folder(dir)}
		if err := os.WriteFile(filepath.Join(dir, "noise.json"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := r.loadNoise(false); err == nil && len(*r.noise.Load()) == 0 {
			t.Fatal("no key and no error")
		}
	})
}
