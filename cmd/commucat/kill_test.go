package main

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/client"
	"github.com/commucat/commucat/sdk/link"
)

// flow counts what was acknowledged and what was shown, and wakes who waits for a
// number.
type flow struct {
	acked, shown atomic.Int64
	changed      chan struct{} // one slot
	wrong        chan error    // one slot
}

func (f *flow) poke() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

func (f *flow) fail(err error) {
	select {
	case f.wrong <- err:
	default:
	}
}

// party is one device whose profile and store are files.
type party struct {
	flow   *flow
	index  int
	store  *client.FileStore
	client *client.Client
	mu     sync.Mutex
	next   map[int]uint64 // by sender: the number that must come next
}

// body names sender and number; the number counts what sender sent to this
// recipient.
func body(sender int, n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{byte(sender)}, n)
}

// handle is told each message once and in order, or the test fails.
func (p *party) handle(m client.Message) error {
	if len(m.Body) != 9 {
		p.flow.fail(fmt.Errorf("a message of %d bytes was shown", len(m.Body)))
		return nil
	}
	sender, n := int(m.Body[0]), binary.BigEndian.Uint64(m.Body[1:])
	p.mu.Lock()
	want := p.next[sender]
	if n == want {
		p.next[sender]++
	}
	p.mu.Unlock()
	switch {
	case n < want:
		p.flow.fail(fmt.Errorf("device %d was shown message %d of device %d twice", p.index, n, sender))
	case n > want:
		p.flow.fail(fmt.Errorf("device %d was shown message %d of device %d before %d", p.index, n, sender, want))
	default:
		p.flow.shown.Add(1)
		p.flow.poke()
	}
	return nil
}

// join registers the device with files of its own.
func (f *flow) join(t *testing.T, ctx context.Context, index int, invite, transport string) *party {
	t.Helper()
	l, err := link.Parse(invite)
	if err != nil {
		t.Fatal(err)
	}
	profile, err := client.NewProfile(l, "device-"+strconv.Itoa(index), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "profile")
	if err := profile.Save(dir); err != nil {
		t.Fatal(err)
	}
	p := &party{flow: f, index: index, next: map[int]uint64{}}
	if p.store, err = client.OpenStore(dir); err != nil {
		t.Fatal(err)
	}
	p.client, err = client.New(client.Options{
		Profile: profile, Store: p.store, Dialers: dialers(), Transport: transport, Handle: p.handle,
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	run, stop := context.WithCancel(context.Background())
	go func() {
		err := p.client.Run(run)
		if err != nil {
			f.fail(fmt.Errorf("device %d: %w", index, err))
		}
		ended <- err
	}()
	t.Cleanup(func() {
		stop()
		<-ended
		if err := p.client.Close(); err != nil {
			t.Error(err)
		}
		if err := p.store.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := p.client.Connected(ctx); err != nil {
		t.Fatal(err)
	}
	return p
}

// send sends n numbered messages to one device and waits for every
// acknowledgement.
func (p *party) send(ctx context.Context, to *party, n int) error { return p.sendFrom(ctx, to, 0, n) }

// sendFrom is send, where first messages went before.
func (p *party) sendFrom(ctx context.Context, to *party, first uint64, n int) error {
	const ahead = 64
	tickets := make(chan *client.Ticket, ahead)
	done := make(chan error, 1)
	go func() {
		var failed error
		for t := range tickets {
			if failed != nil {
				continue
			}
			res, err := t.Wait(ctx)
			if err == nil && len(res.Refused) > 0 {
				err = fmt.Errorf("refused: %v", res.Refused)
			}
			failed = err
			if err == nil {
				p.flow.acked.Add(1)
				p.flow.poke()
			}
		}
		done <- failed
	}()
	id := to.client.Profile().DeviceID
	var failed error
	for i := range n {
		t, err := p.client.Send(client.Draft{To: []string{id}, Body: body(p.index, first+uint64(i))})
		if err != nil {
			failed = err
			break
		}
		tickets <- t
	}
	close(tickets)
	if err := <-done; failed == nil {
		failed = err
	}
	return failed
}

// reach waits until counter shows at least n.
func (f *flow) reach(ctx context.Context, counter *atomic.Int64, n int64) error {
	for counter.Load() < n {
		select {
		case <-f.changed:
		case err := <-f.wrong:
			return err
		case <-ctx.Done():
			return fmt.Errorf("%d acknowledged, %d shown: %w", f.acked.Load(), f.shown.Load(), context.Cause(ctx))
		}
	}
	return nil
}

// TestLoadKilledRelayLosesNothing kills the relay, a program of its own on real files,
// at random moments while messages flow between devices whose stores are files
// too. What was acknowledged is shown, once, and in order.
//
// The moments are random numbers of acknowledged messages, so that messages are
// under way whenever it happens; every fifth relay is killed again before it is
// ready.
func TestLoadKilledRelayLosesNothing(t *testing.T) {
	const devices = 4
	messages, kills := 20_000, 20
	if raceDetector {
		messages, kills = 2_000, 5
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("COMMUCAT_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("COMMUCAT_TEST_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()

	dir := dataFolder(t, wide)
	srv := relay(t, dir)
	address := srv.address()
	f := &flow{changed: make(chan struct{}, 1), wrong: make(chan error, 1)}
	t.Cleanup(func() { // after every client has closed: a late repetition counts too
		select {
		case err := <-f.wrong:
			t.Error(err)
		default:
		}
	})
	var parties []*party
	for i := range devices {
		parties = append(parties, f.join(t, ctx, i, srv.Invite, []string{"http2", "websocket", "sse", "longpoll"}[i]))
	}
	began := time.Now()
	pairs := devices * (devices - 1)
	each := (messages + pairs - 1) / pairs
	messages = each * pairs
	var sending sync.WaitGroup
	for _, from := range parties {
		for _, to := range parties {
			if from != to {
				sending.Go(func() {
					if err := from.send(ctx, to, each); err != nil {
						f.fail(fmt.Errorf("device %d to %d: %w", from.index, to.index, err))
					}
				})
			}
		}
	}
	defer func() {
		cancel()
		sending.Wait()
	}()

	var moments []int64
	early := kills / 5
	for range kills - early {
		moments = append(moments, random.Int64N(int64(messages)*9/10))
	}
	slices.Sort(moments)
	for i, m := range moments {
		if err := f.reach(ctx, &f.acked, m); err != nil {
			t.Fatal(err)
		}
		srv.kill()
		if i%4 == 3 { // killed again while it starts
			srv = spawn(t, dir, "--listen", address)
			timer := time.NewTimer(time.Duration(random.Int64N(int64(150 * time.Millisecond))))
			<-timer.C
			srv.kill()
		}
		srv = spawn(t, dir, "--listen", address)
		if err := srv.ready(); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.reach(ctx, &f.acked, int64(messages)); err != nil {
		t.Fatal(err)
	}
	if err := f.reach(ctx, &f.shown, int64(messages)); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d messages, %d kills, %.1f s", messages, kills, time.Since(began).Seconds())
	if code := srv.terminate(t); code != 0 {
		t.Errorf("the last relay ended with %d: %s", code, srv.said())
	}
	if code, _, notes := commucat(t, "audit", "verify", "--data", dir); code != 0 {
		t.Errorf("audit verify: %d %s", code, notes)
	}
}

// TestKilledYoung: also the chain of a relay that was killed soon after its first
// start has a checkpoint, and can be verified.
func TestKilledYoung(t *testing.T) {
	dir := dataFolder(t, wide)
	p := relay(t, dir)
	delivered := func() bool { // everything up to the checkpoint is in the ledger
		line, err := os.ReadFile(filepath.Join(dir, "audit", "checkpoint"))
		if err != nil {
			return false
		}
		seq, err := strconv.Atoi(strings.Fields(string(line))[1])
		if err != nil {
			t.Fatalf("checkpoint %q", line)
		}
		records, _ := os.ReadFile(filepath.Join(dir, "plugins", "ledger-file", "records", "00000000000000000001.jsonl"))
		return strings.Count(string(records), "\n") >= seq
	}
	for end := time.Now().Add(20 * time.Second); !delivered(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no checkpoint")
		}
	}
	p.kill()
	if code, stdout, notes := commucat(t, "audit", "verify", "--data", dir); code != exitOK || !strings.Contains(stdout, ", unbroken") {
		t.Errorf("ended with %d: %s%s", code, stdout, notes)
	}
}
