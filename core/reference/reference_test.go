package reference

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/relay"
	"github.com/commucat/commucat/core/transfer"
	"github.com/commucat/commucat/plugins/storage/memory"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var sealKey = [32]byte{5} //nolint:gochecknoglobals // a constant

func open(t testing.TB) storage.Store {
	t.Helper()
	s, err := storage.Open(t.Context(), memory.Plugin(), nil, map[string]any{"durable": true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// source is a store as the plugin shows the reference's tables.
type source struct {
	storage.Directory
	t       testing.TB
	s       storage.Store
	version uint64
	list    func() // called before each page
}

func (s *source) List(ctx context.Context, now time.Time, r storage.Range) ([]storage.Record, error) {
	if s.list != nil {
		s.list()
	}
	out, err := s.Directory.List(ctx, now, r)
	for i := range out {
		out[i].Version = s.version
	}
	return out, err
}

func newSource(t testing.TB) *source {
	s := open(t)
	return &source{Directory: s.Directory, t: t, s: s, version: 1}
}

func (s *source) store() storage.Store {
	out := s.s
	out.Directory = s
	return out
}

func (s *source) put(kind, id, value string) {
	s.t.Helper()
	if err := s.s.Directory.Commit(s.t.Context(), time.Now(), []storage.Write{{Key: storage.Key{Kind: kind, ID: id}, Expect: storage.AnyVersion, Value: []byte(value)}}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *source) user(id, handle string) {
	s.put("app-user", id, fmt.Sprintf(`{"handle":%q,"display_name":null,"created_at":"2025-01-01T00:00:00+00:00","domain":"local"}`, handle))
}

func (s *source) device(id, user string) {
	d, err := identity.DeriveDevice([]byte(strings.Repeat("k", 32)))
	if err != nil {
		s.t.Fatal(err)
	}
	s.put("user-device", user+"\x00"+id, fmt.Sprintf(`{"pubkey":"\\x%x","status":"active","created_at":"2025-01-01T00:00:00+00:00"}`, d.Public()))
}

func (s *source) message(device string, n int) {
	s.t.Helper()
	f, err := ccp.Append(nil, ccp.Frame{Type: ccp.TypeMsg, Channel: 3, Payload: fmt.Append(nil, n)})
	if err != nil {
		s.t.Fatal(err)
	}
	id := [16]byte{1}
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	p := append(fmt.Appendf(nil, `{"envelope_id":"m%d","deliver_after":5,"expires_at":null,"length":%d}`+"\n", n, len(f)), f...)
	row := storage.Append{Queue: "inbox:" + device, ID: id, Payload: p, Expires: time.Now().Add(time.Hour)}
	if _, err := s.s.Queues.Append(s.t.Context(), time.Now(), storage.Batch{Rows: []storage.Append{row}}); err != nil {
		s.t.Fatal(err)
	}
}

func options(s *source, to storage.Store) Options {
	return Options{
		Source: s.store(), Target: to, Traits: storage.Traits{Batch: 1000}, Domain: "relay.example", TTL: 14 * 24 * time.Hour,
		Sealer: relay.NewSealer(sealKey, rand.Reader),
		Accounts: func(d storage.Directory) *account.Store {
			return account.New(d, account.Options{CA: func() identity.CA { return identity.CA{} }})
		},
	}
}

func digest(t testing.TB, s storage.Store) [32]byte {
	t.Helper()
	rep, err := transfer.Digest(t.Context(), s, time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return rep.Digest
}

// TestConflicts: where another record stands in the way of a single row, nothing at all
// is written.
func TestConflicts(t *testing.T) {
	for name, there := range map[string]func(s *source){
		"account":   func(s *source) { s.user("u1", "bea") },
		"handle":    func(s *source) { s.user("u9", "Ann") },
		"device":    func(s *source) { s.user("u9", "zoe"); s.device("d1", "u9") },
		"device id": func(s *source) { s.user("d1", "zoe") },
	} {
		t.Run(name, func(t *testing.T) {
			to, own, s := open(t), newSource(t), newSource(t)
			there(own)
			if _, err := Run(t.Context(), options(own, to)); err != nil {
				t.Fatal(err)
			}
			s.user("u0", "first")
			s.user("u1", "ann")
			s.device("d1", "u1")
			before := digest(t, to)
			rep, err := Run(t.Context(), options(s, to))
			if !errors.Is(err, ErrConflict) || rep.Conflicts != 1 {
				t.Fatalf("%+v, %v", rep, err)
			}
			if digest(t, to) != before {
				t.Error("something was written")
			}
			named := false
			for _, tb := range rep.Tables {
				for _, r := range tb.Reasons {
					named = named || r.Conflict && r.Rows == 1 && len(r.Names) == 1
				}
			}
			if !named {
				t.Errorf("%+v", rep.Tables)
			}
		})
	}
}

// TestBrokenRows: each is named, and the next one goes on.
func TestBrokenRows(t *testing.T) {
	s := newSource(t)
	s.user("a", "ann")
	s.put("app-user", "b", `{"handle":5}`)
	s.put("app-user", "c", `{"too_long":5}`)
	s.put("app-user", "d", "{\"handle\":\"\xff\"}")
	s.put("app-user", "e", `[`)
	s.put("app-user", "f", `{"handle":"fay","created_at":"infinity"}`)
	s.put("app-user", "g", `{"handle":"gil","domain":"else.example"}`)
	s.user("h", "A-nn")
	s.user("i", "An.n")
	s.put("user-device", "a\x001", `{"pubkey":"0102","status":"active"}`)
	s.put("user-device", "b\x002", `{"pubkey":"\\x00","status":"active"}`)
	s.put("user-device", "bb\x003", `{"pubkey":"\\x00","status":"active"}`)
	s.put("user-device", "z\x004", `{"pubkey":"\\x00","status":"active"}`)
	s.device("good", "f")
	s.put("user-device", "f\x005", `{"pubkey":"\\x`+strings.Repeat("00", 32)+`","status":"odd"}`)
	s.put("group-member", "g0\x00good", `{"role":"owner"}`)
	s.put("chat-group", "g1", `{"owner_device":"good"}`)
	s.put("group-member", "g1\x00good", `{"role":"owner","joined_at":"2025-01-01T00:00:00+00:00"}`)
	s.put("group-member", "g1\x00x", `{"role":"member"}`)
	s.put("group-member", "g9\x00good", `{"role":"owner"}`)
	s.put("relay-queue", "rows", `{"rows":5}`)
	s.message("good", 1)
	rows := []storage.Append{{Queue: "inbox:good", ID: [16]byte{9}, Payload: []byte("no line"), Expires: time.Now().Add(time.Hour)}}
	if _, err := s.s.Queues.Append(t.Context(), time.Now(), storage.Batch{Rows: rows}); err != nil {
		t.Fatal(err)
	}
	for _, dry := range []bool{true, false} {
		o := options(s, open(t))
		o.DryRun = dry
		rep, err := Run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, tb := range rep.Tables {
			var why []string
			for _, r := range tb.Reasons {
				why = append(why, fmt.Sprintf("%d %s", r.Rows, r.Text))
			}
			got[tb.Name] = fmt.Sprintf("%d: %d+%d, %s", tb.Rows, tb.Carried, tb.Left, strings.Join(why, "; "))
		}
		want := map[string]string{
			"app-user":    "9: 4+5, 3 it cannot be read; 1 it is longer than a megabyte; 1 it is an account of another domain",
			"user-device": "6: 2+4, 1 it cannot be read; 1 its account is left out; 2 its account does not exist",
			"chat-group":  "1: 1+0, ", "group-member": "4: 1+3, 2 its group does not exist; 1 its device is not here",
			"relay-queue": "5: 1+4, 1 it cannot be read; 3 its inbox has a name that no device can have",
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("dry %v:\n%s", dry, d)
		}
	}
}

// counters are the numbers under which a device gets its messages, by their texts.
func counters(t *testing.T, s storage.Store, device string) map[string]ccp.MessageID {
	t.Helper()
	rows, err := s.Queues.Read(t.Context(), time.Now(), device, 0, storage.Page{Messages: 10000, Bytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	aead, err := chacha20poly1305.NewX(sealKey[:])
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]ccp.MessageID{}
	for _, r := range rows {
		plain, err := aead.Open(nil, r.Payload[:24], r.Payload[24:], append([]byte(device), r.ID[:]...))
		if err != nil {
			t.Fatal(err)
		}
		body := plain[30+2:]
		if _, ok := out[string(body)]; ok {
			t.Errorf("%s is there twice", body)
		}
		out[string(body)] = ccp.MessageID{Log: [8]byte(plain[14:22]), Counter: binary.BigEndian.Uint64(plain[22:])}
	}
	return out
}

// breaking ends calls as a crash would: after so many commits or appends nothing is done.
type breaking struct {
	storage.Directory
	storage.Queues
	left int
}

var errBroken = errors.New("broken")

func (b *breaking) Commit(ctx context.Context, now time.Time, w []storage.Write) error {
	if b.left--; b.left < 0 {
		return errBroken
	}
	return b.Directory.Commit(ctx, now, w)
}

func (b *breaking) Append(ctx context.Context, now time.Time, batch storage.Batch) ([]storage.Appended, error) {
	if b.left--; b.left < 0 {
		return nil, errBroken
	}
	return b.Queues.Append(ctx, now, batch)
}

func (b *breaking) Purge(ctx context.Context, now time.Time, n int) (int, error) {
	return b.Directory.Purge(ctx, now, n)
}

// TestInterrupted: wherever an import ends, the next one goes on, and each message has
// one number for ever, also when its device has taken it in between.
func TestInterrupted(t *testing.T) {
	for steps := 1; ; steps++ {
		s, to := newSource(t), open(t)
		s.user("u", "ann")
		s.device("d", "u")
		s.put("relay-queue", "rows", `{"rows":0}`)
		for i := range 300 {
			s.message("d", i)
		}
		o := options(s, to)
		b := &breaking{Directory: to.Directory, Queues: to.Queues, left: steps}
		o.Target.Directory, o.Target.Queues = b, b
		_, err := Run(t.Context(), o)
		if err != nil && !errors.Is(err, errBroken) {
			t.Fatal(err)
		}
		// A relay runs in between, and the device takes what is there. Then one message
		// more comes to the reference.
		first := counters(t, to, "d")
		if err := to.Queues.Done(t.Context(), []storage.Done{{Queue: "d", Cursor: ^uint64(0) >> 1}}); err != nil {
			t.Fatal(err)
		}
		s.message("d", 1000)
		rep, err2 := Run(t.Context(), options(s, to))
		if err2 != nil {
			t.Fatal(err2)
		}
		second := counters(t, to, "d")
		used := map[ccp.MessageID]string{}
		for _, m := range []map[string]ccp.MessageID{first, second} {
			for text, id := range m {
				if u, ok := used[id]; ok && u != text {
					t.Fatalf("after %d steps %s and %s have one number", steps, u, text)
				}
				used[id] = text
				if was, ok := first[text]; ok && was != id {
					t.Fatalf("after %d steps %s has two numbers", steps, text)
				}
			}
		}
		if len(used) != 301 {
			t.Fatalf("after %d steps: %d messages", steps, len(used))
		}
		if err == nil { // it came to its end
			if steps < 8 || len(second) != 1 || rep.Carried()["relay-queue"] != 1 {
				t.Errorf("%d steps, %d messages, %v", steps, len(second), rep.Carried())
			}
			return
		}
	}
}

// TestSourceReopened: what is read is of one moment, or the import says so.
func TestSourceReopened(t *testing.T) {
	s := newSource(t)
	for i := range 600 {
		s.user(fmt.Sprintf("u%04d", i), fmt.Sprint("h", i))
	}
	pages := 0
	s.list = func() {
		if pages++; pages == 3 {
			s.version++
		}
	}
	if _, err := Run(t.Context(), options(s, open(t))); !errors.Is(err, sdk.Unavailable) || !strings.Contains(err.Error(), "begin again") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s.list = cancel
	o := options(s, open(t))
	o.Source.Directory = canceled{s}
	if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

type canceled struct{ *source }

func (c canceled) List(ctx context.Context, now time.Time, r storage.Range) ([]storage.Record, error) {
	out, err := c.source.List(ctx, now, r)
	return out, errors.Join(err, ctx.Err())
}

// FuzzRows: no row of any table does more than to be left out, and byte strings come out
// as they went in.
func FuzzRows(f *testing.F) {
	for _, s := range []string{
		`{"pubkey":"\\x00ff","status":"active","created_at":"2025-01-01T00:00:00+00:00"}`, `{"handle":"a"}`, `{"too_long":1}`,
		`[{"user_id":"u"},{"id":"v","alias":null}]`, "{\"envelope_id\":\"m\",\"deliver_after\":1,\"expires_at\":null,\"length\":1}\nx", `{"rows":1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := storage.Record{Key: storage.Key{ID: "a\x00b"}, Value: b}
		if d, why := row[deviceRow](&r); why == "" {
			text, err := d.Public.MarshalText()
			var again bytea
			if err == nil && d.Public != nil {
				err = again.UnmarshalText(text)
			}
			if err != nil || string(again) != string(d.Public) {
				t.Errorf("%x became %x: %v", d.Public, again, err)
			}
		}
		row[userRow](&r)
		row[countRow](&r)
		if list, ok := friends(string(b)); ok {
			if _, err := json.Marshal(list); err != nil {
				t.Error(err)
			}
		}
		if m, ok := parseMessage(b); ok && len(m.frame) >= len(b) {
			t.Errorf("a frame of %d bytes in %d", len(m.frame), len(b))
		}
	})
}
