package server

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/account/accounttest"
	"github.com/commucat/commucat/core/config"
	"github.com/commucat/commucat/core/session"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/storage"
	"github.com/commucat/commucat/sdk/transport"
)

// keeper is a transport that notes who it lets in.
type keeper struct {
	mu     sync.Mutex
	let    []string
	listed []string     // since Replacing
	invite func() error // asked before a guest is let in
	after  func() error // and when it is

	register func(*keeper)

	process any
}

func (k *keeper) Name() string { return "door" }

func (k *keeper) Process() any { return k.process }

func (k *keeper) Invite(_ context.Context, host string, g transport.Guest) (transport.Endpoint, error) {
	if k.invite != nil {
		if err := k.invite(); err != nil {
			return transport.Endpoint{}, err
		}
	}
	k.note(g)
	if k.after != nil {
		if err := k.after(); err != nil {
			return transport.Endpoint{}, err
		}
	}
	return transport.Endpoint{Transport: "door", Host: host, Port: 444}, nil
}

func (k *keeper) Register(ctx context.Context, guests []transport.Guest) error {
	if k.register != nil {
		k.register(k)
	}
	k.note(guests...)
	return ctx.Err()
}

func (k *keeper) Replacing(context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.listed = []string{}
	return nil
}

func (k *keeper) Replaced(context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.listed == nil {
		return &sdk.Error{Kind: sdk.Invalid, Text: "no list has begun"}
	}
	k.let, k.listed = k.listed, nil
	return nil
}

func (k *keeper) note(guests ...transport.Guest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, g := range guests {
		k.let = append(k.let, g.ID)
		if k.listed != nil {
			k.listed = append(k.listed, g.ID)
		}
	}
}

// keyedServer is as much of a Server as keys of devices need, with one device.
func keyedServer(t *testing.T) (s *Server, announce func(public string) ccp.TransportKey) {
	t.Helper()
	return keyedServerOn(t, &accounttest.Directory{})
}

func keyedServerOn(t *testing.T, dir storage.Directory) (s *Server, announce func(public string) ccp.TransportKey) {
	t.Helper()
	r, err := openRevocations(filepath.Join(t.TempDir(), revocationsFile))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := identity.NewCA(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	s = &Server{log: slog.New(slog.DiscardHandler), revocations: r}
	s.accounts = account.New(dir, account.Options{Domain: "relay.example", CA: func() identity.CA { return ca }})
	s.cfg = &config.Config{Transports: map[string]config.Transport{"door": {}}}
	s.data = &data{dir: t.TempDir()}
	s.sessions = new(session.Server) // there are none
	s.accounts.OnChange(s.keysGone)
	secret, _, err := s.accounts.CreateInvite(t.Context(), 1, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	d, err := identity.GenerateDevice(nil)
	if err != nil {
		t.Fatal(err)
	}
	invite := secret[:]
	return s, func(public string) ccp.TransportKey {
		t.Helper()
		k := ccp.TransportKey{Transport: "door", Public: []byte(public)}
		_, err := s.accounts.Establish(t.Context(), account.Request{
			Device: "dev-a", Public: d.Public(), User: account.Hint{Handle: "alice"}, Invite: invite,
			Capabilities: ccp.AllCapabilities, Session: "s", Keys: []ccp.TransportKey{k},
		})
		if err != nil {
			t.Fatal(err)
		}
		invite = nil
		return k
	}
}

// A key is let in while it is the device's, and is out again where it stopped being so
// while it was let in, whatever the transport has answered.
func TestKeyLetInWhileItGoes(t *testing.T) {
	lost := errors.New("the answer is lost")
	for name, x := range map[string]struct {
		gone   func(s *Server, announce func(string) ccp.TransportKey) // while it is let in
		answer error
		want   error
		stays  bool
	}{
		"stays":                 {stays: true},
		"stays, answer lost":    {answer: lost, want: lost, stays: true},
		"revoked":               {gone: revokeA, want: sdk.Denied},
		"revoked, answer lost":  {gone: revokeA, answer: lost, want: lost},
		"replaced":              {gone: func(_ *Server, announce func(string) ccp.TransportKey) { announce("2") }, want: sdk.Denied},
		"replaced, answer lost": {gone: func(_ *Server, announce func(string) ccp.TransportKey) { announce("2") }, answer: lost, want: lost},
	} {
		t.Run(name, func(t *testing.T) {
			s, announce := keyedServer(t)
			k := announce("1")
			id := account.GuestID("dev-a", k.Public)
			// From long ago: it comes again.
			if _, err := s.revocations.add([]string{"door"}, id, "dev-a"); err != nil {
				t.Fatal(err)
			}
			door := &keeper{}
			door.invite = func() error {
				if slices.Contains(s.revocations.of("door"), id) {
					t.Error("it would be revoked late")
				}
				if x.gone != nil {
					x.gone(s, announce)
					// The transport was told at once, and knew nobody.
					return s.revocations.done("door", []string{id})
				}
				return nil
			}
			door.after = func() error { return x.answer }
			e, err := s.letIn(t.Context(), door, "relay.example", "dev-a", k)
			if !errors.Is(err, x.want) || (err == nil) != (e.Transport == "door" && e.Host == "relay.example") {
				t.Error(e, err)
			}
			if !slices.Equal(door.let, []string{id}) {
				t.Error(door.let)
			}
			revoked := func() bool { return slices.Contains(s.revocations.of("door"), id) }
			for until := time.Now().Add(10 * time.Second); !x.stays && !revoked() && time.Now().Before(until); {
				time.Sleep(time.Millisecond)
			}
			if revoked() == x.stays {
				t.Errorf("revoked: %v", revoked())
			}
		})
	}
}

func revokeA(s *Server, _ func(string) ccp.TransportKey) {
	_ = s.accounts.RevokeDevice(context.Background(), "", "dev-a")
}

// What waits to be revoked goes on waiting where its key is nobody's any more: another
// node's word of it may come late.
func TestKeyThatIsGoneStaysOut(t *testing.T) {
	s, announce := keyedServer(t)
	k := announce("1")
	announce("2")
	id, door := account.GuestID("dev-a", k.Public), &keeper{}
	if _, err := s.letIn(t.Context(), door, "relay.example", "dev-a", k); !errors.Is(err, sdk.Denied) {
		t.Error(err)
	}
	if len(door.let) != 0 || !slices.Contains(s.revocations.of("door"), id) {
		t.Error(door.let, s.revocations.of("door"))
	}
}

// A node notes what is to be told to a transport that it has, or has had; on one that never
// had it the device goes all the same.
func TestRevocationWithoutTheTransport(t *testing.T) {
	for name, x := range map[string]struct {
		had   func(s *Server) error
		noted bool
	}{
		"configured": {func(*Server) error { return nil }, true},
		"never had":  {func(s *Server) error { s.cfg.Transports = nil; return nil }, false},
		"taken out": {func(s *Server) error {
			s.cfg.Transports = nil
			return os.MkdirAll(s.data.path(stateDir, "transport-door"), 0o700)
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s, announce := keyedServer(t)
			k := announce("1")
			if err := x.had(s); err != nil {
				t.Fatal(err)
			}
			if err := s.accounts.RevokeDevice(t.Context(), "", "dev-a"); err != nil {
				t.Fatal(err)
			}
			if held, err := s.accounts.HasTransportKey(t.Context(), "dev-a", k); held || err != nil {
				t.Error(held, err)
			}
			s.revocations.mu.Lock()
			defer s.revocations.mu.Unlock()
			if noted := len(s.revocations.pending["door"]) == 1; noted != x.noted {
				t.Error(s.revocations.pending)
			}
		})
	}
}

// A key that is another guest's is not kept.
func TestConflictingKeyIsForgotten(t *testing.T) {
	s, announce := keyedServer(t)
	k := announce("1")
	door := &keeper{invite: func() error { return &sdk.Error{Kind: sdk.Conflict, Text: "another guest's"} }}
	_, err := s.letIn(t.Context(), door, "relay.example", "dev-a", k)
	if !errors.Is(err, sdk.Conflict) {
		t.Fatal(err)
	}
	s.conflicting(t.Context(), "dev-a", k, err)
	door = &keeper{}
	if err := s.handKeys(t.Context(), door); err != nil || len(door.let) != 0 {
		t.Error(door.let, err)
	}
}

// A record that cannot be read costs its own device, and is logged once.
func TestDamagedRecordCostsItsDevice(t *testing.T) {
	dir := &accounttest.Directory{}
	s, announce := keyedServerOn(t, dir)
	var log strings.Builder
	s.log = slog.New(slog.NewTextHandler(&log, nil))
	k := announce("1")
	for _, id := range []string{"broken-1", "dev-0"} { // both come before dev-a
		w := storage.Write{Key: storage.Key{Kind: "device", ID: id}, Value: []byte("{")}
		if err := dir.Commit(t.Context(), time.Now(), []storage.Write{w}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		door := &keeper{}
		if err := s.handKeys(t.Context(), door); err != nil || !slices.Equal(door.let, []string{account.GuestID("dev-a", k.Public)}) {
			t.Error(door.let, err)
		}
	}
	for _, id := range []string{"broken-1", "dev-0"} {
		if n := strings.Count(log.String(), "device="+id+" "); n != 1 {
			t.Errorf("%s is named %d times: %s", id, n, log.String())
		}
	}
}

// Keys that wait for revocations to be told have all their time then.
func TestPageAfterRevocations(t *testing.T) {
	defer func(d time.Duration) { pageTime = d }(pageTime)
	pageTime = time.Second
	s, announce := keyedServer(t)
	k := announce("1")
	door := &keeper{}
	mu := s.handing("door")
	mu.RLock()
	time.AfterFunc(pageTime+pageTime/10, mu.RUnlock)
	if err := s.handKeys(t.Context(), door); err != nil || !slices.Equal(door.let, []string{account.GuestID("dev-a", k.Public)}) {
		t.Error(door.let, err)
	}
}

// What another node revoked while this one was down, or its transport's process, ends when
// this one hands over the keys: nobody has told it, and it knew the device.
func TestListReplacesWhatWasRevokedElsewhere(t *testing.T) {
	dir := &accounttest.Directory{}
	here, announce := keyedServerOn(t, dir)
	k := announce("1")
	id := account.GuestID("dev-a", k.Public)
	door := &keeper{let: []string{id}}
	ca, err := identity.NewCA(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	there := account.New(dir, account.Options{Domain: "relay.example", CA: func() identity.CA { return ca }})
	if err := there.RevokeDevice(t.Context(), "", "dev-a"); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(here.revocations.of("door"), id) {
		t.Fatal("it was told: this test says nothing")
	}
	// Of a damaged record it is not known which keys are its device's.
	w := storage.Write{Key: storage.Key{Kind: "device", ID: "dev-b"}, Value: []byte("{")}
	if err := dir.Commit(t.Context(), time.Now(), []storage.Write{w}); err != nil {
		t.Fatal(err)
	}
	if err := here.handKeys(t.Context(), door); err != nil || len(door.let) != 1 {
		t.Error("a list with a hole was said to be whole:", door.let, err)
	}
	if err := dir.Commit(t.Context(), time.Now(), []storage.Write{{Key: w.Key, Expect: storage.AnyVersion}}); err != nil {
		t.Fatal(err)
	}
	if err := here.handKeys(t.Context(), door); err != nil || len(door.let) != 0 {
		t.Error(door.let, err)
	}
}

// A process that came in the midst of a list is not told that it was whole.
func TestListOfAnotherProcess(t *testing.T) {
	s, announce := keyedServer(t)
	announce("1")
	door := &keeper{register: func(k *keeper) { k.let, k.listed = []string{"kept"}, nil }}
	if err := s.handKeys(t.Context(), door); err != nil || !slices.Contains(door.let, "kept") {
		t.Error(door.let, err)
	}
}
