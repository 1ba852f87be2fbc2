package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/commucat/commucat/core/front"
	"github.com/commucat/commucat/core/keyring"
)

// Alone is a cover site served by the same listener code as a relay's, without a
// relay behind it: what a probe compares a relay with.
type Alone struct {
	// Address is host:port on the loopback interface.
	Address string

	stop  context.CancelFunc
	ended chan error
	dir   string
}

// ServeAlone serves cover under a throw-away certificate for domain on a free
// loopback port, until Close. altSvc is the value of cover.alt_svc, "" for none.
func ServeAlone(ctx context.Context, cover http.Handler, domain, altSvc string) (_ *Alone, err error) {
	dir, err := os.MkdirTemp("", "cover-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	ring, _, err := keyring.Open(filepath.Join(dir, keysDir), keyring.Options{Domain: domain})
	if err != nil {
		return nil, err
	}
	certificate, key, _, err := ring.SelfSigned()
	if err != nil {
		return nil, err
	}
	files, err := front.OpenFiles([]front.Pair{{Certificate: certificate, Key: key}}, nil, nil)
	if err != nil {
		return nil, err
	}
	f, err := front.New(front.Options{Certificates: files, Cover: front.Site(cover), AltSvc: altSvc, DrainTimeout: time.Second})
	if err != nil {
		return nil, err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("no free port on the loopback interface: %w", err)
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	a := &Alone{Address: ln.Addr().String(), stop: stop, ended: make(chan error, 1), dir: dir}
	go func() { a.ended <- f.Serve(run, []net.Listener{ln}) }()
	return a, nil
}

// Close ends the site and waits until it has ended.
func (a *Alone) Close() error {
	a.stop()
	return errors.Join(<-a.ended, os.RemoveAll(a.dir))
}
