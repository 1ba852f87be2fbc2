package relay

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/commucat/commucat/sdk/storage"
)

// Contact is the policy of who may write to whom.
type Contact string

// The contact policies (architecture.md section 5).
const (
	// Members: any account of this relay, Limits.NewContacts new ones a day.
	Members Contact = "members"
	// OnlyFriends: whoever has the sender on its friend list.
	OnlyFriends Contact = "friends"
)

// Limits bound what one device, account or the whole hub can hold. A zero field
// takes its default.
type Limits struct {
	// Window is the number of counters of a session that may be not done: 256.
	Window int
	// WindowBytes bounds the bodies of those; one larger message alone is
	// allowed: 1 MiB.
	WindowBytes int
	// PendingBytes is the bound for all sessions together; above it each session
	// may have one message in flight: 128 MiB.
	PendingBytes int64
	// InFlight and InFlightBytes bound what was pushed to a session and not
	// acknowledged: 256 messages, 256 KiB.
	InFlight      int
	InFlightBytes int
	// Channels bounds a device's channel table: 1,024 entries. ChannelsByJoiner is
	// how many of them one other device may add: 256. An entry, whose size is that
	// of its members' names, counts once more for each whole KiB; so a table
	// stays within 1 MiB, and what one other device puts into it within 256 KiB.
	Channels         int
	ChannelsByJoiner int
	// Members bounds a group, an open channel and the members of a Join: 1,024.
	Members int
	// NewContacts is the number of accounts that an account may write to for the
	// first time in a day: 60.
	NewContacts int
	// RelayTTL is the life of a stored row: 14 days.
	RelayTTL time.Duration
	// PresenceTTL is the life of presence and routes; both are renewed at a third
	// of it: 30 s.
	PresenceTTL time.Duration
	// ResumeWindow is how long after a connection's end its calls and presence
	// stay: 120 s.
	ResumeWindow time.Duration
	// GiveUp is how long a failing batch is repeated before its senders are told
	// "unavailable": 5 s.
	GiveUp time.Duration
	// MarkDelay is how late duplicate tables are stored: 1 s.
	MarkDelay time.Duration
	// DoneDelay gathers deletions: 20 ms.
	DoneDelay time.Duration
	// PurgeEvery is the mean time between purges: 1 min.
	PurgeEvery time.Duration
	// Queue bounds each device's queue: 10,000 messages, 64 MiB.
	Queue storage.Quota
	// Readers bounds concurrent reads of queues: 16.
	Readers int
	// RouteLife is how long a sender's resolved recipients are remembered at
	// most: 30 s. Changes on this node are seen at once.
	RouteLife time.Duration
	// BusTick is how often a node of several asks whether the bus still carries, and
	// while it does not, how often it looks into storage for what other nodes put
	// there: 1 s.
	BusTick time.Duration
}

func (l Limits) withDefaults() Limits {
	setInt(&l.Window, 256)
	setInt(&l.WindowBytes, 1<<20)
	if l.PendingBytes == 0 {
		l.PendingBytes = 128 << 20
	}
	setInt(&l.InFlight, 256)
	setInt(&l.InFlightBytes, 256<<10)
	setInt(&l.Channels, 1024)
	setInt(&l.ChannelsByJoiner, 256)
	setInt(&l.Members, 1024)
	setInt(&l.NewContacts, 60)
	setInt(&l.Readers, 16)
	if l.Queue == (storage.Quota{}) {
		l.Queue = storage.Quota{Messages: 10_000, Bytes: 64 << 20}
	}
	setDuration(&l.RelayTTL, 14*24*time.Hour)
	setDuration(&l.PresenceTTL, 30*time.Second)
	setDuration(&l.ResumeWindow, 120*time.Second)
	setDuration(&l.GiveUp, 5*time.Second)
	setDuration(&l.MarkDelay, time.Second)
	setDuration(&l.DoneDelay, 20*time.Millisecond)
	setDuration(&l.PurgeEvery, time.Minute)
	setDuration(&l.RouteLife, 30*time.Second)
	setDuration(&l.BusTick, time.Second)
	return l
}

func setInt(p *int, v int) {
	if *p == 0 {
		*p = v
	}
}

func setDuration(p *time.Duration, v time.Duration) {
	if *p == 0 {
		*p = v
	}
}

// Compat holds the relay's compatibility switches.
type Compat struct {
	// OpenChannels makes channel ids global: Joins merge, and who joined an id is
	// reachable there whatever the policy.
	OpenChannels bool
}

// Options configure a Hub.
type Options struct {
	// Store: Queues and Directory are required; Routes, Presence, Limiter and Bus
	// may be nil, which means a single node and limits kept in memory.
	Store  storage.Store
	Traits storage.Traits
	// Node names this run of this node on the bus: no other may have the name.
	Node string
	// Told receives what another node gave to Tell; may be nil.
	Told func(ctx context.Context, message []byte)
	// Health is told why other nodes cannot be reached, and nil once they can; may
	// be nil.
	Health   func(error)
	Accounts Accounts
	Friends  Friends
	// StorageKey seals bodies at rest (keyring).
	StorageKey [32]byte
	Contact    Contact
	Limits     Limits
	Compat     Compat
	// Audit receives call events (ccp1.md 8.1); may be nil.
	Audit   func(event, callID string, data map[string]any)
	Metrics Metrics
	Log     *slog.Logger
	// Clock and Rand are time.Now and crypto/rand unless set.
	Clock func() time.Time
	Rand  io.Reader
}

func (o *Options) check() error {
	if o.Store.Queues == nil || o.Store.Directory == nil {
		return errors.New("relay: a store with queues and directory is required")
	}
	if o.Accounts == nil {
		return errors.New("relay: accounts are required")
	}
	switch o.Contact {
	case "":
		o.Contact = Members
	case Members, OnlyFriends:
	default:
		return errors.New("relay: contact must be members or friends")
	}
	o.Limits = o.Limits.withDefaults()
	if o.Traits.Batch <= 0 {
		o.Traits.Batch = 512
	}
	if o.Traits.Lanes <= 0 {
		o.Traits.Lanes = 1
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
	return nil
}
