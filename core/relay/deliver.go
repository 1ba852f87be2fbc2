package relay

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/storage"
)

// outbound is what the device receives. It is live while every stored row up to
// tail was pushed or stands in the backlog; otherwise it lags, and one goroutine
// reads pages from storage while the window is open.
type outbound struct {
	mu      sync.Mutex
	started bool
	ended   bool
	live    bool
	dirty   bool   // a row was stored since the page that is being read was asked for
	reading bool   // the goroutine runs
	tail    uint64 // everything up to here was seen
	pushed  uint64 // everything up to here was handed to the session
	ring    ring

	backlog      []Delivery
	backlogBytes int

	hist  *history
	since time.Time // when the link began
	lives bool      // the device said so while rows waited for its Done
	held  []uint64  // seen but not for this connection: no Done may cover them
	alone uint64    // a suspicious row that was sent and not acknowledged
	timer *time.Timer
}

const (
	backlogMost  = 256
	backlogBytes = 128 << 10
	// A closed window opens for reading again when a quarter of it is free.
	reopen = 4
	// overhead counts a message's own cost besides its body.
	overhead = 64
	maxHeld  = 4096
	// aloneFor is how long a suspicious row holds back the others.
	aloneFor = 10 * time.Second
)

// open says that one more message of size bytes may be pushed. mu is held.
func (l *Link) open(size int) bool {
	o, lim := &l.out, &l.h.opt.Limits
	if o.alone != 0 {
		return false
	}
	return o.ring.waiting == 0 || o.ring.waiting < lim.InFlight && o.ring.bytes+size <= lim.InFlightBytes
}

// stored is told by a lane that a row of this device is on stable storage.
func (l *Link) stored(f *flight, r *recipient, position uint64) {
	o := &l.out
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.ended:
	case !o.live || f.moved != nil:
		l.lag()
	case l.h.opt.Traits.Shared && position > o.tail+1:
		// Another node may have stored what lies between.
		l.lag()
	case position <= o.tail:
		// Another attempt's row, or one that a page brought already.
	default:
		d := f.delivery(r, position)
		if !l.fits(&d) {
			o.tail = position
			o.pass(position)
			return
		}
		size := len(d.Body) + overhead
		if len(o.backlog) == 0 && l.open(size) {
			o.tail = position
			l.push(&d)
			return
		}
		if len(o.backlog) < backlogMost && o.backlogBytes+size <= backlogBytes {
			o.tail = position
			o.backlog = append(o.backlog, d)
			o.backlogBytes += size
			return
		}
		l.lag()
	}
}

// lag makes the link read from storage what it did not push. mu is held.
func (l *Link) lag() {
	o := &l.out
	if o.live {
		o.live = false
		o.tail = o.pushed
		o.backlog, o.backlogBytes = nil, 0
	}
	o.dirty = true
	l.drainIfOpen()
}

// pass notes a row that is not for this connection. What is forgotten of a long
// list could never be delivered.
func (o *outbound) pass(position uint64) {
	if len(o.held) == maxHeld {
		o.held = o.held[:copy(o.held, o.held[1:])]
	}
	o.held = append(o.held, position)
}

// reread makes the link look into storage for rows that it was not told of.
func (l *Link) reread() {
	l.out.mu.Lock()
	l.lag()
	l.out.mu.Unlock()
}

// push hands one message over; mu is held.
func (l *Link) push(d *Delivery) {
	o := &l.out
	o.pushed = d.Position
	o.ring.push(d.Position, len(d.Body)+overhead)
	if o.hist != nil && d.Position <= o.hist.high {
		d.Flags |= FlagSentBefore
	}
	if d.Flags&FlagDirect != 0 && !l.ack {
		d.Channel = directChannel(d.Device, l.device)
	}
	if l.plain && !safeForPlain(d) {
		// It could never be shown; it counts as delivered.
		l.acknowledged(d.Position, d.Position)
		return
	}
	if !l.box.Push(*d) {
		o.ended = true
		return
	}
	l.h.metrics.Delivered(d.Flags&FlagSentBefore != 0)
}

// fits says whether the peer can receive a message at all.
func (l *Link) fits(d *Delivery) bool {
	return l.records || len(d.Body) <= maxBodyWithoutRecords
}

// maxBodyWithoutRecords is the largest body whose frame fits one record of a peer
// without the capability records.
const maxBodyWithoutRecords = ccp.MaxRecordFrame - ccp.MaxHeader - 64 - 2*255

// drainIfOpen starts the reading goroutine if the link lags and there is room.
// mu is held.
func (l *Link) drainIfOpen() {
	o, lim := &l.out, &l.h.opt.Limits
	if !o.started || o.ended || o.live || o.reading || o.alone != 0 {
		return
	}
	if o.ring.waiting > 0 && (o.ring.waiting > lim.InFlight-lim.InFlight/reopen || o.ring.bytes > lim.InFlightBytes-lim.InFlightBytes/reopen) {
		return
	}
	o.reading = true
	go l.drain()
}

// drain reads pages until the window closes or the link is live.
func (l *Link) drain() {
	wait := retryFirst
	for {
		o, lim := &l.out, &l.h.opt.Limits
		o.mu.Lock()
		room := storage.Page{Messages: lim.InFlight - o.ring.waiting, Bytes: lim.InFlightBytes - o.ring.bytes}
		if o.ended || room.Messages <= 0 || room.Bytes <= 0 || o.alone != 0 {
			o.reading = false
			o.mu.Unlock()
			return
		}
		o.dirty = false
		after := o.tail
		o.mu.Unlock()

		rows, err := l.h.read(l.ctx, l.device, after, room)
		if err != nil {
			if l.ctx.Err() != nil {
				o.mu.Lock()
				o.reading = false
				o.mu.Unlock()
				return
			}
			l.h.log.Warn("read queue", "device", l.device, "error", err)
			l.h.sleep(l.ctx, wait/2+rand.N(wait/2+1))
			wait = min(2*wait, retryMost)
			continue
		}
		wait = retryFirst
		page := l.openPage(rows)
		if l.pushPage(page, short(rows, room)) {
			return
		}
	}
}

// short says that a page ended because the queue did.
func short(rows []storage.Envelope, p storage.Page) bool {
	n := 0
	for i := range rows {
		n += len(rows[i].Payload)
	}
	return len(rows) < p.Messages && n <= p.Bytes
}

// pageRow is one row of a page; skip says why it is not pushed.
type pageRow struct {
	d       Delivery
	skip    bool
	suspect bool // was moved behind the others: sent alone
	row     *storage.Envelope
}

func (l *Link) openPage(rows []storage.Envelope) []pageRow {
	v := l.h.vaults.Get().(*vault)
	defer l.h.vaults.Put(v)
	page := make([]pageRow, len(rows))
	for i := range rows {
		p, r := &page[i], &rows[i]
		p.row = r
		p.d.Position = r.Position
		var e envelope
		if err := v.openRow(&e, r.Payload, l.device, r.ID); err != nil {
			l.h.log.Error("open row", "device", l.device, "position", r.Position, "error", err)
			p.skip = true
			continue
		}
		p.suspect = e.flags&flagMoved != 0
		p.d = Delivery{
			Position: r.Position, Kind: e.kind, Flags: e.flags &^ flagMoved, ID: e.id, Channel: e.channel,
			Time: e.time, Device: e.device, User: e.user, Body: e.body,
		}
	}
	return page
}

// pushPage pushes what the window takes and says whether the goroutine is to
// end: the link has become live, or there is no room.
func (l *Link) pushPage(page []pageRow, last bool) (end bool) {
	o := &l.out
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range page {
		p := &page[i]
		size := len(p.d.Body) + overhead
		switch {
		case o.ended:
			o.reading = false
			return true
		case p.skip || !l.fits(&p.d):
			o.pass(p.d.Position)
		case o.hist.poisoned(p.d.Position):
			o.pass(p.d.Position)
			l.h.moveBehind(l, *p.row, p.d)
		case !l.open(size) || p.suspect && o.ring.waiting > 0:
			o.reading = false
			return true
		default:
			l.push(&p.d)
			if p.suspect {
				l.hold(p.d.Position)
			}
		}
		o.tail = p.d.Position
	}
	if last && !o.dirty && o.alone == 0 {
		o.live = true
		o.pushed = o.tail
	}
	if o.live || o.alone != 0 {
		o.reading = false
		return true
	}
	return false
}

// hold keeps the others back until the suspicious row is acknowledged, or for
// aloneFor. mu is held.
func (l *Link) hold(position uint64) {
	o := &l.out
	o.alone = position
	o.timer = time.AfterFunc(aloneFor, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.alone == position {
			o.alone = 0
			l.resume()
		}
	})
}

// resume pushes what waited for room. mu is held.
func (l *Link) resume() {
	o := &l.out
	n := 0
	for n < len(o.backlog) && l.open(len(o.backlog[n].Body)+overhead) {
		d := &o.backlog[n]
		o.backlogBytes -= len(d.Body) + overhead
		l.push(d)
		*d = Delivery{}
		n++
	}
	if n == len(o.backlog) {
		o.backlog = o.backlog[:0]
		if cap(o.backlog) > 64 {
			o.backlog = nil
		}
	} else {
		o.backlog = o.backlog[n:]
	}
	l.drainIfOpen()
}

// endOutbound stops delivery and remembers what the peer has not acknowledged.
func (l *Link) endOutbound() {
	o := &l.out
	o.mu.Lock()
	o.ended = true
	o.live = false
	o.backlog = nil
	if o.timer != nil {
		o.timer.Stop()
	}
	first, pushed := o.ring.first(), o.pushed
	suspect := !o.lives && l.h.now().Sub(o.since) < outlived
	o.ring.free()
	o.mu.Unlock()
	l.h.histories.ended(l.device, first, pushed, suspect)
}
