package reality

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/commucat/commucat/sdk/transport"
)

// Sizes of an exchange's buffers, and how long a half-closed cover is waited for: as
// long as a kernel keeps a socket that nobody owns. A chunk is what servers read at once:
// bytes that come together must reach the cover together, or it may have closed meanwhile.
const (
	chunk     = 17 << 10
	keptBytes = 64 << 10
	halfTime  = 60 * time.Second
)

// mode says where the cover's bytes go.
type mode uint8

const (
	undecided mode = iota // to the client; the first one makes it relaying
	relaying              // to the client, for good
	keeping               // into kept: the module answers in the cover's place
	over                  // nowhere
)

// exchange joins one client with its own connection to the cover, from accept on.
//
// Two goroutines: up reads the client, down reads the cover. The mode changes under
// mu, and up holds mu from before a hello's last bytes reach the cover until it is
// known whose hello it is, so that the cover's answer always finds the right mode.
type exchange struct {
	client, cover net.Conn // cover is set by attach
	cancel        func()   // the dial of the cover
	source        netip.Addr
	rate          func() *pace // nil without limit
	patient       bool         // do not give up on a cover that speaks early
	touched       atomic.Int64 // Unix nanoseconds of the last byte
	came          time.Time
	shown         atomic.Uint32 // the mode, for whoever has not got mu
	bell          *bell         // told of every change of the mode; set before the first
	met           atomic.Bool   // the cover is there, and the client's first bytes are looked at

	party *party // the crowd's, with place; nil outside
	place int

	mu      sync.Mutex
	changed sync.Cond
	mode    mode
	kept    []byte
	skip    int   // bytes of the cover's flight that are still to be dropped
	ended   error // how the cover's side ended; nil while it lasts
	flight  int   // how much of the cover's stream the module's flight stands for; 0 before

	ends    sync.Mutex
	evicted bool

	downDone chan struct{}
	dead     chan struct{} // the cover's socket takes nothing any more
	deadOnce sync.Once
	upDone   chan struct{}
	upEnded  atomic.Bool // the client's end has been passed on
	writing  sync.Mutex  // held while bytes go to the cover
	wasReset atomic.Bool // a write met the cover's reset
	late     func()      // told when the cover keeps a client waiting; may be nil
}

func newExchange(client net.Conn, source netip.Addr, cancel func()) *exchange {
	x := &exchange{
		client: client, source: source, cancel: cancel, came: time.Now(),
		downDone: make(chan struct{}), dead: make(chan struct{}), upDone: make(chan struct{}),
	}
	x.changed.L = &x.mu
	x.touch()
	return x
}

// turn changes the mode; mu is held.
func (x *exchange) turn(m mode) {
	x.mode = m
	x.shown.Store(uint32(m))
	x.bell.ring()
}

// answered reports that the client has shown the key and the cover has not got it.
func (x *exchange) answered() bool {
	m := mode(x.shown.Load())
	return m == keeping || m == over
}

// spareTime is how long who has shown the key has to finish while others want the place.
const spareTime = 10 * time.Second

func (x *exchange) spared(now time.Time) bool {
	if !x.met.Load() && mode(x.shown.Load()) == undecided {
		return true
	}
	return x.answered() && now.Sub(x.came) < spareTime
}

func (x *exchange) touch() { x.touched.Store(time.Now().UnixNano()) }

// attach starts the cover's side. It is false after evict.
func (x *exchange) attach(cover net.Conn) bool {
	x.ends.Lock()
	defer x.ends.Unlock()
	if x.evicted {
		reset(cover)
		return false
	}
	x.cover = cover
	x.touch() // who waited for its turn is not the longest silent
	x.met.Store(true)
	go x.down()
	return true
}

// evict ends both sides at once, from any goroutine.
func (x *exchange) evict() {
	x.ends.Lock()
	defer x.ends.Unlock()
	x.evicted = true
	x.cancel()
	reset(x.client)
	if x.cover != nil {
		reset(x.cover)
	}
}

// first mirrors the client to the cover until it is known whether its first record
// is a hello for us; admit says so and is called once at most. It returns false when the
// exchange is over or belongs to the cover.
func (x *exchange) first(admit func(record []byte) bool) (record []byte, ours bool) {
	buf := make([]byte, 0, chunk)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := x.client.Read(buf[len(buf):cap(buf)])
		if n > 0 {
			x.touch()
			from := len(buf)
			buf = buf[:from+n]
			state := inspect(buf)
			x.mu.Lock()
			werr := x.toCover(buf[from:])
			switch {
			case werr != nil:
				x.coverDead()
				x.turn(relaying)
			case x.mode == relaying || state == recordAlien:
				x.turn(relaying)
			case state == recordHello && admit(buf):
				x.turn(keeping)
			case state == recordHello:
				x.turn(relaying)
			}
			mode := x.mode
			x.mu.Unlock()
			if mode != undecided {
				return buf, mode == keeping
			}
		}
		if err != nil {
			x.upEnds(err)
			return nil, false
		}
	}
}

// toCover writes to the cover, and notes a reset that the write meets.
func (x *exchange) toCover(b []byte) error {
	x.writing.Lock()
	defer x.writing.Unlock()
	_, err := x.cover.Write(b)
	if errors.Is(err, syscall.ECONNRESET) {
		x.wasReset.Store(true)
	}
	return err
}

// heardOfReset says whether an end of stream hides a reset: the kernel tells of one once,
// and where a write hears of it a read sees an end. A reset that comes after an orderly end
// is none of that kind: the client sees the end first there too, and the reset after it.
func (x *exchange) heardOfReset() bool {
	if isClosed(x.cover) {
		x.writing.Lock() // a write that is under way ends at once, and tells
		defer x.writing.Unlock()
	}
	return x.wasReset.Load()
}

func (x *exchange) coverDead() { x.deadOnce.Do(func() { close(x.dead) }) }

// up copies the client to the cover until the client ends.
func (x *exchange) up() {
	var p *pace
	if x.rate != nil {
		p = x.rate()
	}
	buf := make([]byte, chunk)
	for {
		n, err := x.client.Read(buf)
		if n > 0 {
			x.touch()
			if x.toCover(buf[:n]) != nil {
				x.coverDead()
				<-x.downDone // it still brings the cover's last words
				return
			}
			p.wait(n)
		}
		if err != nil {
			x.upEnds(err)
			return
		}
	}
}

// upEnds passes the client's end on: an end of stream or a reset.
func (x *exchange) upEnds(err error) {
	x.upEnded.Store(true)
	if errors.Is(err, io.EOF) {
		if transport.CloseWrite(x.cover) != nil {
			x.coverDead()
		}
	} else {
		reset(x.cover)
	}
}

// finish waits until both sides are over and closes them.
func (x *exchange) finish() {
	close(x.upDone)
	<-x.downDone
	_ = x.client.Close()
	_ = x.cover.Close()
}

// down copies the cover to wherever the mode says, until the cover ends.
func (x *exchange) down() {
	defer close(x.downDone)
	var p *pace
	if x.rate != nil {
		p = x.rate()
	}
	buf := make([]byte, chunk)
	for {
		n, err := x.cover.Read(buf)
		if n > 0 {
			x.touch()
		}
		b, relay := x.sort(buf[:n], err)
		if !relay {
			return
		}
		if len(b) > 0 {
			if _, werr := x.client.Write(b); werr != nil {
				reset(x.cover) // as the cover's own kernel would have been told
				reset(x.client)
				return
			}
			p.wait(len(b))
		}
		if err != nil {
			x.downEnds(err)
			return
		}
	}
}

// sort takes what the cover sent, and its end, to where the mode says. While bytes are
// being kept it does not return; b is what goes to the client now. relay is false when
// the exchange is over.
func (x *exchange) sort(b []byte, end error) (rest []byte, relay bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.mode == undecided && (len(b) > 0 || end != nil) {
		x.turn(relaying)
	}
	if x.mode == keeping {
		x.kept = append(x.kept, b...)
		b = nil
		if end != nil {
			x.ended = end
		}
		x.spoken()
		x.changed.Broadcast()
		// More than anybody sends before the client has finished, or an end.
		for x.mode == keeping && (end != nil || len(x.kept) > keptBytes) {
			x.changed.Wait()
		}
	}
	if x.mode == relaying && x.skip > 0 {
		n := min(x.skip, len(b))
		x.skip -= n
		b = b[n:]
	}
	return b, x.mode != over
}

// spoken wakes whoever reads the client for the module when the cover has said more
// than its flight, or ended: the cover's word counts. mu is held.
func (x *exchange) spoken() {
	if x.flight > 0 && (x.ended != nil || len(x.kept) > x.flight && !x.patient) {
		_ = x.client.SetReadDeadline(aLongTimeAgo)
	}
}

// giveBack ends keeping in the cover's favour: the client gets what the module's flight,
// if it was sent, does not stand for, and whatever follows.
func (x *exchange) giveBack() {
	x.mu.Lock()
	defer x.mu.Unlock()
	rest := x.kept
	if x.flight > len(rest) {
		x.skip, rest = x.flight-len(rest), nil
	} else {
		rest = rest[x.flight:]
	}
	if len(rest) > 0 {
		_, _ = x.client.Write(rest) // an error shows again in up and down
	}
	x.kept = nil
	x.turn(relaying)
	_ = x.client.SetReadDeadline(time.Time{})
	x.changed.Broadcast()
}

// leave ends the cover's part: the client is ours.
func (x *exchange) leave() {
	x.mu.Lock()
	x.kept = nil
	x.turn(over)
	x.changed.Broadcast()
	x.mu.Unlock()
	_ = x.cover.Close()
	<-x.downDone
	_ = x.client.SetReadDeadline(time.Time{})
}

// downEnds passes the cover's end on. After an end of stream the cover may still take
// bytes, or may be gone: then the client's next ones must meet a reset, as they would
// there.
func (x *exchange) downEnds(err error) {
	if !errors.Is(err, io.EOF) || x.heardOfReset() {
		reset(x.client)
		return
	}
	_ = transport.CloseWrite(x.client)
	gone := make(chan bool, 1)
	go func() { gone <- x.goneWithin(halfTime) }()
	select {
	case <-x.upDone: // both sides have ended
		_ = x.cover.SetReadDeadline(aLongTimeAgo)
		<-gone
	case yes := <-gone:
		switch {
		case x.upEnded.Load():
		case yes:
			reset(x.client)
		default:
			_ = x.client.Close()
		}
	}
}

// goneWithin waits for the end of the cover's socket.
func (x *exchange) goneWithin(d time.Duration) bool {
	if gone, able := awaitGone(x.cover, time.Now().Add(d)); able {
		return gone
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-x.dead:
		return true
	case <-x.upDone:
	case <-timer.C:
	}
	return false
}
