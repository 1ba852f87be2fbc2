package reality

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/commucat/commucat/sdk"
)

// testSite is a site that is resolved and reached as in production.
func testSite(t testing.TB, name string) *site {
	t.Helper()
	s, err := newSite(name, net.DefaultResolver.LookupNetIP, connectTCP, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

// resolver answers as it is told to; nil hangs until the asker gives up.
type resolver struct {
	answer atomic.Pointer[[]netip.Addr]
	err    atomic.Pointer[error]
	asked  atomic.Int64
}

func (r *resolver) say(addresses ...string) {
	var list []netip.Addr
	for _, a := range addresses {
		list = append(list, netip.MustParseAddr(a))
	}
	r.err.Store(nil)
	r.answer.Store(&list)
}

func (r *resolver) fail(err error) { r.err.Store(&err) }

func (r *resolver) lookup(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	r.asked.Add(1)
	if err := r.err.Load(); err != nil {
		return nil, *err
	}
	if list := r.answer.Load(); list != nil {
		return *list, nil
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// netOf reaches the addresses that are up at once; others take no packet, or refuse.
type netOf struct{ up, refusing []string }

func (n *netOf) connect(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	switch at := to.Addr().String(); {
	case slices.Contains(n.up, at):
		a, b := net.Pipe()
		_ = b.Close()
		return reached{a, to}, nil
	case slices.Contains(n.refusing, at):
		return nil, errRefusing
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

var errRefusing = errors.New("refused")

type reached struct {
	net.Conn
	to netip.AddrPort
}

// TestSiteResolver: nobody's connection waits for a resolver or makes a query; what it
// answered last stays in use when it fails, and what it answers later is taken up.
func TestSiteResolver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r resolver
		r.say("192.0.2.1")
		n := &netOf{up: []string{"192.0.2.1"}}
		s, err := newSite("www.example.test:443", r.lookup, n.connect, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		dial := func(want string) {
			t.Helper()
			began := time.Now()
			c, err := s.dial(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := c.(reached).to.String(); got != want || time.Since(began) != 0 {
				t.Errorf("reached %s in %v, want %s at once", got, time.Since(began), want)
			}
			_ = c.Close()
		}
		for range 100 {
			dial("192.0.2.1:443")
		}
		if r.asked.Load() != 1 {
			t.Errorf("%d lookups for 100 connections", r.asked.Load())
		}
		for _, trouble := range []func(){func() { r.fail(errors.New("no such host")) }, func() { r.err.Store(nil); r.answer.Store(nil) }, func() { r.say() }} {
			trouble()
			for range 10 {
				time.Sleep(renewEvery / 5)
				dial("192.0.2.1:443")
			}
		}
		n.up = []string{"192.0.2.2"}
		r.say("192.0.2.2")
		time.Sleep(renewMost + lookupTime)
		dial("192.0.2.2:443")
		asked := r.asked.Load()
		time.Sleep(10 * renewEvery)
		if more := r.asked.Load() - asked; more < 8 || more > 10 {
			t.Errorf("%d lookups in ten intervals", more)
		}
		// No address answers: the name may have moved, and many who find that ask once.
		n.up, n.refusing = []string{"192.0.2.3"}, []string{"192.0.2.2"}
		r.say("192.0.2.3")
		asked = r.asked.Load()
		failures := 0
		for range 50 {
			if _, err := s.dial(t.Context(), nil); errors.Is(err, errRefusing) {
				failures++
			}
		}
		time.Sleep(2 * renewGap)
		dial("192.0.2.3:443")
		if more := r.asked.Load() - asked; more < 1 || more > 2 || failures == 0 {
			t.Errorf("%d lookups after %d failures", more, failures)
		}
	})
}

// TestSiteAddresses: all addresses are tried within a stated time, and one that does not
// answer delays one connection and not every one.
func TestSiteAddresses(t *testing.T) {
	for _, tc := range []struct {
		name         string
		answer       []string
		net          netOf
		first, later time.Duration
		want         string // "" is an error
	}{
		{"one", []string{"192.0.2.1"}, netOf{up: []string{"192.0.2.1"}}, 0, 0, "192.0.2.1"},
		{"one silent", []string{"192.0.2.1"}, netOf{}, dialCoverTime, dialCoverTime, ""},
		{"all silent", []string{"192.0.2.1", "2001:db8::1", "192.0.2.2"}, netOf{}, dialCoverTime, dialCoverTime, ""},
		{"all refuse", []string{"192.0.2.1", "192.0.2.2"}, netOf{refusing: []string{"192.0.2.1", "192.0.2.2"}}, 0, 0, ""},
		{"the first is silent", []string{"192.0.2.1", "192.0.2.2"}, netOf{up: []string{"192.0.2.2"}}, attemptDelay, 0, "192.0.2.2"},
		{"the first refuses", []string{"192.0.2.1", "192.0.2.2"}, netOf{refusing: []string{"192.0.2.1"}, up: []string{"192.0.2.2"}}, 0, 0, "192.0.2.2"},
		{
			"the other family alone", []string{"2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1"}, netOf{up: []string{"192.0.2.1"}},
			attemptDelay, 0, "192.0.2.1",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r resolver
				r.say(tc.answer...)
				s, err := newSite("www.example.test:443", r.lookup, tc.net.connect, slog.New(slog.DiscardHandler))
				if err != nil {
					t.Fatal(err)
				}
				defer s.close()
				for _, most := range []time.Duration{tc.first, tc.later} {
					began := time.Now()
					c, err := s.dial(t.Context(), nil)
					if (err == nil) != (tc.want != "") || err == nil && c.(reached).to.Addr().String() != tc.want {
						t.Errorf("%v, %v", c, err)
					}
					if took := time.Since(began); took != most {
						t.Errorf("took %v, want %v", took, most)
					}
				}
			})
		})
	}
}

// TestSiteAtStart: before the first answer a connection waits for it, within bounds, and is
// told why there is none.
func TestSiteAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r resolver
		n := &netOf{up: []string{"192.0.2.1"}}
		s, err := newSite("www.example.test:443", r.lookup, n.connect, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		if _, err := s.dial(t.Context(), nil); sdk.KindOf(err) != sdk.Unavailable || !strings.Contains(err.Error(), "resolve") {
			t.Error(err)
		}
		r.say("192.0.2.1")
		time.Sleep(renewMost)
		if _, err := s.dial(t.Context(), nil); err != nil {
			t.Error(err)
		}
	})
	if s := testSite(t, "127.0.0.1:https"); s.port != 443 {
		t.Errorf("https is port %d", s.port)
	}
	for _, name := range []string{"www.example.test", "www.example.test:0", "www.example.test:nonsense", "www.example.test:70000"} {
		if _, err := newSite(name, new(resolver).lookup, connectTCP, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestInterleave(t *testing.T) {
	var r resolver
	for _, tc := range []struct{ in, want []string }{
		{nil, nil},
		{[]string{"192.0.2.1", "192.0.2.1", "::ffff:192.0.2.1"}, []string{"192.0.2.1"}},
		{[]string{"2001:db8::1", "2001:db8::2", "192.0.2.1"}, []string{"2001:db8::1", "192.0.2.1", "2001:db8::2"}},
		{[]string{"192.0.2.1", "2001:db8::1", "2001:db8::2"}, []string{"192.0.2.1", "2001:db8::1", "2001:db8::2"}},
	} {
		r.say(tc.in...)
		var got []string
		for _, a := range interleave(*r.answer.Load()) {
			got = append(got, a.String())
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%v became %v, want %v", tc.in, got, tc.want)
		}
	}
}

// TestCoverName: a cover that is given by name. Its name not resolving keeps the relay from
// nothing but letting clients in, and is told; a resolver that fails later is not noticed.
func TestCoverName(t *testing.T) {
	cover := goCover(t)
	_, port, _ := net.SplitHostPort(cover)
	raw := baseConfig(t, "cover.example.test:"+port)
	r := newRig(t, raw)
	var names resolver
	names.fail(&net.DNSError{Err: "no such host", Name: "cover.example.test", IsNotFound: true})
	r.find = names.lookup
	r.start()
	r.echoAll()
	r.awaitHealth(errors.New("does not resolve"))
	names.say("127.0.0.1")
	r.awaitHealth(nil)
	names.err.Store(nil)
	names.answer.Store(nil) // hangs from now on
	asked := names.asked.Load()
	for range 5 {
		if err := checkEcho(r.endpoint(), "", 100); err != nil {
			t.Error(err)
		}
	}
	if p, err := visitCover(t.Context(), testSite(t, r.addr), siteName, testAuthority().roots); err != nil || p.status != 200 {
		t.Errorf("a stranger meets %v, %v", p, err)
	}
	if more := names.asked.Load() - asked; more > 0 {
		t.Errorf("%d lookups for 6 connections", more)
	}
}
