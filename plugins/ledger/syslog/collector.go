package syslog

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
)

// What is sent again on a new connection.
const (
	keepRecords = 256
	keepBytes   = 1 << 20
)

// collector is the connection to one syslog server.
type collector struct {
	form    form
	dialer  *tls.Dialer
	addr    string
	timeout time.Duration
	env     sdk.Env

	closed atomic.Bool
	// busy is held by the one caller that sends; a channel, so that waiting ends
	// with a context.
	busy chanLock
	conn *link
	// recent are the newest records sent, each in its frame.
	recent []sent
	bytes  int
}

type sent struct {
	seq   uint64
	frame []byte
}

// chanLock is a mutex whose Lock ends with a context.
type chanLock struct {
	once sync.Once
	slot chan struct{}
}

func (l *chanLock) lock(ctx context.Context) error {
	l.once.Do(func() { l.slot = make(chan struct{}, 1) })
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case l.slot <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *chanLock) unlock() { <-l.slot }

var _ ledger.Ledger = (*collector)(nil)

func fail(kind sdk.ErrorKind, text string, err error) error {
	return &sdk.Error{Kind: kind, Op: "ledger syslog", Text: text, Err: err}
}

// Submit implements ledger.Ledger: nil means that the records were given to the
// connection. An error of kind Unavailable says that the collector cannot be
// reached now; the core keeps the records.
func (c *collector) Submit(ctx context.Context, records []ledger.Record) error {
	for _, r := range records {
		if err := r.Check(); err != nil {
			return err
		}
	}
	if c.closed.Load() {
		return fail(sdk.Closed, "it has been closed", nil)
	}
	if err := c.busy.lock(ctx); err != nil {
		return err
	}
	defer c.busy.unlock()
	if len(records) == 0 {
		return nil
	}
	err := c.send(ctx, records)
	c.env.Degraded(err)
	return err
}

func (c *collector) send(ctx context.Context, records []ledger.Record) error {
	var buf []byte
	if c.conn == nil || c.conn.ended() {
		if err := c.connect(ctx); err != nil {
			return err
		}
		for _, s := range c.recent {
			if s.seq < records[0].Seq {
				buf = append(buf, s.frame...)
			}
		}
	}
	var fresh []sent
	for _, r := range records {
		frame := c.form.append(nil, r)
		fresh = append(fresh, sent{r.Seq, frame})
		buf = append(buf, frame...)
	}
	if err := c.conn.write(ctx, buf, c.timeout); err != nil {
		c.drop()
		return fail(sdk.Unavailable, "the connection to "+c.addr+" broke", err)
	}
	c.remember(fresh)
	return nil
}

func (c *collector) remember(fresh []sent) {
	for _, s := range fresh {
		c.recent, c.bytes = append(c.recent, s), c.bytes+len(s.frame)
	}
	drop := 0
	for len(c.recent)-drop > keepRecords || c.bytes > keepBytes {
		c.bytes -= len(c.recent[drop].frame)
		drop++
	}
	c.recent = append(c.recent[:0:0], c.recent[drop:]...)
}

func (c *collector) connect(ctx context.Context) error {
	c.drop()
	dial, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	conn, err := c.dialer.DialContext(dial, "tcp", c.addr)
	if err != nil {
		return fail(sdk.Unavailable, "the collector "+c.addr+" cannot be reached", err)
	}
	c.conn = watch(conn)
	return nil
}

func (c *collector) drop() {
	if c.conn != nil {
		c.conn.close()
		c.conn = nil
	}
}

// Head implements ledger.Ledger: it keeps nothing.
func (c *collector) Head(ctx context.Context) (ledger.Record, error) {
	return ledger.Record{}, c.usable(ctx)
}

// Read implements ledger.Ledger: it keeps nothing.
func (c *collector) Read(ctx context.Context, _ uint64, _ int) ([]ledger.Record, error) {
	return nil, c.usable(ctx)
}

func (c *collector) usable(ctx context.Context) error {
	if c.closed.Load() {
		return fail(sdk.Closed, "it has been closed", nil)
	}
	return ctx.Err()
}

// Close implements ledger.Ledger.
func (c *collector) Close(ctx context.Context) error {
	if c.closed.Swap(true) {
		return nil
	}
	if err := c.busy.lock(ctx); err != nil {
		return err
	}
	defer c.busy.unlock()
	c.drop()
	return nil
}

// link is a connection whose end is noticed while nothing is sent: a collector
// never speaks, so whatever reading answers is the end.
type link struct {
	conn net.Conn
	over chan struct{}
}

func watch(conn net.Conn) *link {
	l := &link{conn: conn, over: make(chan struct{})}
	go func() {
		defer close(l.over)
		_, _ = io.Copy(io.Discard, conn) // whatever ends it: the link is over
	}()
	return l
}

func (l *link) ended() bool {
	select {
	case <-l.over:
		return true
	default:
		return false
	}
}

func (l *link) write(ctx context.Context, b []byte, timeout time.Duration) error {
	_ = l.conn.SetWriteDeadline(time.Now().Add(timeout)) // a closed conn shows in Write
	stop := context.AfterFunc(ctx, func() { _ = l.conn.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err := l.conn.Write(b)
	return err
}

// close says goodbye (close_notify) and waits for the watching goroutine.
func (l *link) close() {
	_ = l.conn.Close() // nothing can be done about it
	<-l.over
}
