package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/transport"
)

// keyed is a relay's transport whose devices have keys. It lets in who has the link's
// secret, or a key that the relay knows.
type keyed struct {
	*relay

	mu     sync.Mutex
	drawn  int
	known  string // the public key that the relay knows
	secret bool   // the link's secret is good
	params string // of the device's way; "" stands for own=yes
	used   []string
	now    time.Time
}

func (k *keyed) NewKey() (private, public []byte, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drawn++
	return fmt.Appendf(nil, "private-%d", k.drawn), fmt.Appendf(nil, "public-%d", k.drawn), nil
}

func (k *keyed) Dial(ctx context.Context, to transport.Endpoint, with transport.Dial) (net.Conn, error) {
	k.mu.Lock()
	used := strings.Replace(string(with.Key), "private", "public", 1)
	if to.Params["secret"] != "" {
		used = "secret"
	}
	good := used == "secret" && k.secret || used != "secret" && used == k.known
	k.used = append(k.used, used)
	k.mu.Unlock()
	if !good {
		return nil, errors.New("this key is not known")
	}
	return k.relay.Dial(ctx, to, with)
}

// answer is the relay's: it knows the announced key from now on.
func (k *keyed) answer(a *ccp.Established) {
	k.mu.Lock()
	defer k.mu.Unlock()
	params := k.params
	if params == "" {
		params = "own=yes"
	}
	for _, key := range k.last.Keys {
		k.known = string(key.Public)
		a.Ext.Endpoints = append(a.Ext.Endpoints, ccp.Endpoint{Transport: key.Transport, Host: "relay.example", Port: 444, Params: params})
	}
}

func (k *keyed) announced() (names []string) {
	k.relay.mu.Lock()
	defer k.relay.mu.Unlock()
	for _, key := range k.last.Keys {
		names = append(names, key.Transport+" "+string(key.Public))
	}
	return names
}

func (k *keyed) clock() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now
}

func (k *keyed) lastUsed() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.used[len(k.used)-1]
}

func TestTransportKeys(t *testing.T) {
	k := &keyed{relay: newRelay(t), secret: true, now: time.Now()}
	opt := k.options(0)
	opt.Dialers, opt.Now = []transport.Dialer{k}, k.clock
	for i := range opt.Profile.Relay.Endpoints {
		opt.Profile.Relay.Endpoints[i].Host = "relay.example"
		opt.Profile.Relay.Endpoints[i].Params = map[string]string{"secret": "of the link"}
	}
	dir := t.TempDir()
	if err := opt.Profile.Save(dir); err != nil {
		t.Fatal(err)
	}
	u := start(t, opt)
	u.connected()
	if d := cmp.Diff([]string{"pipe public-1"}, k.announced()); d != "" || k.lastUsed() != "secret" {
		t.Error(d, k.lastUsed())
	}
	// A relay of before has not said anything of the key: all goes on as it was.
	k.ack = k.answer
	u.cut()
	if d := cmp.Diff([]string{"pipe public-1"}, k.announced()); d != "" || k.lastUsed() != "secret" {
		t.Error(d, k.lastUsed())
	}
	// Now it is known, and the link's secret no longer matters.
	k.mu.Lock()
	k.secret = false
	k.mu.Unlock()
	u.cut()
	if names := k.announced(); !slices.Equal(names, []string{"pipe public-1"}) || k.lastUsed() != "public-1" {
		t.Error(names, k.lastUsed())
	}
	p := u.Profile()
	want := []Endpoint{{Transport: "pipe", Host: "relay.example", Port: 444, Params: map[string]string{"own": "yes"}, Own: true}}
	if d := cmp.Diff(want, p.Relay.Endpoints); d != "" || len(p.Keys) != 1 {
		t.Error(d, p.Keys)
	}
	// Each connection learns what has changed of the way, in this process or the next.
	k.mu.Lock()
	k.params = "own=changed"
	k.mu.Unlock()
	u.cut()
	want[0].Params["own"] = "changed"
	if d := cmp.Diff(want, u.Profile().Relay.Endpoints); d != "" {
		t.Error(d)
	}
	if read, err := LoadProfile(dir); err != nil || !cmp.Equal(want, read.Relay.Endpoints) {
		t.Error(err, read)
	}
	// A new key is announced by the old one's connection, and then used.
	if err := u.RenewKeys(); err != nil {
		t.Fatal(err)
	}
	u.until("the new key is confirmed", func(u *running) bool {
		keys := u.Profile().Keys
		return len(keys) == 1 && string(keys[0].Public) == "public-2" && !keys[0].Confirmed.IsZero()
	})
	u.cut()
	if k.lastUsed() != "public-2" || k.drawn != 2 {
		t.Error(k.lastUsed(), k.drawn)
	}
	u.close()

	// It is all in the file, which nobody else may read, and in no log.
	again, err := LoadProfile(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(u.Profile().Keys, again.Keys); d != "" {
		t.Error(d)
	}
	if st, err := os.Stat(dir + "/" + profileFile); err != nil || st.Mode().Perm() != 0o600 {
		t.Error(st.Mode(), err)
	}
	if text := fmt.Sprintf("%v %+v %#v", again.Keys, again.Keys[0], again.Keys[0]); strings.Contains(text, "private") {
		t.Error(text)
	}
}

// A key that the relay does not take is replaced before the next dial, and the one that
// follows is not replaced again for a day.
func TestRefusedKeyIsReplaced(t *testing.T) {
	k := &keyed{relay: newRelay(t), secret: true, now: time.Now()}
	var taken atomic.Bool
	k.ack = func(a *ccp.Established) {
		if taken.Load() {
			k.answer(a)
			return
		}
		for _, key := range k.last.Keys {
			a.Ext.Refused = append(a.Ext.Refused, key.Transport)
		}
	}
	opt := k.options(0)
	opt.Dialers, opt.Now = []transport.Dialer{k}, k.clock
	for i := range opt.Profile.Relay.Endpoints {
		opt.Profile.Relay.Endpoints[i].Params = map[string]string{"secret": "of the link"}
	}
	dir := t.TempDir()
	if err := opt.Profile.Save(dir); err != nil {
		t.Fatal(err)
	}
	u := start(t, opt)
	u.settle = time.Nanosecond // a session ends for a new transport, not for this
	u.connected()
	announces := func(want string) {
		t.Helper()
		if d := cmp.Diff([]string{"pipe " + want}, k.announced()); d != "" {
			t.Error(d)
		}
	}
	announces("public-1")
	if saved, err := LoadProfile(dir); err != nil || len(saved.Keys) != 1 || !saved.Keys[0].Refused {
		t.Error("a program that comes once a day does not know", saved.Keys, err)
	}
	for range 3 { // it is refused as well
		u.cut()
		announces("public-2")
	}
	k.mu.Lock()
	k.now = k.now.Add(redrawEvery)
	k.mu.Unlock()
	u.cut() // refused again, a day later
	announces("public-2")
	taken.Store(true)
	u.cut()
	announces("public-3")
	u.until("the key is confirmed", func(u *running) bool {
		keys := u.Profile().Keys
		return len(keys) == 1 && string(keys[0].Public) == "public-3" && !keys[0].Confirmed.IsZero() && !keys[0].Refused
	})
}

// The relay may have taken a new key before its answer was lost: either key is tried.
func TestNewKeyAfterLostAnswer(t *testing.T) {
	k := &keyed{relay: newRelay(t), known: "public-1", now: time.Now()}
	k.ack = k.answer
	opt := k.options(0)
	opt.Dialers = []transport.Dialer{k}
	opt.Profile.Keys = []TransportKey{
		{Transport: "pipe", Private: []byte("private-0"), Public: []byte("public-0"), Confirmed: time.Now()},
		{Transport: "pipe", Private: []byte("private-1"), Public: []byte("public-1")},
	}
	for i := range opt.Profile.Relay.Endpoints {
		opt.Profile.Relay.Endpoints[i].Own = true
	}
	u := start(t, opt)
	u.connected()
	if d := cmp.Diff([]string{"public-0", "public-1"}, k.used); d != "" {
		t.Error(d)
	}
	if keys := u.Profile().Keys; len(keys) != 1 || string(keys[0].Public) != "public-1" {
		t.Error(keys)
	}
}

// A key that the relay does not take any more is named again by another way.
func TestRefusedKeyIsNamedAgain(t *testing.T) {
	k := &keyed{relay: newRelay(t)}
	k.ack = k.answer
	other := newRelay(t)
	other.root, other.keys, other.ack = k.root, k.keys, func(a *ccp.Established) {
		k.relay.mu.Lock()
		k.last = other.last
		k.relay.mu.Unlock()
		k.answer(a)
	}
	opt := k.options(0)
	opt.Dialers = []transport.Dialer{k, door{other}}
	opt.Profile.Keys = []TransportKey{{Transport: "pipe", Private: []byte("private-1"), Public: []byte("public-1"), Confirmed: time.Now()}}
	for i := range opt.Profile.Relay.Endpoints {
		opt.Profile.Relay.Endpoints[i].Own = true
	}
	opt.Profile.Relay.Endpoints = append(opt.Profile.Relay.Endpoints, Endpoint{Transport: "door", Host: "relay.example", Port: 443})
	u := start(t, opt)
	u.connected()
	if d := cmp.Diff([]string{"pipe public-1"}, k.announced()); d != "" || k.known != "public-1" {
		t.Error(d, k.known)
	}
}

// door is another way to a relay.
type door struct{ *relay }

func (d door) Name() string { return "door" }

// A transport without keys, or with keys that do not fit, is asked once.
func TestNoTransportKey(t *testing.T) {
	for name, answer := range map[string]func() ([]byte, []byte, error){
		"none":        func() ([]byte, []byte, error) { return nil, nil, sdk.Unsupported },
		"no private":  func() ([]byte, []byte, error) { return nil, []byte("p"), nil },
		"long public": func() ([]byte, []byte, error) { return []byte("p"), bytes.Repeat([]byte("p"), 65), nil },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRelay(t)
			opt := r.options(0)
			asked := 0
			opt.Dialers = []transport.Dialer{maker{r, func() ([]byte, []byte, error) { asked++; return answer() }}}
			u := start(t, opt)
			u.cut()
			if p := u.Profile(); asked != 1 || len(p.Keys) != 0 || len(r.last.Keys) != 0 {
				t.Error(asked, p.Keys)
			}
			u.close()
			// Only one that has none is remembered, and not for ever.
			opt.Profile, opt.Store = u.Profile(), memory()
			want := 2
			if name == "none" {
				want = 1
			}
			u = start(t, opt)
			if u.connected(); asked != want {
				t.Errorf("asked %d times, want %d", asked, want)
			}
			u.close()
			opt.Profile, opt.Store = u.Profile(), memory()
			opt.Now = func() time.Time { return time.Now().Add(askEvery) }
			u = start(t, opt)
			if u.connected(); asked != want+1 {
				t.Errorf("asked %d times, want %d", asked, want+1)
			}
		})
	}
}

type maker struct {
	*relay
	key func() ([]byte, []byte, error)
}

func (m maker) NewKey() (private, public []byte, err error) { return m.key() }

func TestConfirmedEndpoints(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	p := &Profile{Keys: []TransportKey{{Transport: "a", Public: []byte("1")}, {Transport: "b", Public: []byte("2"), Confirmed: now}}}
	p.Relay.Endpoints = []Endpoint{
		{Transport: "http2", Host: "h", Port: 1}, {Transport: "a", Host: "H", Port: 2}, {Transport: "a", Host: "h", Port: 3},
		{Transport: "a", Host: "other", Port: 4}, {Transport: "b", Host: "h", Port: 5},
	}
	p.confirmed([]ccp.Endpoint{
		{Transport: "a", Host: "h", Port: 9}, {Transport: "b", Host: "h", Port: 9}, {Transport: "c", Host: "h", Port: 9},
	}, p.announced()[:1], now)
	var got []string
	for _, e := range p.Relay.Endpoints {
		got = append(got, fmt.Sprint(e.key(), e.Own))
	}
	want := []string{"http2 h:1false", "a h:9true", "a other:4false", "b h:5false"} // b and c were not announced
	if !slices.Equal(got, want) || !p.Keys[0].Confirmed.Equal(now) {
		t.Errorf("%q, %v", got, p.Keys)
	}
}

// A key that could not be saved is not announced, neither at once nor later.
func TestUnsavedKeyIsNotUsed(t *testing.T) {
	k := &keyed{relay: newRelay(t), known: "public-0", now: time.Now()}
	k.ack = k.answer
	opt := k.options(0)
	opt.Dialers = []transport.Dialer{k}
	old := TransportKey{Transport: "pipe", Private: []byte("private-0"), Public: []byte("public-0"), Confirmed: time.Now()}
	opt.Profile.Keys = []TransportKey{old}
	for i := range opt.Profile.Relay.Endpoints {
		opt.Profile.Relay.Endpoints[i].Own = true
	}
	dir := t.TempDir() + "/profile"
	if err := opt.Profile.Save(dir); err != nil {
		t.Fatal(err)
	}
	u := start(t, opt)
	u.connected()
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // no folder can be made here
		t.Fatal(err)
	}
	if err := u.RenewKeys(); err == nil {
		t.Error("nothing was saved")
	}
	if keys := u.Profile().Keys; len(keys) != 1 || string(keys[0].Public) != "public-0" {
		t.Error(keys)
	}
	if err := errors.Join(os.Remove(dir), os.Rename(dir+".away", dir)); err != nil {
		t.Fatal(err)
	}
	u.cut()
	if names := k.announced(); !slices.Equal(names, []string{"pipe public-0"}) || k.lastUsed() != "public-0" {
		t.Error(names, k.lastUsed())
	}
	if err := u.RenewKeys(); err != nil {
		t.Error(err)
	}
}

// A transport that the relay has got after this device came gets a key while the session
// goes on, and is a way of its own from then on, without another link.
func TestNewTransportIsTakenUp(t *testing.T) {
	r := newRelay(t)
	k := &keyed{relay: r}
	told := false
	r.ack = func(a *ccp.Established) {
		if !told {
			return
		}
		a.Ext.Keyed = []string{"door", "unknown"}
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, key := range r.last.Keys {
			k.known = string(key.Public)
			a.Ext.Endpoints = append(a.Ext.Endpoints, ccp.Endpoint{Transport: key.Transport, Host: "relay.example", Port: 444, Params: "own=yes"})
		}
		a.Ext.Endpoints = append(a.Ext.Endpoints, ccp.Endpoint{Transport: "plain", Host: "relay.example", Port: 445, Params: "cert=1"})
	}
	opt := r.options(0)
	opt.Dialers = []transport.Dialer{r, keyedDoor{k}}
	u := start(t, opt)
	u.settle = time.Millisecond
	u.connected()
	r.mu.Lock()
	told = true
	r.mu.Unlock()
	u.cut()
	u.until("the new transport has a key that is confirmed", func(u *running) bool {
		keys := u.Profile().Keys
		return len(keys) == 1 && keys[0].Transport == "door" && !keys[0].Confirmed.IsZero()
	})
	want := []Endpoint{
		{Transport: "pipe", Host: "relay.example", Port: 443, Params: map[string]string{}},
		{Transport: "plain", Host: "relay.example", Port: 445, Params: map[string]string{"cert": "1"}, Told: true},
		{Transport: "door", Host: "relay.example", Port: 444, Params: map[string]string{"own": "yes"}, Own: true},
	}
	if d := cmp.Diff(want, u.Profile().Relay.Endpoints); d != "" {
		t.Error(d)
	}
}

// keyedDoor is door with keys.
type keyedDoor struct{ *keyed }

func (d keyedDoor) Name() string { return "door" }
