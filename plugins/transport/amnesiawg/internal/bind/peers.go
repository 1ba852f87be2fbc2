package bind

import (
	"net/netip"
	"sync"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
)

// peer is what the wire needs to know of a peer of WireGuard's.
type peer struct {
	public [32]byte
	shared [32]byte // X25519 of our key and the peer's
	jar    *obfs.Jar

	mu   sync.Mutex
	mac  *obfs.MAC // of messages to the peer
	addr netip.AddrPort

	// newest is the index of our last initiation, under sent.mu.
	newest uint32
}

// owns says whether an initiation or response of WireGuard's is meant for p.
func (p *peer) owns(msg []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mac.Check(msg)
}

// sign makes the MACs of the wire.
func (p *peer) sign(msg []byte) {
	p.mu.Lock()
	p.mac.Sign(msg)
	p.mu.Unlock()
	p.jar.Sign(msg)
}

// peers are the active peers.
type peers struct {
	mu     sync.RWMutex
	byKey  map[[32]byte]*peer
	byAddr map[netip.AddrPort]*peer // where they were last admitted from
}

func (t *peers) init() {
	t.byKey, t.byAddr = map[[32]byte]*peer{}, map[netip.AddrPort]*peer{}
}

// Add makes a peer known, before WireGuard knows it.
func (b *Bind) Add(public [32]byte) error {
	shared, err := b.reader.Shared(public)
	if err != nil {
		return err
	}
	p := &peer{public: public, shared: shared, jar: obfs.NewJar(public, b.o.Now), mac: obfs.NewMAC(obfs.MAC1Key(public))}
	b.peers.mu.Lock()
	defer b.peers.mu.Unlock()
	if b.peers.byKey[public] == nil {
		b.peers.byKey[public] = p
	}
	return nil
}

// Remove forgets a peer, after WireGuard has.
func (b *Bind) Remove(public [32]byte) {
	t := &b.peers
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.byKey[public]; p != nil {
		delete(t.byKey, public)
		if t.byAddr[p.addr] == p {
			delete(t.byAddr, p.addr)
		}
	}
}

func (t *peers) get(public [32]byte) *peer {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byKey[public]
}

// seen notes where a peer is.
func (t *peers) seen(p *peer, addr netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byKey[p.public] != p {
		return
	}
	if t.byAddr[p.addr] == p {
		delete(t.byAddr, p.addr)
	}
	p.addr = addr
	t.byAddr[addr] = p
}

// find gives the peer whose key made MAC1 of a message. Those at the address it
// goes to are tried first: a stale guess does no harm, MAC1 decides.
func (t *peers) find(msg []byte, to netip.AddrPort) *peer {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if p := t.byAddr[to]; p != nil && p.owns(msg) {
		return p
	}
	for _, p := range t.byKey {
		if p.owns(msg) {
			return p
		}
	}
	return nil
}

// sentLimit bounds how many of our own initiations are remembered.
const sentLimit = 256

// sent are our initiations that may still be answered, the oldest forgotten first:
// answers to anything else end here.
type sent struct {
	mu      sync.Mutex
	ring    [sentLimit]initiation
	next    int
	byIndex map[uint32]int
}

// initiation is one of ours.
type initiation struct {
	peer *peer
	to   *Endpoint
	msg  [obfs.InitiationSize]byte // WireGuard's
	// again: it was repeated with a cookie.
	again bool
}

func (s *sent) init() { s.byIndex = map[uint32]int{} }

func (s *sent) add(p *peer, msg []byte, to *Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &s.ring[s.next]
	if e.peer != nil && s.byIndex[obfs.Sender(e.msg[:])] == s.next {
		delete(s.byIndex, obfs.Sender(e.msg[:]))
	}
	*e = initiation{peer: p, to: to}
	p.newest = obfs.Sender(msg)
	copy(e.msg[:], msg)
	s.byIndex[obfs.Sender(msg)] = s.next
	s.next = (s.next + 1) % sentLimit
}

// newest says that an index is of the last initiation to its peer: WireGuard knows no
// other any more.
func (s *sent) newest(index uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.byIndex[index]
	return ok && s.ring[at].peer.newest == index
}

// cookie gives the initiation that a cookie reply opens for, once.
func (s *sent) cookie(reply []byte) (initiation, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.byIndex[obfs.Sender(reply)]
	if !ok || !s.ring[at].peer.jar.Open(reply) {
		return initiation{}, false
	}
	e := &s.ring[at]
	out := *e
	e.again = true
	return out, true
}
