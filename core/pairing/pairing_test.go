package pairing_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/account/accounttest"
	"github.com/commucat/commucat/core/pairing"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
)

type world struct {
	*pairing.Codes
	accounts *account.Store
	dir      *accounttest.Directory
	user     account.User
	mu       sync.Mutex
	at       time.Time
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = w.at.Add(d)
}

func newWorld(t *testing.T, short bool) *world {
	t.Helper()
	ca, err := identity.NewCA([]byte(strings.Repeat("c", 32)))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{dir: &accounttest.Directory{}, at: time.Unix(1_800_000_000, 0)}
	w.accounts = account.New(w.dir, account.Options{
		Domain: "relay.example", Clock: w.now, CA: func() identity.CA { return ca }, Registration: account.Open,
	})
	w.Codes = pairing.New(pairing.Options{Accounts: w.accounts, Directory: w.dir, ShortCodes: short, Clock: w.now})
	g, err := w.accounts.Establish(context.Background(), account.Request{
		Device: "dev-a", Public: newKey(t), User: account.Hint{Handle: "alice"},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.user = g.User
	return w
}

func newKey(t *testing.T) [32]byte {
	t.Helper()
	d, err := identity.GenerateDevice(nil)
	if err != nil {
		t.Fatal(err)
	}
	return d.Public()
}

func TestLinkCode(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, false)
	code, err := w.Create(ctx, w.user.ID, "dev-a", 0)
	if err != nil || code.Expires.Sub(code.Issued) != 5*time.Minute {
		t.Fatalf("%+v, %v", code, err)
	}
	if strings.Contains(w.dir.Dump(), fmt.Sprintf("%x", code.Secret)) {
		t.Error("the code is stored in clear")
	}
	// Two devices race for one code: one wins.
	errs, keys := make([]error, 2), [][32]byte{newKey(t), newKey(t)}
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = w.accounts.Establish(ctx, account.Request{Device: fmt.Sprint("dev-", i), Public: keys[i], Pair: code.Secret[:]})
		})
	}
	wg.Wait()
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Fatalf("want one winner: %v", errs)
	}
	if !errors.Is(errors.Join(errs...), &account.Error{Code: ccp.CodePairingInvalid}) {
		t.Error(errs)
	}
	revoked, err := w.Create(ctx, w.user.ID, "dev-a", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Revoke(ctx, revoked.ID); err != nil {
		t.Fatal(err)
	}
	_, err = w.accounts.Establish(ctx, account.Request{Device: "dev-9", Public: newKey(t), Pair: revoked.Secret[:]})
	if !errors.Is(err, &account.Error{Code: ccp.CodePairingInvalid}) {
		t.Errorf("revoked code: %v", err)
	}
	if _, err := w.Create(ctx, w.user.ID, "dev-unknown", 0); !errors.Is(err, account.ErrNotFound) {
		t.Errorf("unknown issuer: %v", err)
	}
	if _, err := w.CreateShort(ctx, w.user.ID, "dev-a", 0); !errors.Is(err, pairing.ErrShortCodes) {
		t.Errorf("short codes are off: %v", err)
	}
}

// TestW23ShortCode is W23 and API W-09.
func TestW23ShortCode(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, true)
	code, err := w.CreateShort(ctx, w.user.ID, "dev-a", 10*time.Second)
	if err != nil || len(code.Text) != 9 || code.Text[4] != '-' || code.Life != time.Minute {
		t.Fatalf("%+v, %v", code, err)
	}
	if strings.Contains(w.dir.Dump(), code.Text) || strings.Contains(w.dir.Dump(), code.Text[5:]+`"`) {
		t.Error("the code is stored in clear")
	}
	got, err := w.Claim(ctx, pairing.Claim{Code: " " + strings.ToLower(code.Text) + "\n", Name: "phone", Prefix: "p"})
	if err != nil {
		t.Fatal(err)
	}
	if got.Seed == nil || got.Key == nil || got.Key.Public() != got.Device.Public || got.Issuer != "dev-a" || len(got.Device.ID) != 64 {
		t.Errorf("claimed %+v", got)
	}
	if d, err := identity.DeriveDevice(got.Seed[:]); err != nil || d != *got.Key {
		t.Errorf("the seed does not give the key: %v", err)
	}
	dump := w.dir.Dump()
	if strings.Contains(dump, fmt.Sprintf("%x", got.Key.Private)) || strings.Contains(dump, fmt.Sprintf("%x", *got.Seed)) {
		t.Error("a private key is stored")
	}
	if _, err := w.Claim(ctx, pairing.Claim{Code: code.Text, Prefix: "p"}); !errors.Is(err, pairing.ErrInvalid) {
		t.Errorf("second claim: %v", err)
	}
	own, err := w.CreateShort(ctx, w.user.ID, "dev-a", 0)
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	if got, err = w.Claim(ctx, pairing.Claim{Code: own.Text, Prefix: "p", Public: &key}); err != nil || got.Seed != nil || got.Device.Public != key {
		t.Errorf("claim with an own key: %+v, %v", got, err)
	}
}

// withoutVersions leaves out the versions of a dump of records.
func withoutVersions(dump string) string {
	return regexp.MustCompile(`" v[0-9]+ `).ReplaceAllString(dump, `" `)
}

// TestW23Guessing is W23 and API W-08: 5 tries a code, 5 a minute a prefix, 60 a minute in all, and
// every failure looks the same.
func TestW23Guessing(t *testing.T) {
	ctx := context.Background()
	wrong := func(code string) string {
		last := byte('A')
		if code[8] == 'A' {
			last = 'B'
		}
		return code[:8] + string(last)
	}
	t.Run("a code", func(t *testing.T) {
		w := newWorld(t, true)
		code, err := w.CreateShort(ctx, w.user.ID, "dev-a", 0)
		if err != nil {
			t.Fatal(err)
		}
		for i := range pairing.TriesPerCode {
			if _, err := w.Claim(ctx, pairing.Claim{Code: wrong(code.Text), Prefix: fmt.Sprint(i)}); !errors.Is(err, pairing.ErrInvalid) {
				t.Fatal(err)
			}
		}
		// One more leaves the record that all tries at dead codes share.
		if _, err := w.Claim(ctx, pairing.Claim{Code: wrong(code.Text), Prefix: "one more"}); !errors.Is(err, pairing.ErrInvalid) {
			t.Fatal(err)
		}
		before := withoutVersions(w.dir.Dump())
		if _, err := w.Claim(ctx, pairing.Claim{Code: code.Text, Prefix: "honest"}); !errors.Is(err, pairing.ErrInvalid) {
			t.Errorf("a code with five wrong guesses still works: %v", err)
		}
		if diff := cmp.Diff(before, withoutVersions(w.dir.Dump())); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a prefix", func(t *testing.T) {
		w := newWorld(t, true)
		code, err := w.CreateShort(ctx, w.user.ID, "dev-a", 0)
		if err != nil {
			t.Fatal(err)
		}
		var throttled *pairing.Throttled
		for i := range 11 {
			_, err := w.Claim(ctx, pairing.Claim{Code: "AAAA-AAAA", Prefix: "p"})
			if i < 5 && !errors.Is(err, pairing.ErrInvalid) || i >= 5 && !errors.As(err, &throttled) {
				t.Fatalf("try %d: %v", i, err)
			}
		}
		if throttled.After < time.Second || throttled.After > time.Minute {
			t.Errorf("wait %s", throttled.After)
		}
		if _, err := w.Claim(ctx, pairing.Claim{Code: code.Text, Prefix: "elsewhere"}); err != nil {
			t.Errorf("a right code elsewhere: %v", err)
		}
		w.pass(13 * time.Second)
		if _, err := w.Claim(ctx, pairing.Claim{Code: "AAAA-AAAA", Prefix: "p"}); !errors.Is(err, pairing.ErrInvalid) {
			t.Errorf("after a while: %v", err)
		}
	})
	t.Run("as configured", func(t *testing.T) {
		w := newWorld(t, true)
		w.Codes = pairing.New(pairing.Options{
			Accounts: w.accounts, Directory: w.dir, ShortCodes: true, Tries: 1, PerPrefix: 2, PerMinute: 3, Clock: w.now,
		})
		code, err := w.CreateShort(ctx, w.user.ID, "dev-a", 0)
		if err != nil {
			t.Fatal(err)
		}
		for i, try := range []struct {
			text, prefix string
			throttled    bool
		}{{wrong(code.Text), "p", false}, {code.Text, "p", false}, {code.Text, "p", true}, {code.Text, "q", false}, {code.Text, "r", true}} {
			var throttled *pairing.Throttled
			_, err := w.Claim(ctx, pairing.Claim{Code: try.text, Prefix: try.prefix})
			if errors.As(err, &throttled) != try.throttled || !try.throttled && !errors.Is(err, pairing.ErrInvalid) {
				t.Errorf("try %d: %v", i+1, err)
			}
		}
	})
	t.Run("all", func(t *testing.T) {
		w := newWorld(t, true)
		refused := 0
		for i := range 100 {
			var throttled *pairing.Throttled
			if _, err := w.Claim(ctx, pairing.Claim{Code: "AAAA-AAAA", Prefix: fmt.Sprint(i)}); errors.As(err, &throttled) {
				refused++
			}
		}
		if refused != 40 {
			t.Errorf("%d refused, want 40", refused)
		}
	})
	t.Run("looks", func(t *testing.T) {
		w := newWorld(t, true)
		code, err := w.CreateShort(ctx, w.user.ID, "dev-a", 0)
		if err != nil {
			t.Fatal(err)
		}
		w.pass(5 * time.Minute)
		for i, c := range []string{"", "x", code.Text, "IIII-0000", strings.ReplaceAll(code.Text, "-", ""), strings.Repeat("A", 5000)} {
			if _, err := w.Claim(ctx, pairing.Claim{Code: c, Prefix: fmt.Sprint(i)}); err != pairing.ErrInvalid {
				t.Errorf("%.12q: %v", c, err)
			}
		}
	})
}

func TestParallelGuessesAreAllCounted(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, true)
	code, err := w.CreateShort(ctx, w.user.ID, "dev-a", 0)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			_, err := w.Claim(ctx, pairing.Claim{Code: code.Text[:5] + "ZZZZ", Prefix: fmt.Sprint(i)})
			if err == nil && code.Text[5:] != "ZZZZ" {
				t.Error("a wrong code was accepted")
			}
		})
	}
	wg.Wait()
	if !strings.Contains(w.dir.Dump(), `"tries":5`) {
		t.Errorf("tries are not at their limit:\n%s", w.dir.Dump())
	}
}

func TestStolenTableOpensNothing(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, true)
	code, err := w.CreateShort(ctx, w.user.ID, "dev-a", 0)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(w.dir.Dump(), "\n") {
		if strings.HasPrefix(line, "pair-short") && strings.Contains(line, code.Text[5:9]) {
			t.Error("the second half of the code is stored")
		}
	}
}

// TestTriesCostTheSame: what a wrong try asks of the storage does not tell whether a code
// with that first half is live.
func TestTriesCostTheSame(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, true)
	code, err := w.CreateShort(ctx, w.user.ID, "dev-a", 0)
	if err != nil {
		t.Fatal(err)
	}
	second := "AAAA"
	if strings.HasSuffix(code.Text, second) {
		second = "BBBB"
	}
	wrong := code.Text[:5] + second
	other := "ABCD-" + second
	if strings.HasPrefix(code.Text, "ABCD") {
		other = "BCDE-" + second
	}
	var calls []string
	w.dir.Fail = func(op string) error { calls = append(calls, op); return nil }
	for n := range 8 { // more than the tries of a code
		for name, text := range map[string]string{"live": wrong, "not live": other, "malformed": "nonsense"} {
			w.pass(time.Minute / 8)
			calls = nil
			if _, err := w.Redeem(ctx, text, fmt.Sprint("prefix", n)); !errors.Is(err, pairing.ErrInvalid) {
				t.Fatalf("%s: %v", name, err)
			}
			if diff := cmp.Diff([]string{"get", "commit"}, calls); diff != "" {
				t.Errorf("try %d, %s: %s", n, name, diff)
			}
		}
	}
	w.dir.Fail = nil
	if n := w.dir.Count("pair-short"); n != 2 {
		t.Errorf("%d records, want the code and one for all other tries", n)
	}
}
