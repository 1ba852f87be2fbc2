package reality

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk"
)

// lookup resolves a host name as net.Resolver.LookupNetIP does.
type lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)

// How the name of a cover is kept up to date: nobody's connection waits for a resolver,
// and how many come does not show in queries.
const (
	renewEvery = 5 * time.Minute
	renewGap   = 2 * time.Second // between two lookups at the least, and after the first failure
	renewMost  = time.Minute     // between two after many failures
	lookupTime = 10 * time.Second
	// mostAddresses are taken of an answer.
	mostAddresses = 16
)

// site is a cover somewhere else. It is safe for concurrent use.
type site struct {
	name    string // as configured
	host    string
	port    uint16
	find    lookup
	connect connect
	log     *slog.Logger

	first chan struct{} // closed after the first lookup
	again chan struct{} // asks for one
	end   context.CancelFunc
	ended sync.WaitGroup

	mu     sync.Mutex
	known  []netip.Addr // the last good answer, in the order to try
	failed error        // why the last lookup gave none; nil if it did
}

// newSite begins to resolve the name of a cover and goes on until close. An address is
// never looked up.
func newSite(name string, find lookup, to connect, log *slog.Logger) (*site, error) {
	host, port, err := net.SplitHostPort(name)
	if err != nil {
		return nil, &sdk.ConfigError{Key: "cover", Text: fmt.Sprintf("%q is neither \"self\" nor host:port", name)}
	}
	number, err := net.LookupPort("tcp", port) // numbers and names of services; asks no server
	if err != nil || number == 0 {
		return nil, &sdk.ConfigError{Key: "cover", Text: fmt.Sprintf("%q has no port that is known", name)}
	}
	s := &site{name: name, host: host, port: uint16(number), find: find, connect: to, log: log, first: make(chan struct{}), again: make(chan struct{}, 1)}
	var ctx context.Context
	ctx, s.end = context.WithCancel(context.Background())
	if ip, err := netip.ParseAddr(host); err == nil {
		s.known = []netip.Addr{ip.Unmap()}
		close(s.first)
		return s, nil
	}
	s.ended.Go(func() { s.renew(ctx) })
	return s, nil
}

func (s *site) String() string { return s.name }

func (s *site) close() {
	s.end()
	s.ended.Wait()
}

// keepAlive is none: servers have none by default, and these would be ours.
func (s *site) keepAlive() net.KeepAliveConfig { return net.KeepAliveConfig{} }

// dial connects to the first address that answers. It asks no resolver.
func (s *site) dial(ctx context.Context, _ net.Addr) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialCoverTime)
	defer cancel()
	addresses, err := s.addresses(ctx)
	if err != nil {
		return nil, err
	}
	conn, at, err := race(ctx, s.connect, addresses, s.port)
	if err != nil {
		if ctx.Err() != context.Canceled && !short(err) {
			s.askAgain() // they may have changed
		}
		return nil, err
	}
	s.prefer(at)
	return conn, nil
}

// addresses gives the last good answer; only before the end of the first lookup it waits.
func (s *site) addresses(ctx context.Context) ([]netip.Addr, error) {
	select {
	case <-s.first:
	case <-ctx.Done():
		return nil, &sdk.Error{Kind: sdk.Unavailable, Op: "reality: cover " + s.name, Text: "its name is not resolved yet; is this machine's resolver well?", Err: ctx.Err()}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) == 0 {
		return nil, &sdk.Error{Kind: sdk.Unavailable, Op: "reality: cover " + s.name, Text: "its name does not resolve; correct it, or see to this machine's resolver", Err: s.failed}
	}
	return slices.Clone(s.known), nil
}

// prefer puts the address that has answered first: what is known not to answer delays
// nobody else, and strangers meet the same server again.
func (s *site) prefer(at netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.known, at); i > 0 {
		s.known = slices.Insert(slices.Delete(s.known, i, i+1), 0, at)
	}
}

func (s *site) askAgain() {
	select {
	case s.again <- struct{}{}:
	default:
	}
}

// renew resolves the name from time to time, soon after a failure or when no address
// answers.
func (s *site) renew(ctx context.Context) {
	retry := renewGap
	for began := true; ; began = false {
		wait := renewEvery + rand.N(renewEvery/4)
		if s.resolve(ctx) {
			retry = renewGap
		} else {
			wait, retry = retry, min(2*retry, renewMost)
		}
		if began {
			close(s.first)
		}
		select {
		case <-s.again: // of before the answer
		default:
		}
		if !sleep(ctx, renewGap, nil) || !sleep(ctx, wait-renewGap, s.again) {
			return
		}
	}
}

// sleep is false when ctx has ended. A word on wake ends it early.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-wake:
	case <-t.C:
	}
	return true
}

func (s *site) resolve(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	answer, err := s.find(ctx, "ip", s.host)
	if err == nil && len(answer) == 0 {
		err = &net.DNSError{Err: "no address", Name: s.host, IsNotFound: true}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if s.failed == nil && len(s.known) > 0 {
			s.log.Warn("the cover's name does not resolve any more; its last addresses stay in use", slog.String("cover", s.name), slog.Any("err", err))
		}
		s.failed = err
		return false
	}
	if s.failed != nil {
		s.log.Info("the cover's name resolves", slog.String("cover", s.name))
	}
	s.failed = nil
	next := interleave(answer)
	if len(s.known) > 0 {
		if i := slices.Index(next, s.known[0]); i > 0 { // who answered last is tried first
			next = slices.Insert(slices.Delete(next, i, i+1), 0, s.known[0])
		}
	}
	s.known = next[:min(len(next), mostAddresses)]
	return true
}
