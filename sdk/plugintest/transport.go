package plugintest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/transport"
)

// TransportPair is a transport under test: both halves, joined on this machine.
type TransportPair struct {
	// Name is what Facts.Transport must say.
	Name string
	// Start runs the server half until the test ends (t.Cleanup), calling
	// accept for each session, and returns how a client gets a stream to it.
	Start func(t testing.TB, accept func(net.Conn)) (dial func(context.Context) (net.Conn, error))
	// Buffered is the most bytes that may be on the way to a peer that does
	// not read; 0 means 16 MiB.
	Buffered int
	// Clients is how many clients are connected at once; 0 means 100. With the race
	// detector it is a fifth.
	Clients int

	loose bool // the conns themselves need not know the name
	whole bool // the end of a stream is its close
}

// patience bounds everything that must happen, also on a machine that has other things
// to do.
const patience = 60 * time.Second

// Transport runs the conformance cases of transports against pair: echo with
// half-close, metadata, deadlines that wake, closes that wake, last bytes that
// arrive, back-pressure, many and slow clients, and that goroutines and
// descriptors are given back.
func Transport(t *testing.T, pair TransportPair) { TransportCases(Wrap(t), pair) }

// TransportCases is Transport for any T.
func TransportCases(t T, pair TransportPair) {
	if pair.Buffered == 0 {
		pair.Buffered = 16 << 20
	}
	if pair.Clients == 0 {
		pair.Clients = 100
	}
	pair.Clients = (pair.Clients + fewerClients - 1) / fewerClients
	cases := []struct {
		name string
		run  func(T, TransportPair)
	}{
		{"echo", transportEcho},
		{"full duplex", transportDuplex},
		{"facts", transportFacts},
		{"client read deadline", transportClientReadDeadline},
		{"server read deadline", transportServerReadDeadline},
		{"write deadlines", transportWriteDeadlines},
		{"close wakes", transportCloseWakes},
		{"last words of the server", transportLastWordsServer},
		{"last words of the client", transportLastWordsClient},
		{"accept returns", transportAcceptReturns},
		{"closed", transportClosed},
		{"back-pressure", transportBackPressure},
		{"many clients", transportMany},
		{"slow client", transportSlow},
		{"cancelled dial", transportCancelled},
		{"leaks", transportLeaks},
	}
	for _, c := range cases {
		t.Run(c.name, func(t T) { c.run(t, pair) })
	}
}

// echo sends back what comes until the client's half-close.
func echo(c net.Conn) {
	_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	_ = c.Close()
}

func dialOne(t testing.TB, dial func(context.Context) (net.Conn, error)) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := dial(ctx)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// joined gives both ends of one session; the server's ends with the test.
func joined(t testing.TB, pair TransportPair) (client, server net.Conn) {
	t.Helper()
	got := make(chan net.Conn, 1)
	over := make(chan struct{})
	dial := pair.Start(t, func(c net.Conn) {
		got <- c
		<-over
	})
	t.Cleanup(func() { close(over) })
	client = dialOne(t, dial)
	// Some transports accept when the first byte is there.
	if _, err := client.Write([]byte("!")); err != nil {
		t.Fatal(err)
	}
	select {
	case server = <-got:
	case <-time.After(patience):
		t.Fatal("nothing was accepted")
	}
	if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return client, server
}

func transportEcho(t T, pair TransportPair) {
	dial := pair.Start(t, echo)
	for _, size := range []int{1, 1000, 1 << 20} {
		c := dialOne(t, dial)
		sent := make([]byte, size)
		for i := range sent {
			sent[i] = byte(rand.Uint32())
		}
		wrote := make(chan error, 1)
		go func() {
			_, err := c.Write(sent)
			if !pair.whole {
				err = errors.Join(err, transport.CloseWrite(c))
			}
			wrote <- err
		}()
		var from io.Reader = c
		if pair.whole {
			from = io.LimitReader(c, int64(size))
		}
		got, err := io.ReadAll(from)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d bytes: got %d, %v", size, len(got), err)
		}
		if err := <-wrote; err != nil {
			t.Errorf("%d bytes: write: %v", size, err)
		}
	}
}

// Both ends send 1 MiB in random pieces at the same time.
func transportDuplex(t T, pair TransportPair) {
	client, server := joined(t, pair)
	const total = 1 << 20
	var wg sync.WaitGroup
	for i, end := range []net.Conn{client, server} {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for left := total; left > 0; {
				p := make([]byte, min(left, 1+r.IntN(40_000)))
				for j := range p {
					p[j] = byte(total - left + j + i)
				}
				if _, err := end.Write(p); err != nil {
					t.Errorf("end %d: write: %v", i, err)
					return
				}
				left -= len(p)
			}
		})
		wg.Go(func() {
			got := make([]byte, total)
			if _, err := io.ReadFull(end, got); err != nil {
				t.Errorf("end %d: read: %v", i, err)
				return
			}
			for j, b := range got {
				if b != byte(j+1-i) {
					t.Errorf("end %d: byte %d differs", i, j)
					return
				}
			}
		})
	}
	wg.Wait()
}

func transportFacts(t T, pair TransportPair) {
	client, server := joined(t, pair)
	f := transport.FactsOf(server)
	if f.Transport != pair.Name && !(pair.loose && f.Transport == "") {
		t.Errorf("transport %q, want %q", f.Transport, pair.Name)
	}
	if !f.Hidden && f.Circuit == "" && !f.Remote.IsValid() {
		t.Error("neither an address nor a circuit")
	}
	if f.Context == nil {
		t.Error("no context")
	}
	for _, c := range []net.Conn{client, server} {
		if c.LocalAddr() == nil || c.RemoteAddr() == nil {
			t.Errorf("%T: nil address", c)
		}
	}
}

// wakes says whether op ends with want within patience.
func wakes(t T, what string, want error, op func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- op() }()
	select {
	case err := <-done:
		if want != nil && !errors.Is(err, want) || err == nil {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	case <-time.After(patience):
		t.Errorf("%s: still blocked", what)
	}
}

func readOne(c net.Conn) func() error {
	return func() error { _, err := c.Read(make([]byte, 1)); return err }
}

// fill writes until it fails.
func fill(c net.Conn) func() error {
	return func() error {
		p := make([]byte, 32<<10)
		for {
			if _, err := c.Write(p); err != nil {
				return err
			}
		}
	}
}

func transportClientReadDeadline(t T, pair TransportPair) {
	client, _ := joined(t, pair)
	checkReadDeadline(t, client)
}

func transportServerReadDeadline(t T, pair TransportPair) {
	_, server := joined(t, pair)
	checkReadDeadline(t, server)
}

// A deadline that has passed may end the stream; one that was moved may not.
func checkReadDeadline(t T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(30 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	wakes(t, "read", os.ErrDeadlineExceeded, readOne(c))
	wakes(t, "read again", nil, readOne(c))
}

func transportWriteDeadlines(t T, pair TransportPair) {
	client, server := joined(t, pair)
	for name, c := range map[string]net.Conn{"client": client, "server": server} {
		if err := c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		wakes(t, name+": write", nil, fill(c))
	}
}

func transportCloseWakes(t T, pair TransportPair) {
	t.Run("client", func(t T) {
		client, _ := joined(t, pair)
		closeWakes(t, client)
	})
	t.Run("server", func(t T) {
		_, server := joined(t, pair)
		closeWakes(t, server)
	})
}

func closeWakes(t T, c net.Conn) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() { wakes(t, "read", net.ErrClosed, readOne(c)) })
	wg.Go(func() { wakes(t, "write", nil, fill(c)) })
	// Whether the close finds them blocked or not yet begun, both must end.
	if err := c.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	wg.Wait()
	if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Errorf("second close: %v", err)
	}
}

func transportLastWordsServer(t T, pair TransportPair) {
	words := bytes.Repeat([]byte("bye"), 1000)
	dial := pair.Start(t, func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		_, _ = c.Write(words)
		_ = c.Close()
	})
	for range 20 {
		c := dialOne(t, dial)
		if _, err := c.Write([]byte("!")); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, words) {
			t.Fatalf("got %d bytes, %v", len(got), err)
		}
	}
}

func transportLastWordsClient(t T, pair TransportPair) {
	words := bytes.Repeat([]byte("bye"), 1000)
	type result struct {
		got []byte
		err error
	}
	results := make(chan result, 1)
	dial := pair.Start(t, func(c net.Conn) {
		got, err := io.ReadAll(c)
		results <- result{got, err}
	})
	for range 20 {
		c := dialOne(t, dial)
		if _, err := c.Write(words); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		select {
		case r := <-results:
			if r.err != nil || !bytes.Equal(r.got, words) {
				t.Fatalf("got %d bytes, %v", len(r.got), r.err)
			}
		case <-time.After(patience):
			t.Fatal("the server saw no end")
		}
	}
}

func transportAcceptReturns(t T, pair TransportPair) {
	dial := pair.Start(t, func(c net.Conn) { _, _ = io.ReadFull(c, make([]byte, 1)) })
	c := dialOne(t, dial)
	if _, err := c.Write([]byte("!")); err != nil {
		t.Fatal(err)
	}
	wakes(t, "read after the session", nil, readOne(c))
}

func transportClosed(t T, pair TransportPair) {
	client, server := joined(t, pair)
	for _, c := range []net.Conn{client, server} {
		_ = c.Close()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%T: read: %v", c, err)
		}
		if _, err := c.Write(make([]byte, 1)); err == nil {
			t.Errorf("%T: written after close", c)
		}
	}
}

func transportBackPressure(t T, pair TransportPair) {
	client, server := joined(t, pair)
	for name, c := range map[string]net.Conn{"client": client, "server": server} {
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		p := make([]byte, 32<<10)
		sent := 0
		for {
			n, err := c.Write(p)
			sent += n
			if err != nil {
				break
			}
			if sent > pair.Buffered {
				t.Errorf("%s: %d bytes accepted for a peer that does not read", name, sent)
				break
			}
		}
		t.Logf("%s: stopped after %d KiB", name, sent>>10)
	}
}

func roundTrip(c net.Conn, size int) error {
	sent, got := bytes.Repeat([]byte{7}, size), make([]byte, size)
	if _, err := c.Write(sent); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if !bytes.Equal(got, sent) {
		return errors.New("other bytes came back")
	}
	return nil
}

func transportMany(t T, pair TransportPair) {
	dial := pair.Start(t, echo)
	conns := make([]net.Conn, pair.Clients)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16) // handshakes at once
	for i := range conns {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			c, err := dial(ctx)
			if err != nil {
				t.Errorf("client %d: %v", i, err)
				return
			}
			conns[i] = c
			t.Cleanup(func() { _ = c.Close() })
		})
	}
	wg.Wait()
	for i, c := range conns {
		if c == nil {
			continue
		}
		wg.Go(func() {
			for range 3 {
				if err := roundTrip(c, 300); err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// A client that sends without reading must not hold up another one.
func transportSlow(t T, pair TransportPair) {
	dial := pair.Start(t, echo)
	slow := dialOne(t, dial)
	_ = slow.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	_ = fill(slow)()
	quick := dialOne(t, dial)
	wakes(t, "the neighbour", io.EOF, func() error {
		for range 20 {
			if err := roundTrip(quick, 1000); err != nil {
				return err
			}
		}
		return io.EOF
	})
}

func transportCancelled(t T, pair TransportPair) {
	dial := pair.Start(t, echo)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if c, err := dial(ctx); err == nil {
		_ = c.Close()
		t.Error("dialled with a cancelled context")
	}
	// The dial's context does not bound the stream.
	ctx, cancel = context.WithCancel(context.Background())
	defer cancel()
	c, err := dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cancel()
	if err := roundTrip(c, 10); err != nil {
		t.Errorf("after the dial's context ended: %v", err)
	}
}

func transportLeaks(t T, pair TransportPair) {
	dial := pair.Start(t, echo)
	cycle := func(n int) {
		for range n {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			c, err := dial(ctx)
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			if err := roundTrip(c, 10); err != nil {
				t.Fatal(err)
			}
			_ = c.Close()
		}
	}
	cycle(3)
	settle := func(limit, files int) (int, int) {
		deadline := time.Now().Add(10 * time.Second)
		for {
			n, f := runtime.NumGoroutine(), descriptors()
			if n <= limit && f <= files || time.Now().After(deadline) {
				return n, f
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	// What the first cycles leave behind for a while counts as before.
	time.Sleep(time.Second)
	before, files := runtime.NumGoroutine(), descriptors()
	// What comes later and stays may be a pool's; what stays of each round is lost.
	for round := 1; ; round++ {
		cycle(30)
		after, now := settle(before, files)
		if after <= before && now <= files {
			return
		}
		if round == 3 {
			buf := make([]byte, 64<<10)
			t.Errorf("again goroutines %d -> %d, descriptors %d -> %d\n%s", before, after, files, now, buf[:runtime.Stack(buf, true)])
			return
		}
		before, files = after, now
	}
}

// descriptors counts this process's open files, 0 where the system does not
// say.
func descriptors() int {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(names)
}
