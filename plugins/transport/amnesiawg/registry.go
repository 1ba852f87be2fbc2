package amnesiawg

import (
	"crypto/rand"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/conf"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// maxID bounds a guest's id, in bytes.
const maxID = 256

// guest is who may come: a device with its key, or a link with the keys of its
// secret.
type guest struct {
	id      string
	secret  *[32]byte  // of a link
	keys    [][32]byte // public
	last    []obfs.Stamp
	expires time.Time // zero is never
	visitor bool      // is not written down
}

func (g *guest) expired(now time.Time) bool { return !g.expires.IsZero() && !now.Before(g.expires) }

// registry are all guests. It may be used concurrently.
type registry struct {
	// saving is held by the one that writes times, so that close waits for it.
	saving sync.Mutex
	// writing is held by the one that changes who is in, while the disk takes it. It
	// is locked before mu, which nobody holds while the disk is waited for: every
	// handshake asks for it. The maps change only with both.
	writing sync.Mutex

	server [32]byte
	limit  int
	now    func() time.Time

	mu     sync.Mutex
	byID   map[string]*guest
	byKey  map[[32]byte]*guest
	byAddr map[netip.Addr][32]byte // inside the tunnel
	// came are the ids of devices since a list of all of them began; nil without one.
	// Used with writing.
	came  map[string]bool
	log   *journal // changes with both as well; used with writing
	times bool     // some time has changed since it was written
}

func newRegistry(server [32]byte, limit int, now func() time.Time, folder string) (*registry, error) {
	r := &registry{
		server: server, limit: limit, now: now,
		byID: map[string]*guest{}, byKey: map[[32]byte]*guest{}, byAddr: map[netip.Addr][32]byte{},
	}
	if folder == "" {
		return r, nil
	}
	var err error
	if r.log, err = openJournal(folder, r.replay); err != nil {
		return nil, err
	}
	for id, g := range r.byID {
		if g.expired(now()) {
			r.drop(id)
		}
	}
	if err := r.loadTimes(); err != nil {
		return nil, err
	}
	if r.log.lines != len(r.byID) {
		err = r.log.compact(r.entries())
	}
	return r, err
}

// device registers a device's key, or renews it. It gives the keys that are no longer
// good.
func (r *registry) device(id string, public [32]byte, expires time.Time) (gone [][32]byte, err error) {
	r.writing.Lock()
	defer r.writing.Unlock()
	g, err := r.candidate(id, public, expires)
	if err != nil {
		return nil, err
	}
	return r.put(g)
}

// candidate is a device that may be taken in.
func (r *registry) candidate(id string, public [32]byte, expires time.Time) (*guest, error) {
	if other := r.byKey[public]; other != nil && other.id != id {
		return nil, &sdk.Error{Kind: sdk.Conflict, Op: "invite", Text: "this key is another guest's"}
	}
	addr := conf.ClientAddr(r.server, public)
	if k, taken := r.byAddr[addr]; taken && k != public || public == r.server {
		return nil, &sdk.Error{Kind: sdk.Conflict, Op: "invite", Text: "this key cannot be used here; draw another"}
	}
	return &guest{id: id, keys: [][32]byte{public}, last: make([]obfs.Stamp, 1), expires: expires}, nil
}

// devices is device for many: one that cannot be taken in is counted, and keeps
// nobody else out. They are on the disk together.
func (r *registry) devices(all []transport.Guest) (gone [][32]byte, added, refused int, err error) {
	r.writing.Lock()
	defer r.writing.Unlock()
	var batch []*guest
	var known []string
	seen := map[[32]byte]bool{}
	room := r.limit - len(r.byID)
	for _, d := range all {
		if len(d.Public) != 32 || seen[[32]byte(d.Public)] {
			refused++
			continue
		}
		g, err := r.candidate(d.ID, [32]byte(d.Public), d.Expires)
		if err == nil {
			err = r.fits(g, room)
		}
		switch {
		case err != nil:
			refused++
		case r.same(g):
			known = append(known, g.id)
		default:
			seen[g.keys[0]] = true
			batch = append(batch, g)
			if r.byID[g.id] == nil {
				room--
			}
		}
	}
	if gone, err = r.put(batch...); err == nil {
		r.note(known...)
	}
	return gone, len(batch), refused, err
}

// note says that devices have come, for the list of all of them.
func (r *registry) note(ids ...string) {
	if r.came == nil {
		return
	}
	for _, id := range ids {
		r.came[id] = true
	}
}

// replacing begins the list of all devices.
func (r *registry) replacing() {
	r.writing.Lock()
	defer r.writing.Unlock()
	r.came = map[string]bool{}
}

// replaced ends the list of all devices: those that did not come are forgotten. It gives
// their keys.
func (r *registry) replaced() (gone [][32]byte, err error) {
	r.writing.Lock()
	defer r.writing.Unlock()
	if r.came == nil {
		return nil, &sdk.Error{Kind: sdk.Invalid, Op: "replace", Text: "no list of all devices has begun"}
	}
	var lines []entry
	for id, g := range r.byID {
		if g.secret == nil && !g.visitor && !r.came[id] {
			lines, gone = append(lines, entry{ID: id, Gone: true}), append(gone, g.keys...)
		}
	}
	r.came = nil
	if len(lines) == 0 {
		return nil, nil
	}
	r.mu.Lock()
	for _, e := range lines {
		r.drop(e.ID)
	}
	r.mu.Unlock()
	if r.log == nil {
		return gone, nil
	}
	if err := r.log.add(lines...); err != nil {
		// As in revoke; the next whole list has them out again.
		return gone, &sdk.Error{Kind: sdk.Unavailable, Op: "replace", Text: "the state folder cannot be written: until it can, devices that were revoked are back after a restart", Err: err}
	}
	if r.log.grown(len(r.byID)) {
		_ = r.log.compact(r.entries())
	}
	return gone, nil
}

// link registers a link, or renews it, and gives its secret.
func (r *registry) link(id string, expires time.Time) (secret [32]byte, gone [][32]byte, err error) {
	r.writing.Lock()
	defer r.writing.Unlock()
	old := r.byID[id]
	g := &guest{id: id, secret: new([32]byte), expires: expires, last: make([]obfs.Stamp, conf.KeysPerLink)}
	if old != nil && old.secret != nil && !old.expired(r.now()) {
		*g.secret, g.keys = *old.secret, old.keys
	} else {
		_, _ = rand.Read(g.secret[:]) // never fails
		for n := range conf.KeysPerLink {
			private, err := conf.LinkKey(*g.secret, n)
			if err != nil {
				return secret, nil, err
			}
			public, err := conf.PublicKey(private)
			if err != nil {
				return secret, nil, err
			}
			g.keys = append(g.keys, public)
		}
	}
	gone, err = r.put(g)
	return *g.secret, gone, err
}

// fits says whether a guest can be taken in where there is room for so many new ones.
func (r *registry) fits(g *guest, room int) error {
	switch {
	case g.id == "" || len(g.id) > maxID:
		return &sdk.Error{Kind: sdk.Invalid, Op: "invite", Text: "a guest's id has 1 to 256 bytes"}
	case r.byID[g.id] == nil && room <= 0:
		return &sdk.Error{Kind: sdk.Full, Op: "invite", Text: "there are as many devices and links as guests in the configuration allows"}
	}
	return nil
}

// same says that a guest is known as it is.
func (r *registry) same(g *guest) bool {
	old := r.byID[g.id]
	return old != nil && slices.Equal(old.keys, g.keys) && old.expires.Equal(g.expires)
}

// put takes guests in, each for the one that has its id, and writes them down. It
// gives the keys that are no longer good.
func (r *registry) put(all ...*guest) (gone [][32]byte, err error) {
	var lines []entry
	for _, g := range all {
		if err := r.fits(g, r.limit-len(r.byID)); err != nil {
			return nil, err
		}
		if !r.same(g) {
			lines = append(lines, g.entry())
		}
	}
	if r.log != nil && len(lines) > 0 {
		if err := r.log.add(lines...); err != nil {
			return nil, &sdk.Error{Kind: sdk.Unavailable, Op: "invite", Text: "the state folder cannot be written", Err: err}
		}
	}
	for _, g := range all {
		r.note(g.id)
	}
	if len(lines) == 0 {
		return nil, nil
	}
	gone = r.exchange(all)
	if r.log != nil && r.log.grown(len(r.byID)) {
		// A journal that grows is a nuisance, not a failure.
		_ = r.log.compact(r.entries())
	}
	return gone, nil
}

// exchange takes guests in, each for the one that has its id, and gives the keys that
// are no longer good.
func (r *registry) exchange(all []*guest) (gone [][32]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range all {
		if old := r.drop(g.id); old != nil {
			for i, k := range old.keys {
				if j := slices.Index(g.keys, k); j >= 0 {
					g.last[j] = old.last[i]
				} else {
					gone = append(gone, k)
				}
			}
		}
		r.insert(g)
	}
	return gone
}

func (r *registry) insert(g *guest) {
	r.byID[g.id] = g
	for _, k := range g.keys {
		r.byKey[k] = g
		r.byAddr[conf.ClientAddr(r.server, k)] = k
	}
}

func (r *registry) drop(id string) *guest {
	g := r.byID[id]
	if g == nil {
		return nil
	}
	delete(r.byID, id)
	for _, k := range g.keys {
		delete(r.byKey, k)
		delete(r.byAddr, conf.ClientAddr(r.server, k))
	}
	return g
}

// revoke forgets a guest and gives its keys.
func (r *registry) revoke(id string) ([][32]byte, error) {
	r.writing.Lock()
	defer r.writing.Unlock()
	r.mu.Lock()
	g := r.drop(id)
	r.mu.Unlock()
	if g == nil {
		return nil, nil
	}
	if r.log != nil {
		if err := r.log.add(entry{ID: id, Gone: true}); err != nil {
			// Without the note it would be back after a restart; until then it is out.
			return g.keys, &sdk.Error{Kind: sdk.Unavailable, Op: "revoke", Text: "the state folder cannot be written: repeat it, or the guest is back after a restart", Err: err}
		}
	}
	return g.keys, nil
}

// visit lets a key in that is nobody's and is not written down, or ends that.
func (r *registry) visit(public [32]byte, begin bool) {
	id := "visit/" + string(public[:])
	r.writing.Lock()
	defer r.writing.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !begin {
		r.drop(id)
		return
	}
	r.insert(&guest{id: id, keys: [][32]byte{public}, last: make([]obfs.Stamp, 1), expires: r.now().Add(time.Minute), visitor: true})
}

// sweep forgets guests whose time is over.
func (r *registry) sweep() {
	r.writing.Lock()
	defer r.writing.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	for id, g := range r.byID {
		if g.expired(now) {
			r.drop(id)
		}
	}
}

// known gives when a key's time is over; ok says that it may come.
func (r *registry) known(public [32]byte) (expires time.Time, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.byKey[public]
	if g == nil || g.expired(r.now()) {
		return time.Time{}, false
	}
	return g.expires, true
}

// knownAt is known for an address inside the tunnel.
func (r *registry) knownAt(addr netip.Addr) bool {
	r.mu.Lock()
	k, ok := r.byAddr[addr]
	r.mu.Unlock()
	if ok {
		_, ok = r.known(k)
	}
	return ok
}

// advance notes the time of a key's initiation; false says that it is not later than
// the last one.
func (r *registry) advance(public [32]byte, stamp obfs.Stamp) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.byKey[public]
	if g == nil {
		return false
	}
	at := slices.Index(g.keys, public)
	if !stamp.After(g.last[at]) {
		return false
	}
	g.last[at], r.times = stamp, true
	return true
}

// close writes times and ends the journal; from then on nothing is written down.
func (r *registry) close() error {
	r.saving.Lock()
	defer r.saving.Unlock()
	err := r.writeTimes()
	r.writing.Lock()
	defer r.writing.Unlock()
	r.mu.Lock()
	log := r.log
	r.log = nil
	r.mu.Unlock()
	if log == nil {
		return nil
	}
	if cerr := log.close(); err == nil {
		err = cerr
	}
	return err
}
