package server

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/transport"
)

const (
	// waysAge is how long it is believed what the transports said: another process of a
	// transport may have other parameters.
	waysAge = 5 * time.Minute
	// maxWaysText bounds the endpoints that every Ack carries, in bytes of their texts.
	maxWaysText = 4 << 10
)

// ways are what devices are told of the plugin transports in each Ack, beside where their
// own keys are good. Handshakes do not wait for it: they take what is known, and the
// transports are asked beside.
type ways struct {
	mu      sync.Mutex
	quiet   bool // relay.announce_transports = false
	asked   time.Time
	asking  bool
	changes int
	keyless []ccp.Endpoint
	keyed   []string
}

// announce says whether devices are told.
func (w *ways) announce(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.quiet = !on
}

// announced says whether they are.
func (w *ways) announced() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.quiet
}

// outdated makes that the transports are asked again.
func (w *ways) outdated() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = time.Time{}
	w.changes++
}

// knownWays is session.Options.Ways.
func (s *Server) knownWays() (keyless []ccp.Endpoint, keyed []string) {
	w := &s.ways
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.quiet {
		return nil, nil
	}
	if !w.asking && s.opt.Clock().Sub(w.asked) >= waysAge {
		w.asking = true
		go s.askWays(w.changes)
	}
	return w.keyless, w.keyed
}

// askWays asks the transports how everybody reaches them. changes is which of their states
// that will be.
func (s *Server) askWays(changes int) {
	all := s.pluginEndpoints(context.Background(), transport.Guest{})
	// Afterwards: a transport that answered says by now whether it is keyed, and an
	// endpoint without a key would take the place of a device's own.
	var keyed []string
	for _, t := range s.running() {
		if t.Keyed() {
			keyed = append(keyed, t.Name())
		}
	}
	slices.Sort(keyed)
	keyless := fitting(all, keyed)
	w := &s.ways
	w.mu.Lock()
	defer w.mu.Unlock()
	w.keyless, w.keyed, w.asking = keyless, keyed[:min(len(keyed), ccp.MaxTransportKeys)], false
	if w.changes == changes {
		w.asked = s.opt.Clock()
	}
}

// fitting are the endpoints that an Ack may carry: those of transports whose devices have
// keys are told to who names one, and the others are bounded in number and size.
func fitting(all []link.Endpoint, keyed []string) (out []ccp.Endpoint) {
	size := 0
	for _, e := range all {
		if slices.Contains(keyed, e.Transport) {
			continue
		}
		size += len(e.Transport) + len(e.Host) + len(e.Params)
		if len(out) == ccp.MaxEndpoints || size > maxWaysText {
			break
		}
		out = append(out, e)
	}
	return out
}
