package relay

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/commucat/commucat/sdk/ccp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const allCaps = ccp.ProofBinding | ccp.Sealed | ccp.Records | ccp.Ack | ccp.Resume

// fakeAccounts has users "u-NAME" with devices; a device id up to the first dot
// is its user's name: "a.1" belongs to "u-a".
type fakeAccounts struct {
	mu      sync.Mutex
	devices map[string]Device
}

func userOf(device string) string {
	name, _, _ := strings.Cut(device, ".")
	return "u-" + name
}

func (a *fakeAccounts) add(device string, caps ccp.Capabilities) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.devices == nil {
		a.devices = map[string]Device{}
	}
	a.devices[device] = Device{ID: device, User: userOf(device), Active: true, Capabilities: caps}
}

func (a *fakeAccounts) Device(_ context.Context, id string) (Device, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d, ok := a.devices[id]
	if !ok {
		return Device{}, ErrUnknown
	}
	return d, nil
}

func (a *fakeAccounts) Devices(_ context.Context, user string) ([]Device, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []Device
	for _, d := range a.devices {
		if d.User == user && d.Active {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b Device) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

func (a *fakeAccounts) Resolve(ctx context.Context, name string) ([]Device, string, error) {
	if d, err := a.Device(ctx, name); err == nil {
		return []Device{d}, d.User, nil
	}
	list, _ := a.Devices(ctx, name)
	if len(list) == 0 {
		return nil, "", ErrUnknown
	}
	return list, name, nil
}

type control struct {
	t       ccp.Type
	channel uint32
	payload string
}

// fakeBox records what a session would write.
type fakeBox struct {
	device, session string
	caps            ccp.Capabilities
	fence           uint64
	plain           bool

	mu       sync.Mutex
	got      []Delivery
	controls []control
	media    []control
	closed   string
	onPush   func(Delivery)
}

func (b *fakeBox) Device() string                 { return b.device }
func (b *fakeBox) User() string                   { return userOf(b.device) }
func (b *fakeBox) Session() string                { return b.session }
func (b *fakeBox) Fence() uint64                  { return b.fence }
func (b *fakeBox) Capabilities() ccp.Capabilities { return b.caps }
func (b *fakeBox) Plain() bool                    { return b.plain }

func (b *fakeBox) Push(d Delivery) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed != "" {
		return false
	}
	b.got = append(b.got, d)
	if b.onPush != nil {
		b.onPush(d)
	}
	return true
}

func (b *fakeBox) Control(t ccp.Type, channel uint32, payload []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.controls = append(b.controls, control{t, channel, string(payload)})
	return true
}

func (b *fakeBox) Media(t ccp.Type, channel uint32, payload []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.media = append(b.media, control{t, channel, string(payload)})
	return true
}

func (b *fakeBox) Close(code string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed == "" {
		b.closed = code
	}
}

func (b *fakeBox) take() []Delivery {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.got
	b.got = nil
	return out
}

func (b *fakeBox) bodies() string {
	var out []string
	for _, d := range b.take() {
		out = append(out, string(d.Body))
	}
	return strings.Join(out, " ")
}

func (b *fakeBox) takeControls() []control {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.controls
	b.controls = nil
	return out
}

func (b *fakeBox) closedWith() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

// bed is a hub over a fake store.
type bed struct {
	t     testing.TB
	hub   *Hub
	store *fakeStore
	acc   *fakeAccounts
	stop  func()
	n     int
	seq   uint32
}

func newBed(t testing.TB, change func(*Options)) *bed {
	return newBedOn(t, newFakeStore(), &fakeAccounts{}, change)
}

func newBedOn(t testing.TB, s *fakeStore, acc *fakeAccounts, change func(*Options)) *bed {
	t.Helper()
	opt := Options{Store: s.store(), Accounts: acc, StorageKey: [32]byte{7}}
	if change != nil {
		change(&opt)
	}
	h, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); h.Run(ctx) }()
	b := &bed{t: t, hub: h, store: s, acc: acc}
	var once sync.Once
	b.stop = func() { once.Do(func() { cancel(); <-done }) }
	t.Cleanup(b.stop)
	return b
}

// peer is one connected device.
type peer struct {
	*fakeBox
	b    *bed
	link *Link
	log  [8]byte
	n    uint64
}

func (b *bed) connect(device string, caps ccp.Capabilities, cursor uint64) *peer {
	b.t.Helper()
	b.n++
	box := &fakeBox{device: device, session: fmt.Sprintf("s-%d", b.n), caps: caps}
	return b.connectBox(box, cursor)
}

func (b *bed) connectBox(box *fakeBox, cursor uint64) *peer {
	b.t.Helper()
	b.acc.add(box.device, box.caps)
	l, err := b.hub.Attach(context.Background(), box, cursor)
	if err != nil {
		b.t.Fatal(err)
	}
	l.Start()
	p := &peer{fakeBox: box, b: b, link: l}
	copy(p.log[:], box.device)
	return p
}

func (p *peer) frame(t ccp.Type, channel uint32, payload string) error {
	p.b.seq++
	return p.link.Handle(ccp.Frame{Type: t, Channel: channel, Sequence: p.b.seq, Payload: []byte(payload)})
}

func (p *peer) must(t ccp.Type, channel uint32, payload string) {
	p.b.t.Helper()
	if err := p.frame(t, channel, payload); err != nil {
		p.b.t.Fatalf("%s: %v", t, err)
	}
}

func (p *peer) sendAs(counter uint64, channel uint32, to []string, body string, flags uint8) error {
	s := ccp.Send{Kind: ccp.TypeMsg, ID: ccp.MessageID{Log: p.log, Counter: counter}, Flags: flags, Body: []byte(body)}
	for _, n := range to {
		s.To = append(s.To, []byte(n))
	}
	return p.sendFrame(channel, s)
}

func (p *peer) sendFrame(channel uint32, s ccp.Send) error {
	b, err := ccp.AppendSend(nil, s)
	if err != nil {
		return err
	}
	p.b.seq++
	return p.link.Handle(ccp.Frame{Type: ccp.TypeSend, Channel: channel, Sequence: p.b.seq, Payload: b})
}

func (p *peer) send(to, body string) uint64 {
	p.b.t.Helper()
	p.n++
	if err := p.sendAs(p.n, 0, []string{to}, body, 0); err != nil {
		p.b.t.Fatalf("send: %v", err)
	}
	return p.n
}

func (p *peer) done(cursor uint64, ranges ...[2]uint64) {
	p.b.t.Helper()
	b, err := ccp.AppendDone(nil, ccp.Done{Cursor: cursor, Ranges: ranges})
	if err != nil {
		p.b.t.Fatal(err)
	}
	p.must(ccp.TypeDone, 0, string(b))
}

// errors gives the codes of the Error frames since the last time.
func (p *peer) errors() string {
	var out []string
	for _, c := range p.takeControls() {
		if c.t == ccp.TypeError {
			e, _ := ccp.ParseErrorBody([]byte(c.payload))
			out = append(out, e.Error)
		}
	}
	return strings.Join(out, " ")
}

// acked gives the done ranges of the Acks since the last time.
func (p *peer) acked() string {
	var out []string
	for _, c := range p.takeControls() {
		if c.t != ccp.TypeAck {
			continue
		}
		a, err := ccp.ParseSendAck([]byte(c.payload))
		if err != nil {
			out = append(out, c.payload)
			continue
		}
		for _, r := range a.Done {
			out = append(out, fmt.Sprintf("%d-%d", r[0], r[1]))
		}
		for _, r := range a.Refused {
			out = append(out, fmt.Sprintf("%d:%s:%s", r.Counter, r.Device, r.Error))
		}
	}
	return strings.Join(out, " ")
}

// merged joins the ranges of acked that adjoin: in how many Acks they come is a matter of
// what the lane had gathered when it ran.
func merged(acked string) string {
	var out [][2]uint64
	for _, r := range strings.Fields(acked) {
		var from, to uint64
		if _, err := fmt.Sscanf(r, "%d-%d", &from, &to); err != nil {
			return acked
		}
		if n := len(out); n > 0 && out[n-1][1]+1 == from {
			out[n-1][1] = to
			continue
		}
		out = append(out, [2]uint64{from, to})
	}
	text := make([]string, len(out))
	for i, r := range out {
		text[i] = fmt.Sprintf("%d-%d", r[0], r[1])
	}
	return strings.Join(text, " ")
}

// bubble runs a test with a fake clock.
func bubble(t *testing.T, f func(t *testing.T)) { synctest.Test(t, f) }

func settle() { synctest.Wait() }

func after(d time.Duration) { time.Sleep(d); synctest.Wait() }
