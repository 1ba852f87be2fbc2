package amnesiawg

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/conf"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/bind"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/inner"
)

// Sessions of one key: a pace that no client needs, and a burst.
const (
	paceEvery = 250 * time.Millisecond
	paceBurst = 8
)

// peer is a device that WireGuard knows at the moment.
type peer struct {
	public  [32]byte
	addr    netip.Addr     // inside
	outer   netip.AddrPort // where its last initiation came from
	expires time.Time
	seen    time.Time // last initiation, or end of a stream
	pace    time.Time // when its allowance is full again
	conns   map[*inner.Conn]struct{}
}

// admit makes a key known to WireGuard, or notes that it came again. It runs in the
// gate's goroutine alone.
func (s *server) admit(public [32]byte, expires time.Time, from *bind.Endpoint) bool {
	now := time.Now()
	s.diary.add(public, from.Text(), now)
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return false
	}
	if p := s.peers[public]; p != nil {
		defer s.mu.Unlock()
		if p.pace.Before(now) {
			p.pace = now
		}
		if p.pace.Sub(now) > paceBurst*paceEvery {
			return false
		}
		p.pace = p.pace.Add(paceEvery)
		p.outer, p.expires, p.seen = from.Addr(), expires, now
		return true
	}
	if s.closed {
		s.mu.Unlock()
		return false
	}
	s.mu.Unlock()
	in, _ := s.enter(public, expires, from, now)
	return in
}

// enter makes a key known to WireGuard; at is where its owner is. in says that WireGuard
// knows it, entered that it did not before.
func (s *server) enter(public [32]byte, expires time.Time, at *bind.Endpoint, now time.Time) (in, entered bool) {
	s.entering.Lock()
	defer s.entering.Unlock()
	var leaves *peer
	s.mu.Lock()
	if s.peers[public] != nil { // by the other way: an initiation, or recall
		s.mu.Unlock()
		return true, false
	}
	if len(s.peers) >= s.cfg.Active {
		if leaves = s.longestIdle(); leaves == nil {
			s.mu.Unlock()
			return false, false
		}
	}
	s.mu.Unlock()
	if leaves != nil {
		s.remove(leaves)
	}
	p := &peer{
		public: public, addr: conf.ClientAddr(s.public, public), outer: at.Addr(), expires: expires, seen: now,
		pace: now.Add(paceEvery), conns: map[*inner.Conn]struct{}{},
	}
	if err := s.bind.Add(public); err != nil {
		return false, false
	}
	if err := addPeer(s.dev, public, p.addr, at.Text()); err != nil {
		s.bind.Remove(public)
		s.log.Warn("a device could not be added", "device", keyText(public), "error", err)
		return false, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peers[public], s.byAddr[p.addr] = p, p
	return true, true
}

// addPeer makes a key known to a device, with one address inside.
func addPeer(d *device.Device, public [32]byte, inside netip.Addr, endpoint string) error {
	text := fmt.Sprintf("public_key=%s\nreplace_allowed_ips=true\nallowed_ip=%s/128\n", hex.EncodeToString(public[:]), inside)
	if endpoint != "" {
		text += "endpoint=" + endpoint + "\n"
	}
	return d.IpcSet(text)
}

// longestIdle gives the peer without streams that has been quiet for longest.
func (s *server) longestIdle() *peer {
	var found *peer
	for _, p := range s.peers {
		if len(p.conns) == 0 && (found == nil || p.seen.Before(found.seen)) {
			found = p
		}
	}
	return found
}

// remove takes a peer from WireGuard.
func (s *server) remove(p *peer) {
	s.mu.Lock()
	if s.peers[p.public] == p {
		delete(s.peers, p.public)
		delete(s.byAddr, p.addr)
	}
	s.mu.Unlock()
	s.dev.RemovePeer(device.NoisePublicKey(p.public))
	s.bind.Remove(p.public)
}

// cut ends the streams and sessions of keys.
func (s *server) cut(keys [][32]byte) {
	var out []*peer
	var conns []*inner.Conn
	s.mu.Lock()
	for _, k := range keys {
		if p := s.peers[k]; p != nil {
			out = append(out, p)
			for c := range p.conns {
				conns = append(conns, c)
			}
		}
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.Abort()
	}
	if len(conns) > 0 {
		time.Sleep(goodbye)
	}
	for _, p := range out {
		s.remove(p)
	}
}

// sweep ends idle and expired peers until the server stops.
func (s *server) sweep() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	written := time.Now()
	for {
		select {
		case <-s.stop:
			return
		case now := <-tick.C:
			s.sweepAt(now)
			s.whereabouts(now)
			if now.Sub(written) >= timesEvery {
				written = now
				s.guests.sweep()
				s.diary.forget(now)
				if err := s.guests.saveTimes(); err != nil {
					s.log.Warn("the times of sessions were not written", "error", err)
				}
			}
		}
	}
}

func (s *server) sweepAt(now time.Time) {
	var idle []*peer
	var over [][32]byte
	s.mu.Lock()
	s.bury()
	for _, p := range s.peers {
		switch {
		case !p.expires.IsZero() && !now.Before(p.expires):
			over = append(over, p.public)
		case len(p.conns) == 0 && now.Sub(p.seen) >= s.cfg.Idle:
			idle = append(idle, p)
		}
	}
	s.mu.Unlock()
	for _, p := range idle {
		s.remove(p)
	}
	s.cut(over)
}
