package account_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/account/accounttest"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
)

// world is a store with a clock that tests move.
type world struct {
	*account.Store
	dir     *accounttest.Directory
	ca      identity.CA
	mu      sync.Mutex
	at      time.Time
	changes []account.Change
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

func newCA(t testing.TB, seed byte) identity.CA {
	t.Helper()
	ca, err := identity.NewCA([]byte(strings.Repeat(string(rune(seed)), 32)))
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func newWorld(t testing.TB, opt account.Options) *world {
	t.Helper()
	w := &world{dir: &accounttest.Directory{}, at: time.Unix(1_800_000_000, 0).UTC(), ca: newCA(t, 'c')}
	opt.Domain, opt.Clock = "relay.example", w.now
	if opt.CA == nil {
		opt.CA = func() identity.CA { return w.ca }
	}
	w.Store = account.New(w.dir, opt)
	w.OnChange(func(c account.Change) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.changes = append(w.changes, c)
	})
	return w
}

func newKey(t testing.TB) [32]byte {
	t.Helper()
	d, err := identity.GenerateDevice(nil)
	if err != nil {
		t.Fatal(err)
	}
	return d.Public()
}

func (w *world) invite(t testing.TB, quota int) []byte {
	t.Helper()
	secret, _, err := w.CreateInvite(context.Background(), quota, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return secret[:]
}

// join registers a first device under a handle.
func (w *world) join(t testing.TB, handle, device string) (account.Grant, [32]byte) {
	t.Helper()
	key := newKey(t)
	g, err := w.Establish(context.Background(), account.Request{
		Device: device, Public: key, User: account.Hint{Handle: handle}, Invite: w.invite(t, 1),
		Capabilities: ccp.AllCapabilities, Session: "s-" + device,
	})
	if err != nil {
		t.Fatalf("join %s: %v", handle, err)
	}
	return g, key
}

// code makes a pairing code for the device's account.
func (w *world) code(t testing.TB, user, device string) []byte {
	t.Helper()
	secret := []byte(fmt.Sprintf("%016d", time.Now().UnixNano()%1e15))
	if err := w.CreatePair(context.Background(), user, device, account.PairID(secret), 5*time.Minute); err != nil {
		t.Fatal(err)
	}
	return secret
}

// wantCode checks a refusal, and that it has left no trace.
func (w *world) wantCode(t *testing.T, before string, err error, code string) {
	t.Helper()
	var e *account.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("got error %v, want code %s", err, code)
	}
	if diff := cmp.Diff(before, w.dir.Dump()); diff != "" {
		t.Errorf("a refusal changed the directory (-before +after):\n%s", diff)
	}
}

func TestRegisterIsOneCommit(t *testing.T) {
	w := newWorld(t, account.Options{})
	invite := w.invite(t, 2)
	before := w.dir.Commits()
	key := newKey(t)
	g, err := w.Establish(context.Background(), account.Request{
		Device: "dev-a", Public: key, Invite: invite, Name: "phone", Session: "public-id",
		User:         account.Hint{Handle: "alice", DisplayName: "Alice", AvatarURL: "https://x.example/a.png"},
		Capabilities: ccp.AllCapabilities,
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := w.dir.Commits() - before; n != 1 {
		t.Errorf("%d commits, want 1", n)
	}
	if !g.NewUser || g.Action != "register" || g.Via != account.ViaInvite || g.User.DisplayName != "Alice" {
		t.Errorf("grant %+v", g)
	}
	if err := g.Certificate.Verify(w.ca.Public()); err != nil || g.Certificate.PublicKey != key {
		t.Errorf("certificate: %v", err)
	}
	b, err := w.Token(context.Background(), g.Token)
	if err != nil || b.Device.ID != "dev-a" || b.User.Handle != "alice" || b.Session != "public-id" {
		t.Errorf("bearer %+v, %v", b, err)
	}
	if strings.Contains(w.dir.Dump(), g.Token) {
		t.Error("the token is stored in clear")
	}
	inv, err := w.Invites(context.Background(), "", 10)
	if err != nil || len(inv) != 1 || inv[0].Used != 1 || inv[0].Quota != 2 {
		t.Errorf("invites %+v, %v", inv, err)
	}
	if len(w.changes) != 1 || w.changes[0].Kind != account.DeviceAdded || !w.changes[0].NewUser {
		t.Errorf("changes %+v", w.changes)
	}
	ev, err := w.KeyEvents(context.Background(), "dev-a")
	if err != nil || len(ev) != 1 || ev[0].Action != "register" || ev[0].Public != key {
		t.Errorf("events %+v, %v", ev, err)
	}
}

func TestKnownDeviceWritesOnlyAToken(t *testing.T) {
	w := newWorld(t, account.Options{})
	alice, key := w.join(t, "alice", "dev-a")
	commits := w.dir.Commits()
	cert := alice.Certificate
	g, err := w.Establish(context.Background(), account.Request{Device: "dev-a", Public: key, Certificate: &cert, Capabilities: ccp.AllCapabilities})
	if err != nil {
		t.Fatal(err)
	}
	if g.Action != "" || g.Renewed || g.Token == alice.Token {
		t.Errorf("grant %+v", g)
	}
	if n := w.dir.Commits() - commits; n != 1 || w.dir.Count("key-event") != 1 {
		t.Errorf("%d commits, %d key events", n, w.dir.Count("key-event"))
	}
	// A session taken up keeps its token.
	before := w.dir.Dump()
	h := account.HashToken(g.Token)
	r, err := w.Establish(context.Background(), account.Request{Device: "dev-a", Public: key, Keep: &h, Capabilities: ccp.AllCapabilities})
	if err != nil || r.Token != "" || r.TokenHash != h {
		t.Fatalf("resumed grant %+v, %v", r, err)
	}
	if diff := cmp.Diff(before, w.dir.Dump()); diff != "" {
		t.Errorf("taking up a session wrote:\n%s", diff)
	}
}

// TestW19Renewal is W19, API W-02 and section 8 of the extensions.
func TestW19Renewal(t *testing.T) {
	ctx := context.Background()
	day := 24 * time.Hour
	tests := []struct {
		name    string
		after   time.Duration
		newCA   bool
		renewed bool
		code    string
	}{
		{name: "fresh", after: day},
		{name: "made at a node whose clock is an hour ahead", after: -time.Hour},
		{name: "just over a third left", after: 19 * day},
		{name: "less than a third left", after: 21 * day, renewed: true},
		{name: "expired", after: 40 * day, renewed: true},
		{name: "expired for 89 days", after: 119 * day, renewed: true},
		{name: "expired for 90 days", after: 120 * day, code: ccp.CodeCertificateInvalid},
		{name: "authority changed", after: day, newCA: true, renewed: true},
	}
	for _, tt := range tests {
		for _, presented := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/presented=%t", tt.name, presented), func(t *testing.T) {
				old := newCA(t, 'o')
				w := newWorld(t, account.Options{TrustedCAs: func() [][32]byte { return [][32]byte{old.Public()} }})
				if tt.newCA {
					next := w.ca
					w.ca = old
					defer func() { w.ca = next }()
				}
				alice, key := w.join(t, "alice", "dev-a")
				if tt.newCA {
					w.ca = newCA(t, 'n')
				}
				w.pass(tt.after)
				req := account.Request{Device: "dev-a", Public: key, Capabilities: ccp.AllCapabilities}
				if presented {
					req.Certificate = &alice.Certificate
				}
				before := w.dir.Dump()
				g, err := w.Establish(ctx, req)
				if tt.code != "" {
					w.wantCode(t, before, err, tt.code)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if got := g.Certificate.Serial != alice.Certificate.Serial; got != tt.renewed {
					t.Errorf("renewed %t, want %t", got, tt.renewed)
				}
				if g.Renewed != (tt.renewed || !presented) {
					t.Errorf("to be sent %t", g.Renewed)
				}
			})
		}
	}
	t.Run("pairing mends a lapsed one", func(t *testing.T) {
		w := newWorld(t, account.Options{})
		alice, key := w.join(t, "alice", "dev-a")
		w.pass(200 * day)
		code := w.code(t, alice.User.ID, "")
		g, err := w.Establish(ctx, account.Request{Device: "dev-a", Public: key, Pair: code, Certificate: &alice.Certificate})
		if err != nil || g.Certificate.Serial == alice.Certificate.Serial {
			t.Fatalf("grant %+v, %v", g, err)
		}
	})
	t.Run("during the session", func(t *testing.T) {
		w := newWorld(t, account.Options{})
		alice, _ := w.join(t, "alice", "dev-a")
		if _, renewed, err := w.RenewCertificate(ctx, "dev-a"); err != nil || renewed {
			t.Fatalf("fresh certificate: renewed %t, %v", renewed, err)
		}
		w.at = account.CertificateDue(alice.Certificate)
		if _, renewed, err := w.RenewCertificate(ctx, "dev-a"); err != nil || !renewed {
			t.Fatalf("due certificate: renewed %t, %v", renewed, err)
		}
	})
	t.Run("for the noise key of an old client", func(t *testing.T) {
		w := newWorld(t, account.Options{})
		alice, key := w.join(t, "alice", "dev-a")
		static := newKey(t)
		c, err := w.ca.Issue(alice.User.ID, "dev-a", static, w.now(), time.Hour, nil)
		if err != nil {
			t.Fatal(err)
		}
		g, err := w.Establish(ctx, account.Request{Device: "dev-a", Public: key, ClientStatic: static, Certificate: &c})
		if err != nil || g.Certificate.PublicKey != key || !g.Renewed {
			t.Fatalf("grant %+v, %v", g, err)
		}
	})
}

func TestPairingAddsAndRecovers(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, account.Options{})
	alice, old := w.join(t, "alice", "dev-a")
	g, err := w.Establish(ctx, account.Request{Device: "dev-2", Public: newKey(t), Pair: w.code(t, alice.User.ID, "dev-a"), Name: "laptop"})
	if err != nil || g.User.ID != alice.User.ID || g.Device.Name != "laptop" || g.Via != account.ViaPairing {
		t.Fatalf("grant %+v, %v", g, err)
	}
	key := newKey(t)
	if g, err = w.Establish(ctx, account.Request{Device: "dev-a", Public: key, Pair: w.code(t, alice.User.ID, "dev-2")}); err != nil || g.Action != "rotate" {
		t.Fatalf("replacing a lost key: %+v, %v", g, err)
	}
	if _, err := w.Token(ctx, alice.Token); !errors.Is(err, account.ErrToken) {
		t.Errorf("token of the old key: %v", err)
	}
	before := w.dir.Dump()
	_, err = w.Establish(ctx, account.Request{Device: "dev-a", Public: old})
	w.wantCode(t, before, err, ccp.CodeKeyMismatch)
	code := w.code(t, alice.User.ID, "dev-2")
	before = w.dir.Dump()
	_, err = w.Establish(ctx, account.Request{Device: "dev-a", Public: old, Pair: code})
	w.wantCode(t, before, err, ccp.CodeKeyMismatch) // the old key is used up
	var kinds []account.ChangeKind
	for _, c := range w.changes {
		kinds = append(kinds, c.Kind)
	}
	if diff := cmp.Diff([]account.ChangeKind{account.DeviceAdded, account.DeviceAdded, account.DeviceRotated}, kinds); diff != "" {
		t.Error(diff)
	}
}

func TestDeviceLimit(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, account.Options{MaxDevices: 3})
	alice, _ := w.join(t, "alice", "dev-a")
	add := func(id string) error {
		_, err := w.Establish(ctx, account.Request{Device: id, Public: newKey(t), Pair: w.code(t, alice.User.ID, "")})
		return err
	}
	// Many at once: the limit holds in the race.
	var wg sync.WaitGroup
	errs := make([]error, 8)
	codes := make([][]byte, len(errs))
	keys := make([][32]byte, len(errs))
	for i := range errs {
		secret := []byte(fmt.Sprintf("race-%012d", i))
		codes[i], keys[i] = secret, newKey(t)
		if err := w.CreatePair(ctx, alice.User.ID, "", account.PairID(secret), time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = w.Establish(ctx, account.Request{Device: fmt.Sprintf("dev-%d", i), Public: keys[i], Pair: codes[i]})
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, &account.Error{Code: account.CodeDeviceLimit}) {
			t.Errorf("unexpected %v", err)
		}
	}
	if won != 2 {
		t.Errorf("%d devices joined, want 2", won)
	}
	if err := w.RevokeDevice(ctx, alice.User.ID, "dev-a"); err != nil {
		t.Fatal(err)
	}
	if err := add("dev-late"); err != nil {
		t.Errorf("after a revocation there is room: %v", err)
	}
	devices, err := w.Devices(ctx, alice.User.ID)
	if err != nil || len(devices) != 4 || devices[0].ID != "dev-a" || devices[0].Status != account.Revoked {
		t.Errorf("devices %+v, %v", devices, err)
	}
}

func TestInviteQuotaHoldsInARace(t *testing.T) {
	w := newWorld(t, account.Options{})
	invite := w.invite(t, 4)
	var wg sync.WaitGroup
	errs := make([]error, 16)
	keys := make([][32]byte, len(errs))
	for i := range keys {
		keys[i] = newKey(t)
	}
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = w.Establish(context.Background(), account.Request{
				Device: fmt.Sprintf("dev-%d", i), Public: keys[i], Invite: invite, User: account.Hint{Handle: fmt.Sprintf("user%d", i)},
			})
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, &account.Error{Code: ccp.CodeInviteInvalid}) {
			t.Errorf("unexpected %v", err)
		}
	}
	if won != 4 || w.dir.Count("user") != 4 {
		t.Errorf("%d registered, %d users; want 4", won, w.dir.Count("user"))
	}
}

// TestRevokeBetweenPlanAndCommit loses the race against a revocation by another node.
func TestRevokeBetweenPlanAndCommit(t *testing.T) {
	w := newWorld(t, account.Options{})
	_, key := w.join(t, "alice", "dev-a")
	other := account.New(w.dir, account.Options{Clock: w.now, CA: func() identity.CA { return w.ca }})
	w.dir.BeforeCommit = func() {
		w.dir.BeforeCommit = nil // the revocation commits as well
		if err := other.RevokeDevice(context.Background(), "", "dev-a"); err != nil {
			t.Error(err)
		}
	}
	_, err := w.Establish(context.Background(), account.Request{Device: "dev-a", Public: key})
	if !errors.Is(err, &account.Error{Code: ccp.CodeRevoked}) {
		t.Fatalf("got %v", err)
	}
}

func TestFailureWritesNothing(t *testing.T) {
	w := newWorld(t, account.Options{})
	invite := w.invite(t, 1)
	before := w.dir.Dump()
	w.dir.Fail = func(op string) error {
		if op == "commit" {
			return &sdk.Error{Kind: sdk.Unavailable, Text: "down"}
		}
		return nil
	}
	_, err := w.Establish(context.Background(), account.Request{Device: "dev-a", Public: newKey(t), Invite: invite, User: account.Hint{Handle: "alice"}})
	if !errors.Is(err, sdk.Unavailable) {
		t.Fatalf("got %v", err)
	}
	if diff := cmp.Diff(before, w.dir.Dump()); diff != "" || len(w.changes) != 0 {
		t.Errorf("traces: %s, changes %v", diff, w.changes)
	}
}

func TestFirstInvite(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, account.Options{})
	derive := func(created time.Time) (secret [16]byte) {
		binary.BigEndian.PutUint64(secret[:], uint64(created.UnixMicro()))
		return secret
	}
	first, secret, made, ok, err := w.FirstInvite(ctx, derive)
	if err != nil || !made || !ok || first.ID != account.InviteID(secret[:]) {
		t.Fatalf("made %t, %t, %v", made, ok, err)
	}
	if inv, err := w.Invites(ctx, "", 10); err != nil || len(inv) != 1 || inv[0] != first || first.Quota != 16 || !first.Expires.Equal(first.Created.Add(24*time.Hour)) {
		t.Fatalf("%+v, %+v, %v", inv, first, err)
	}
	found := func(what string, want bool) {
		t.Helper()
		again, same, made, ok, err := w.FirstInvite(ctx, derive)
		if err != nil || made || ok != want || want && (again.ID != first.ID || same != secret) {
			t.Fatalf("%s: made %t, found %t (%+v), %v", what, made, ok, again, err)
		}
	}
	found("after a restart", true)
	for range 600 { // beside many others
		if _, _, err := w.CreateInvite(ctx, 1, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 16 {
		found(fmt.Sprintf("%d accounts used", i), true)
		name := fmt.Sprintf("user%d", i)
		if _, err := w.Establish(ctx, account.Request{Device: "dev-" + name, Public: newKey(t), Invite: secret[:], User: account.Hint{Handle: name}}); err != nil {
			t.Fatal(err)
		}
	}
	found("spent", false)
	if err := w.RevokeInvite(ctx, first.ID); err != nil {
		t.Fatal(err)
	}
	found("revoked", false)
	found("with users", false)
}

func TestResolve(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, account.Options{})
	alice, _ := w.join(t, "alice", "dev-a")
	if _, err := w.Establish(ctx, account.Request{Device: "dev-2", Public: newKey(t), Pair: w.code(t, alice.User.ID, "")}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"dev-a": 1, "alice": 2, alice.User.ID: 2, "ALICE": 0, "nobody": 0, "": 0, strings.Repeat("x", 600): 0} {
		devices, user, err := w.Resolve(ctx, name)
		if want == 0 {
			if !errors.Is(err, account.ErrNotFound) {
				t.Errorf("%q: %v", name, err)
			}
			continue
		}
		if err != nil || len(devices) != want || user != alice.User.ID {
			t.Errorf("%q: %d devices of %q, %v", name, len(devices), user, err)
		}
	}
	if err := w.RevokeDevice(ctx, "", "dev-a"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Resolve(ctx, "dev-a"); !errors.Is(err, account.ErrNotFound) {
		t.Errorf("revoked device resolves: %v", err)
	}
	if devices, _, _ := w.Resolve(ctx, "alice"); len(devices) != 1 {
		t.Errorf("%d active devices", len(devices))
	}
}

func TestFriends(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, account.Options{})
	add := func(id string) error {
		_, err := w.UpdateFriends(ctx, "u1", func(l []account.Friend) ([]account.Friend, error) {
			return append(l, account.Friend{User: id}), nil
		})
		return err
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := add(fmt.Sprint("f", i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	list, err := w.Friends(ctx, "u1")
	if err != nil || len(list) != 8 {
		t.Fatalf("%d friends, %v", len(list), err)
	}
	if ok, err := w.IsFriend(ctx, "u1", "f3"); err != nil || !ok {
		t.Errorf("%t, %v", ok, err)
	}
	for _, bad := range []string{"f3", "", strings.Repeat("x", 300)} {
		if err := add(bad); !errors.Is(err, sdk.Invalid) {
			t.Errorf("%q accepted: %v", bad, err)
		}
	}
}

// TestAPIW14Handles is W-14 of the API sheet.
func TestAPIW14Handles(t *testing.T) {
	for h, ok := range map[string]bool{
		"alice": true, "Ålesund": true, "юлия": true, "a.b-c_d": true, "x": true, strings.Repeat("é", 64): true,
		strings.Repeat("\ufdfa", 15): true, strings.Repeat("\ufdfa", 16): false, // 33 bytes each when folded
		"": false, "a b": false, "a@b": false, "a\x00b": false, "a\u202eb": false, "a\u200bb": false, strings.Repeat("a", 65): false, "\xff": false,
	} {
		if err := account.CheckHandle(h); (err == nil) != ok {
			t.Errorf("CheckHandle(%q) = %v", h, err)
		}
	}
	for _, pair := range [][2]string{{"Alice", "aLICE"}, {"a-b", "a_b"}, {"ＡＬＩＣＥ", "alice"}, {"ſtraße", "straße"}, {"K", "k"}} {
		if account.Fold(pair[0]) != account.Fold(pair[1]) {
			t.Errorf("%q and %q do not fold together", pair[0], pair[1])
		}
	}
	if account.Fold("alice") == account.Fold("alicf") {
		t.Error("different handles fold together")
	}
}

func FuzzHandle(f *testing.F) {
	for _, s := range []string{"alice", "a@b", "Ａ-b_c.d", "\u200b", "İı", "ﬀ", strings.Repeat("\ufdfa", 20)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if account.CheckHandle(s) != nil {
			return
		}
		if k := account.Fold(s); k == "" || len(k) > 512 || account.Fold(k) != k {
			t.Errorf("Fold(%q) = %q is not stable", s, k)
		}
	})
}

func BenchmarkEstablishKnown(b *testing.B) {
	w := newWorld(b, account.Options{})
	g, key := w.join(b, "alice", "dev-a")
	req := account.Request{Device: "dev-a", Public: key, Certificate: &g.Certificate, Capabilities: ccp.AllCapabilities}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Establish(context.Background(), req); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDeviceCached(b *testing.B) {
	w := newWorld(b, account.Options{})
	w.join(b, "alice", "dev-a")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Device(context.Background(), "dev-a"); err != nil {
			b.Fatal(err)
		}
	}
}
