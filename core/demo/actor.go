package demo

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/client"
	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/transport"
)

// actor is one device of the demonstration.
type actor struct {
	name    string
	dialer  transport.Dialer
	profile *client.Profile
	store   *client.MemoryStore
	client  *client.Client
	stop    context.CancelFunc
	ended   chan error
	said    uint64

	mu      sync.Mutex
	changed chan struct{}
	next    uint64 // the message that must come next
	got     int
	wrong   error
	resume  int
	shake   float64
}

func newActor(name string, l link.Link, d transport.Dialer) (*actor, error) {
	p, err := client.NewProfile(l, name, rand.Reader)
	if err != nil {
		return nil, err
	}
	var log [8]byte
	if _, err := rand.Read(log[:]); err != nil {
		return nil, err
	}
	return &actor{name: name, dialer: d, profile: p, store: client.NewMemoryStore(log), changed: make(chan struct{}), next: 1}, nil
}

// join connects the device.
func (a *actor) join(ctx context.Context) error {
	c, err := client.New(client.Options{
		Profile: a.profile, Store: a.store, Dialers: []transport.Dialer{a.dialer}, Handle: a.handle, OnEvent: a.event,
	})
	if err != nil {
		return err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	a.client, a.stop, a.ended = c, stop, make(chan error, 1)
	go func() { a.ended <- c.Run(run) }()
	connected := make(chan error, 1)
	go func() {
		_, err := c.Connected(ctx)
		connected <- err
	}()
	select {
	case err = <-connected:
	case err = <-a.ended:
		a.ended <- err
	}
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	a.profile = c.Profile()
	return nil
}

// leave disconnects the device; what it knows stays.
func (a *actor) leave() {
	if a.client == nil {
		return
	}
	a.stop()
	<-a.ended //nolint:errcheck // why it ended was told before
	a.profile = a.client.Profile()
	_ = a.client.Close()
	a.client = nil
}

// say sends n numbered messages and waits for every acknowledgement.
func (a *actor) say(ctx context.Context, to *actor, n int) ([]time.Duration, error) {
	type sent struct {
		t  *client.Ticket
		at time.Time
	}
	var (
		window = make(chan sent, 64)
		delays = make([]time.Duration, 0, n)
		done   = make(chan error, 1)
	)
	go func() {
		var failed error
		for s := range window {
			if failed != nil {
				continue
			}
			_, err := s.t.Wait(ctx)
			failed = err
			delays = append(delays, time.Since(s.at))
		}
		done <- failed
	}()
	for range n {
		a.said++
		t, err := a.client.Send(client.Draft{To: []string{to.profile.DeviceID}, Body: binary.BigEndian.AppendUint64(nil, a.said)})
		if err != nil {
			close(window)
			<-done //nolint:errcheck // why it ended was told before
			return nil, err
		}
		window <- sent{t, time.Now()}
	}
	close(window)
	if err := <-done; err != nil {
		return nil, fmt.Errorf("a message was not acknowledged: %w", err)
	}
	return delays, nil
}

func (a *actor) handle(m client.Message) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(m.Body) != 8 {
		return nil
	}
	if n := binary.BigEndian.Uint64(m.Body); n != a.next && a.wrong == nil {
		a.wrong = fmt.Errorf("%s was shown message %d where %d was due", a.name, n, a.next)
	}
	a.next++
	a.got++
	a.tell()
	return nil
}

func (a *actor) event(e client.Event) {
	if e.Name != "connected" {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.shake == 0 {
		a.shake = e.Milliseconds
	}
	if e.Resumed {
		a.resume++
	}
	a.tell()
}

// tell wakes whoever watches; mu is held.
func (a *actor) tell() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// heard waits until n messages have been shown in all.
func (a *actor) heard(ctx context.Context, n int) error {
	for {
		a.mu.Lock()
		got, changed, wrong := a.got, a.changed, a.wrong
		a.mu.Unlock()
		switch {
		case wrong != nil:
			return wrong
		case got >= n:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s got %d of %d messages: %w", a.name, got, n, context.Cause(ctx))
		}
	}
}

func (a *actor) watch() (resumes int, changed <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.resume, a.changed
}

func (a *actor) resumes() int { n, _ := a.watch(); return n }

func (a *actor) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.got
}

func (a *actor) fault() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.wrong
}

func (a *actor) handshake() float64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.shake
}
