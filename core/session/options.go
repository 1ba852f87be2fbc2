package session

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/admission"
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/core/relay"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/noise"
	"github.com/commucat/commucat/sdk/storage"
)

// ServerKey is one Noise static key of the relay.
type ServerKey struct {
	Version                          uint32
	Pair                             noise.KeyPair
	ValidAfter, RotatesAt, ExpiresAt time.Time
}

// Relay is what a session needs of relay.Hub; see Hub.
type Relay interface {
	Attach(ctx context.Context, box relay.Outbox, cursor uint64) (Link, error)
}

// Link is what a session needs of relay.Link.
type Link interface {
	Handle(f ccp.Frame) error
	Alive(written uint64)
	Logs() []relay.LogState
	Fence() uint64
	Cursor() uint64
	Start()
	Detach()
}

// Limits of sessions. A zero field takes its default.
type Limits struct {
	// Sessions is how many are established or being so at one time; 0 is no bound.
	// A device that is connected already may always take over.
	Sessions int
	// PreAuth bounds the bytes read before establishment: 64 KiB.
	PreAuth int
	// Handshake is the time for it, ± 10 %: 10 s. Where admission has drawn a
	// deadline, that one holds.
	Handshake time.Duration
	// Keepalive is the idle time after which an empty record is sent: 30 s. It is
	// told to the client, which does the same.
	Keepalive time.Duration
	// Dead is the silence after which a peer with proof-binding counts as gone:
	// three times Keepalive and 10 s.
	Dead time.Duration
	// WriteStall is how long one write may take: 30 s.
	WriteStall time.Duration
	// LargeFrames bounds the bytes of all frames over 1 MiB being received: 64 MiB.
	LargeFrames int64
	// Control bounds the control frames queued for one session: 256 KiB.
	Control int
	// Media bounds the memory that waits for one session when a droppable frame joins
	// it, with the frame's length: 64 KiB. A frame that does not fit is dropped. What
	// is being written meanwhile is as much at most.
	Media int
	// Progress is the time in which a begun frame must advance by 1 KiB a second: 30 s.
	Progress time.Duration
	// ResumeWindow is how long a resume token outlives its connection: 120 s.
	// ResumeLife bounds its whole life: 24 h.
	ResumeWindow, ResumeLife time.Duration
	// Farewell is how long a closing session may take to send its last frames: 5 s.
	Farewell time.Duration
}

func (l Limits) withDefaults() Limits {
	num(&l.PreAuth, 64<<10)
	num(&l.Control, 256<<10)
	num(&l.Media, 64<<10)
	num(&l.LargeFrames, 64<<20)
	num(&l.Handshake, 10*time.Second)
	num(&l.Keepalive, 30*time.Second)
	num(&l.Dead, 3*l.Keepalive+10*time.Second)
	num(&l.WriteStall, 30*time.Second)
	num(&l.Progress, 30*time.Second)
	num(&l.ResumeWindow, 120*time.Second)
	num(&l.ResumeLife, 24*time.Hour)
	num(&l.Farewell, 5*time.Second)
	return l
}

func num[T int | int64 | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// Options configure a Server. Accounts, Relay and Keys are required.
type Options struct {
	Accounts *account.Store
	Relay    Relay
	// Cache keeps resume tokens; without one sessions cannot be resumed.
	Cache storage.Cache
	// Keys are the relay's Noise keys, newest first; at most 3 are tried.
	Keys func() []ServerKey
	// DeviceCA is the public key of the device CA, for the Ack.
	DeviceCA func() [32]byte
	// Catalogue is the signed key catalogue as JSON; nil when there is none.
	Catalogue func() []byte
	// Entry makes a fresh entry credential for the Ack; nil when there are none.
	Entry func() (ccp.Entry, bool)
	// EntryToken checks the entry token in a Hello of a transport without HTTP.
	EntryToken func(transport, token string) bool
	// Keyed says of a transport that its devices have keys of their own, which this
	// relay hands to it; nil: none. Endpoints then answers where the keys of a device
	// are good, and which transports want another key of it; it must not take longer than
	// its context allows.
	Keyed     func(transport string) bool
	Endpoints func(ctx context.Context, device string, keys []ccp.TransportKey) (good []ccp.Endpoint, refused []string)
	// Ways are what the Ack tells a device beside: ways to the relay that need no key of
	// its own, and the transports whose devices have one; nil: nothing. It must answer at
	// once.
	Ways func() (keyless []ccp.Endpoint, keyed []string)
	// ShortCode turns a short pairing code into its secret, charging the caller's
	// prefix; nil where short codes are off.
	ShortCode func(ctx context.Context, code, prefix string) ([]byte, error)

	Domain string
	// Prologue is Noise's; nil means noise.DefaultPrologue.
	Prologue []byte
	// Offer is what the relay accepts (all capabilities).
	Offer ccp.Capabilities
	// Min is what a peer must have that does not come by the connect path
	// (proof-binding, records, ack).
	Min ccp.Capabilities
	// ClearFrames allows clear frames after the handshake (compat.clear_frames).
	ClearFrames bool
	// NotifyChannel is the channel of KeyUpdate frames.
	NotifyChannel uint32
	// Node names this node in resume records.
	Node string

	// Gate queues public-key work; nil means no queue.
	Gate    *admission.Gate
	Limits  Limits
	Metrics *metrics.Set
	Log     *slog.Logger
	// Source writes a client's address for the log; nil leaves it out.
	Source func(netip.Addr) string
	Clock  func() time.Time // time.Now; the wall clock of stored times
	Rand   io.Reader        // crypto/rand
}

func (o *Options) complete() {
	if o.Accounts == nil || o.Relay == nil || o.Keys == nil {
		panic("session: accounts, relay and keys are required")
	}
	if o.Prologue == nil {
		o.Prologue = []byte(noise.DefaultPrologue)
	}
	if o.Offer == 0 {
		o.Offer = ccp.AllCapabilities
	}
	if o.Cache == nil {
		o.Offer &^= ccp.Resume
	}
	if o.Min == 0 {
		o.Min = ccp.ProofBinding | ccp.Records | ccp.Ack
	}
	if o.Domain == "" {
		o.Domain = o.Accounts.Domain()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.DeviceCA == nil {
		o.DeviceCA = func() [32]byte { return [32]byte{} }
	}
	o.Limits = o.Limits.withDefaults()
}
