package plugintest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
	"pgregory.net/rapid"
)

var directoryCases = map[string]func(T, *storageKit){
	"get and commit":     directoryCommit,
	"all or nothing":     directoryAtomic,
	"versions grow":      directoryVersions,
	"expiry":             directoryExpiry,
	"list":               directoryList,
	"names":              directoryNames,
	"limits":             directoryLimits,
	"claim a code":       directoryClaim,
	"rotate a key":       directoryRotate,
	"put if absent":      directoryIdempotency,
	"invitation's quota": directoryQuota,
	"touch a session":    directoryTouch,
	"restart":            directoryRestart,
	"model":              directoryModel,
}

func key(kind, id string) storage.Key { return storage.Key{Kind: kind, ID: id} }

func commit(t testing.TB, s storage.Store, w ...storage.Write) {
	t.Helper()
	if err := s.Directory.Commit(t.Context(), epoch, w); err != nil {
		t.Fatalf("commit: %v", err)
	}
}

func get(t testing.TB, s storage.Store, now time.Time, k storage.Key) storage.Record {
	t.Helper()
	r, err := s.Directory.Get(t.Context(), now, []storage.Key{k})
	if err != nil || len(r) != 1 || r[0].Key != k {
		t.Fatalf("get: %+v %v", r, err)
	}
	return r[0]
}

func directoryCommit(t T, k *storageKit) {
	s, _ := k.fresh(t)
	a, b := key("user", "a"), key("device", "a")
	if r := get(t, s, epoch, a); r.Version != 0 || r.Value != nil {
		t.Fatalf("absent record: %+v", r)
	}
	commit(t, s)
	value := []byte("one")
	expires := epoch.Add(time.Hour)
	commit(t, s, storage.Write{Key: a, Value: value}, storage.Write{Key: b, Value: []byte{}, Expires: expires})
	clear(value)
	ra, rb := get(t, s, epoch, a), get(t, s, epoch, b)
	if ra.Version == 0 || string(ra.Value) != "one" || !ra.Expires.IsZero() {
		t.Fatalf("record: %+v", ra)
	}
	if rb.Version == 0 || rb.Value == nil || len(rb.Value) != 0 {
		t.Fatalf("an empty value is a value: %+v", rb)
	}
	if d := rb.Expires.Sub(expires); d < 0 && d > time.Second || d < -time.Microsecond {
		t.Fatalf("expires %v, want %v", rb.Expires, expires)
	}
	commit(t, s, storage.Write{Key: a, Expect: ra.Version, Value: []byte("two")}, storage.Write{Key: b, Expect: storage.AnyVersion})
	both, err := s.Directory.Get(t.Context(), epoch, []storage.Key{b, a, a})
	if err != nil || both[0].Version != 0 || string(both[1].Value) != "two" || both[2].Version <= ra.Version {
		t.Fatalf("after the second commit: %+v %v", both, err)
	}
	// Deleting what is absent is no error unless a version was expected.
	commit(t, s, storage.Write{Key: b, Expect: storage.AnyVersion}, storage.Write{Key: key("user", "z"), Expect: 0})
}

func directoryAtomic(t T, k *storageKit) {
	s, _ := k.fresh(t)
	commit(t, s, storage.Write{Key: key("k", "there"), Value: []byte("1")})
	v := get(t, s, epoch, key("k", "there")).Version
	for _, c := range []struct {
		name string
		bad  storage.Write
		have uint64
	}{
		{"must be absent", storage.Write{Key: key("k", "there"), Value: []byte("2")}, v},
		{"another version", storage.Write{Key: key("k", "there"), Expect: v + 1, Value: []byte("2")}, v},
		{"must be there", storage.Write{Key: key("k", "gone"), Expect: v}, 0},
		{"only checked", storage.Write{Key: key("k", "there"), Expect: 0, CheckOnly: true}, v},
	} {
		err := s.Directory.Commit(t.Context(), epoch, []storage.Write{
			{Key: key("k", "new"), Value: []byte("x")}, c.bad,
			{Key: key("k", "new 2"), Expect: 5, Value: []byte("x")}, // conflicts as well, but later
		})
		var conflict *storage.ConflictError
		if !errors.As(err, &conflict) || sdk.KindOf(err) != sdk.Conflict {
			t.Fatalf("%s: %v", c.name, err)
		}
		if conflict.Key != c.bad.Key || conflict.Index != 1 || conflict.Version != c.have {
			t.Errorf("%s: %+v, want write 1 with version %d", c.name, conflict, c.have)
		}
		if get(t, s, epoch, key("k", "new")).Version != 0 || string(get(t, s, epoch, key("k", "there")).Value) != "1" {
			t.Fatalf("%s: something was changed", c.name)
		}
	}
	commit(t, s, storage.Write{Key: key("k", "there"), Expect: v, CheckOnly: true, Value: []byte("3")}, storage.Write{Key: key("k", "new"), Value: []byte("x")})
	if r := get(t, s, epoch, key("k", "there")); r.Version != v || string(r.Value) != "1" {
		t.Fatalf("a check changed the record: %+v", r)
	}
}

func directoryVersions(t T, k *storageKit) {
	s, dir := k.fresh(t)
	last := uint64(0)
	for i := range 6 {
		commit(t, s, storage.Write{Key: key("k", "a"), Expect: storage.AnyVersion, Value: []byte{byte(i)}})
		if v := get(t, s, epoch, key("k", "a")).Version; v <= last || v == storage.AnyVersion {
			t.Fatalf("version %d after %d", v, last)
		} else {
			last = v
		}
		if i%2 == 0 {
			commit(t, s, storage.Write{Key: key("k", "a"), Expect: last})
			s = k.again(t, s, dir)
		}
	}
}

func directoryExpiry(t T, k *storageKit) {
	s, _ := k.fresh(t)
	a := key("code", "a")
	commit(t, s, storage.Write{Key: a, Value: []byte("1"), Expires: epoch.Add(time.Minute)}, storage.Write{Key: key("code", "b"), Value: []byte("1")})
	v := get(t, s, epoch.Add(59*time.Second), a).Version
	late := epoch.Add(61 * time.Second)
	if v == 0 || get(t, s, late, a).Version != 0 {
		t.Fatal("expiry is not honoured by Get")
	}
	if r, err := s.Directory.List(t.Context(), late, storage.Range{Kind: "code", Limit: 10}); err != nil || len(r) != 1 || r[0].ID != "b" {
		t.Fatalf("list: %+v %v", r, err)
	}
	if err := s.Directory.Commit(t.Context(), late, []storage.Write{{Key: a, Expect: v, Value: []byte("2")}}); sdk.KindOf(err) != sdk.Conflict {
		t.Fatalf("an expired record counts as absent: %v", err)
	}
	if err := s.Directory.Commit(t.Context(), late, []storage.Write{{Key: a, Value: []byte("2"), Expires: late.Add(time.Minute)}}); err != nil {
		t.Fatal(err)
	}
	if r := get(t, s, late, a); r.Version <= v || string(r.Value) != "2" {
		t.Fatalf("record: %+v", r)
	}
	for i := range 10 {
		commit(t, s, storage.Write{Key: key("old", fmt.Sprint(i)), Value: []byte("1"), Expires: epoch.Add(time.Second)})
	}
	for _, c := range []struct{ limit, want int }{{4, 4}, {100, 6}, {100, 0}} {
		if n, err := s.Directory.Purge(t.Context(), epoch.Add(30*time.Second), c.limit); err != nil || n != c.want {
			t.Fatalf("purge: %d, want %d (%v)", n, c.want, err)
		}
	}
	if get(t, s, epoch, key("code", "b")).Version == 0 {
		t.Fatal("a record without expiry was purged")
	}
}

func directoryList(t T, k *storageKit) {
	s, _ := k.fresh(t)
	have := map[string]storage.Record{}
	for _, id := range []string{"a", "a/1", "a/10", "a/2", "b", "B", "ä", "\x00", "\xfe", "\xff", "\xff\x00", "\xff\xff\xff", "a0"} {
		commit(t, s, storage.Write{Key: key("list", id), Value: []byte(id)}, storage.Write{Key: key("other", id), Value: []byte("x")})
		have[id] = get(t, s, epoch, key("list", id))
	}
	for _, prefix := range []string{"", "a", "a/", "\xff", "\xff\xff", "none"} {
		for _, after := range []string{"", "a/1", "b", "\xff", "zz"} {
			for _, limit := range []int{1, 3, 100} {
				compareList(t, s, storage.Range{Kind: "list", Prefix: prefix, After: after, Limit: limit}, have)
			}
		}
	}
	if r, err := s.Directory.List(t.Context(), epoch, storage.Range{Kind: "none", Limit: 5}); err != nil || len(r) != 0 {
		t.Fatalf("empty kind: %v %v", r, err)
	}
}

// failer is what *testing.T and *rapid.T share.
type failer interface {
	Fatalf(string, ...any)
	Context() context.Context
}

var _ failer = (*rapid.T)(nil)

func compareList(t failer, s storage.Store, r storage.Range, have map[string]storage.Record) {
	var want []string
	for id := range have {
		if strings.HasPrefix(id, r.Prefix) && id > r.After {
			want = append(want, id)
		}
	}
	slices.Sort(want)
	want = want[:min(len(want), r.Limit)]
	got, err := s.Directory.List(t.Context(), epoch, r)
	if err != nil || len(got) != len(want) {
		t.Fatalf("list %+v: %d records, want %q (%v)", r, len(got), want, err)
	}
	for i, g := range got {
		w := have[want[i]]
		if g.Key != key(r.Kind, want[i]) || g.Version != w.Version || string(g.Value) != string(w.Value) {
			t.Fatalf("list %+v: record %d is %+v, want %+v", r, i, g, w)
		}
	}
}

func directoryNames(t T, k *storageKit) {
	s, dir := k.fresh(t)
	ids := []string{
		"a", "a\x00", "a\x00b", "\x00", "Straße", "猫", "🐈‍⬛", "\xc3\x28", "\xff\xfe", " ", "%", "'", `"`,
		strings.Repeat("x", storage.MaxID),
	}
	kind := strings.Repeat("k", storage.MaxKind)
	for i, id := range ids {
		commit(t, s, storage.Write{Key: key(kind, id), Value: []byte{byte(i)}})
	}
	s = k.again(t, s, dir)
	for i, id := range ids {
		if r := get(t, s, epoch, key(kind, id)); !bytes.Equal(r.Value, []byte{byte(i)}) {
			t.Errorf("id %q has value %x", id, r.Value)
		}
	}
}

func directoryLimits(t T, k *storageKit) {
	s, _ := k.fresh(t)
	big := bytes.Repeat([]byte("v"), storage.MaxValue)
	many := make([]storage.Write, storage.MaxWrites)
	for i := range many {
		many[i] = storage.Write{Key: key("many", fmt.Sprint(i)), Value: []byte("x")}
	}
	commit(t, s, storage.Write{Key: key("k", "big"), Value: big})
	commit(t, s, many...)
	if !bytes.Equal(get(t, s, epoch, key("k", "big")).Value, big) {
		t.Error("the largest value came back changed")
	}
	if r, err := s.Directory.List(t.Context(), epoch, storage.Range{Kind: "many", Limit: 2 * len(many)}); err != nil || len(r) != len(many) {
		t.Errorf("list: %d records, %v", len(r), err)
	}
	ctx := t.Context()
	for name, err := range map[string]error{
		"value":      s.Directory.Commit(ctx, epoch, []storage.Write{{Key: key("k", "a"), Value: append(big, 1)}}),
		"writes":     s.Directory.Commit(ctx, epoch, append(many, storage.Write{Key: key("k", "a")})),
		"twice":      s.Directory.Commit(ctx, epoch, []storage.Write{{Key: key("k", "a"), Value: big}, {Key: key("k", "a"), CheckOnly: true}}),
		"kind":       s.Directory.Commit(ctx, epoch, []storage.Write{{Key: key("K", "a"), Value: big}}),
		"id":         s.Directory.Commit(ctx, epoch, []storage.Write{{Key: key("k", ""), Value: big}}),
		"get":        second(s.Directory.Get(ctx, epoch, []storage.Key{key("k", strings.Repeat("x", storage.MaxID+1))})),
		"list":       second(s.Directory.List(ctx, epoch, storage.Range{Kind: "", Limit: 1})),
		"list limit": second(s.Directory.List(ctx, epoch, storage.Range{Kind: "k"})),
	} {
		if sdk.KindOf(err) != sdk.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if get(t, s, epoch, key("k", "a")).Version != 0 {
		t.Error("a refused commit changed something")
	}
}

func second[T any](_ T, err error) error { return err }

// race runs f from n goroutines and answers how many returned true.
func race(n int, f func(i int) bool) int {
	var won atomic.Int64
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if f(i) {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	return int(won.Load())
}

// try commits and answers whether it took effect; conflicts are an answer too.
func try(t T, s storage.Store, w ...storage.Write) bool {
	err := s.Directory.Commit(t.Context(), epoch, w)
	if err != nil && sdk.KindOf(err) != sdk.Conflict {
		t.Errorf("commit: %v", err)
	}
	return err == nil
}

func directoryClaim(t T, k *storageKit) {
	s, _ := k.fresh(t)
	code := key("pairing", "code")
	commit(t, s, storage.Write{Key: code, Value: []byte("user"), Expires: epoch.Add(5 * time.Minute)})
	won := race(16, func(i int) bool {
		r, err := s.Directory.Get(t.Context(), epoch, []storage.Key{code})
		if err != nil || r[0].Version == 0 {
			return false
		}
		return try(t, s, storage.Write{Key: code, Expect: r[0].Version},
			storage.Write{Key: key("device", fmt.Sprint(i)), Value: r[0].Value},
			storage.Write{Key: key("key-event", fmt.Sprint(i)), Value: []byte("added")})
	})
	devices, err := s.Directory.List(t.Context(), epoch, storage.Range{Kind: "device", Limit: 99})
	if err != nil || won != 1 || len(devices) != 1 {
		t.Fatalf("%d claimers won, %d devices (%v)", won, len(devices), err)
	}
}

func directoryRotate(t T, k *storageKit) {
	s, _ := k.fresh(t)
	device := key("device", "d")
	commit(t, s, storage.Write{Key: device, Value: []byte("old key")})
	v := get(t, s, epoch, device).Version
	won := race(8, func(i int) bool {
		n := fmt.Appendf(nil, "key %d", i)
		return try(t, s, storage.Write{Key: device, Expect: v, Value: n}, storage.Write{Key: key("key", string(n)), Value: []byte("d")})
	})
	keys, err := s.Directory.List(t.Context(), epoch, storage.Range{Kind: "key", Limit: 99})
	if err != nil || won != 1 || len(keys) != 1 || string(get(t, s, epoch, device).Value) != keys[0].ID {
		t.Fatalf("%d rotations won, %d keys (%v)", won, len(keys), err)
	}
	// A key that is known is not taken again.
	v = get(t, s, epoch, device).Version
	if try(t, s, storage.Write{Key: device, Expect: v, Value: []byte("x")}, storage.Write{Key: key("key", keys[0].ID), Value: []byte("d")}) {
		t.Fatal("a key was used twice")
	}
}

func directoryIdempotency(t T, k *storageKit) {
	s, _ := k.fresh(t)
	reserve := func(now time.Time) func(int) bool {
		return func(int) bool {
			err := s.Directory.Commit(t.Context(), now, []storage.Write{{Key: key("once", "request"), Value: []byte{}, Expires: now.Add(time.Minute)}})
			return err == nil
		}
	}
	if won := race(16, reserve(epoch)); won != 1 {
		t.Fatalf("%d reserved the key", won)
	}
	if won := race(16, reserve(epoch.Add(30*time.Second))); won != 0 {
		t.Fatalf("%d reserved the key again", won)
	}
	if won := race(16, reserve(epoch.Add(61*time.Second))); won != 1 {
		t.Fatalf("%d reserved the expired key", won)
	}
	commit(t, s, storage.Write{Key: key("once", "request"), Expect: storage.AnyVersion}) // forget
	if won := race(4, reserve(epoch.Add(62*time.Second))); won != 1 {
		t.Fatalf("%d reserved the forgotten key", won)
	}
}

func directoryQuota(t T, k *storageKit) {
	s, _ := k.fresh(t)
	invite := key("invite", "i")
	const quota, users = 5, 12
	commit(t, s, storage.Write{Key: invite, Value: []byte{quota}})
	won := race(users, func(i int) bool {
		for {
			r, err := s.Directory.Get(t.Context(), epoch, []storage.Key{invite})
			if err != nil {
				t.Error(err)
				return false
			}
			left := r[0].Value[0]
			if left == 0 {
				return false
			}
			if try(t, s, storage.Write{Key: invite, Expect: r[0].Version, Value: []byte{left - 1}},
				storage.Write{Key: key("user", fmt.Sprint(i)), Value: []byte("u")}) {
				return true
			}
		}
	})
	r, err := s.Directory.List(t.Context(), epoch, storage.Range{Kind: "user", Limit: 99})
	if err != nil || won != quota || len(r) != quota {
		t.Fatalf("%d users of a quota of %d (%d won, %v)", len(r), quota, won, err)
	}
}

func directoryTouch(t T, k *storageKit) {
	s, _ := k.fresh(t)
	token := key("session", "hash")
	commit(t, s, storage.Write{Key: token, Value: []byte("device"), Expires: epoch.Add(time.Minute)})
	// Touches in any order never shorten: read, and write only what is later.
	race(8, func(i int) bool {
		want := epoch.Add(time.Duration(i+1) * time.Hour)
		for {
			r, err := s.Directory.Get(t.Context(), epoch, []storage.Key{token})
			if err != nil || r[0].Version == 0 {
				t.Errorf("get: %+v %v", r, err)
				return false
			}
			if !want.After(r[0].Expires) || try(t, s, storage.Write{Key: token, Expect: r[0].Version, Value: r[0].Value, Expires: want}) {
				return true
			}
		}
	})
	if get(t, s, epoch.Add(8*time.Hour-time.Second), token).Version == 0 || get(t, s, epoch.Add(8*time.Hour+time.Second), token).Version != 0 {
		t.Fatalf("the session expires %v", get(t, s, epoch, token).Expires)
	}
}

func directoryRestart(t T, k *storageKit) {
	if k.o.Forgets {
		t.Skip("the store forgets")
	}
	s, dir := k.fresh(t)
	for i := range 20 {
		commit(t, s, storage.Write{Key: key("k", fmt.Sprint(i)), Value: fmt.Append(nil, i)})
	}
	v := get(t, s, epoch, key("k", "7")).Version
	s = k.again(t, s, dir)
	for i := range 20 {
		if r := get(t, s, epoch, key("k", fmt.Sprint(i))); string(r.Value) != fmt.Sprint(i) {
			t.Fatalf("record %d is %+v", i, r)
		}
	}
	commit(t, s, storage.Write{Key: key("k", "7"), Expect: v})
}
