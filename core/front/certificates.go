package front

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/core/metrics"
)

// Certificates gives the certificate for a handshake. It must not block.
type Certificates interface {
	GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
}

// Static always gives the same certificate.
type Static tls.Certificate

// GetCertificate returns s.
func (s *Static) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return (*tls.Certificate)(s), nil
}

// Pair names the files of one certificate chain and its key, both PEM.
type Pair struct{ Certificate, Key string }

// Files gives certificates from files and reads them anew when they change.
// The files are looked at during handshakes, at most once a second; a change
// that cannot be read keeps the old certificate in use.
type Files struct {
	log     *slog.Logger
	metrics *metrics.Set
	pairs   []Pair

	checked  atomic.Int64 // unix nanoseconds
	checking sync.Mutex
	stamps   []stamp // guarded by checking
	current  atomic.Pointer[[]*tls.Certificate]
}

const checkEvery = time.Second

// OpenFiles reads the pairs; the first is used where none fits the asked name.
// log and m may be nil.
func OpenFiles(pairs []Pair, log *slog.Logger, m *metrics.Set) (*Files, error) {
	if len(pairs) == 0 {
		return nil, ErrNoCertificate
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	f := &Files{log: log, metrics: m, pairs: pairs, stamps: make([]stamp, len(pairs))}
	list := make([]*tls.Certificate, len(pairs))
	for i, p := range pairs {
		s, err := stampOf(p)
		if err != nil {
			return nil, err
		}
		if list[i], err = load(p); err != nil {
			return nil, err
		}
		f.stamps[i] = s
	}
	f.current.Store(&list)
	f.checked.Store(time.Now().UnixNano())
	f.report(list)
	return f, nil
}

// GetCertificate implements Certificates.
func (f *Files) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.check(time.Now())
	list := *f.current.Load()
	if len(list) > 1 && hello != nil {
		for _, c := range list {
			if hello.SupportsCertificate(c) == nil {
				return c, nil
			}
		}
	}
	return list[0], nil
}

// Reload looks at the files now (SIGHUP). The error is that of the first pair
// that could not be read; the others are in use.
func (f *Files) Reload() error {
	f.checking.Lock()
	defer f.checking.Unlock()
	return f.reload(true)
}

func (f *Files) check(now time.Time) {
	if now.UnixNano()-f.checked.Load() < int64(checkEvery) || !f.checking.TryLock() {
		return
	}
	defer f.checking.Unlock()
	f.checked.Store(now.UnixNano())
	_ = f.reload(false)
}

// reload reads the pairs whose files changed; called with checking held.
func (f *Files) reload(all bool) (first error) {
	list := append([]*tls.Certificate(nil), *f.current.Load()...)
	changed := false
	for i, p := range f.pairs {
		s, err := stampOf(p)
		if err == nil && s == f.stamps[i] && !all {
			continue
		}
		var c *tls.Certificate
		if err == nil {
			c, err = load(p)
		}
		if err != nil {
			if s != f.stamps[i] || all { // told once for each change
				f.stamps[i] = s
				f.metrics.Inc(metrics.CertificateReloadFailures)
				f.log.Error("tls certificate not reloaded, the old one stays", "file", p.Certificate, "reason", err.Error())
			}
			if first == nil {
				first = err
			}
			continue
		}
		f.stamps[i], list[i], changed = s, c, true
	}
	if changed {
		f.current.Store(&list)
		f.metrics.Inc(metrics.CertificateReloads)
		f.log.Info("tls certificate reloaded", "expires", list[0].Leaf.NotAfter)
		f.report(list)
	}
	return first
}

func (f *Files) report(list []*tls.Certificate) {
	f.metrics.Set(metrics.CertificateExpiry, float64(list[0].Leaf.NotAfter.Unix()))
}

func load(p Pair) (*tls.Certificate, error) {
	c, err := tls.LoadX509KeyPair(p.Certificate, p.Key)
	if err != nil {
		return nil, fmt.Errorf("tls certificate %s, key %s: %w", p.Certificate, p.Key, err)
	}
	return &c, nil
}

// stamp tells one state of the two files from another.
type stamp struct {
	changed [2]int64
	size    [2]int64
	file    [2]uint64
}

func stampOf(p Pair) (s stamp, err error) {
	for i, name := range []string{p.Certificate, p.Key} {
		info, err := os.Stat(name)
		if err != nil {
			return s, fmt.Errorf("tls certificate: %w", err)
		}
		s.changed[i], s.size[i], s.file[i] = info.ModTime().UnixNano(), info.Size(), inode(info)
	}
	return s, nil
}
