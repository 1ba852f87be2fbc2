package storage

import (
	"context"
	"time"
)

// Append asks for one message to be put into one queue.
type Append struct {
	// Queue is the recipient device's id, 1 to 255 bytes.
	Queue string
	// ID identifies the message within its queue. While the row lives a second
	// Append with the same (Queue, ID) succeeds, adds nothing and answers
	// the first one's position.
	ID [16]byte
	// Payload is opaque (sealed by the core), at most 16 MiB + 4 KiB. It is
	// only valid during the call.
	Payload []byte
	// Expires ends the row's life; precision one second at least, and never
	// early. Required.
	Expires time.Time
}

// Appended answers one Append.
type Appended struct {
	// Position is strictly increasing per queue; gaps are allowed. It is above
	// every position that the queue ever had, also in a store that this one has
	// taken the place of: devices remember positions. A durable backend therefore
	// begins at the unix time in microseconds.
	Position uint64
	// Duplicate says that the row was there already.
	Duplicate bool
	// Err is nil, ErrFull (the queue's quota), or an error of kind Invalid:
	// refused for good, its neighbours are unaffected.
	Err error
}

// Mark is a small value that the core wants stored at the latest with the batch
// it travels with (a device's duplicate table). Losing the last second of marks
// is allowed; losing rows is not.
type Mark struct {
	Key   string // at most 255 bytes
	Value []byte // at most 16 KiB; nil deletes
}

// Batch is the unit of durability: when Append returns nil the rows whose
// result has no Err have reached stable storage (fsync, synchronous commit).
// An error for the whole call means that nothing is known of any row: the core
// repeats the batch.
type Batch struct {
	Rows  []Append
	Marks []Mark
	// Quota bounds each queue that the batch touches. A row that would exceed
	// it answers ErrFull; expired rows do not count.
	Quota Quota
}

// Quota bounds one queue; zero means no bound.
type Quota struct {
	Messages uint64
	Bytes    uint64
}

// Page bounds one Read: it ends after Messages rows or once Bytes are exceeded
// (at least one row is returned if there is one).
type Page struct {
	Messages int
	Bytes    int
}

// Envelope is one stored row.
type Envelope struct {
	Position uint64
	ID       [16]byte
	Payload  []byte
	Expires  time.Time
}

// Done deletes rows of one queue: everything up to Cursor, and the positions in
// Ranges (from and to inclusive). Unknown positions are ignored.
type Done struct {
	Queue  string
	Cursor uint64
	Ranges [][2]uint64
}

// Depth describes one queue.
type Depth struct {
	Messages uint64
	Bytes    uint64
}

// Queues is the durable message store. All methods are safe for concurrent
// use, but the core calls Append for one queue from one goroutine at a time
// (lanes), and batches take effect in that order.
type Queues interface {
	Append(ctx context.Context, now time.Time, b Batch) ([]Appended, error)
	// Read returns rows with Position > after in position order, never expired
	// ones.
	Read(ctx context.Context, now time.Time, queue string, after uint64, max Page) ([]Envelope, error)
	// Done need not be durable when it returns; rows that come back after a
	// crash are delivered again and recognised by the receiver.
	Done(ctx context.Context, d []Done) error
	// Depths answers in the order asked; unknown queues are empty.
	Depths(ctx context.Context, queues []string) ([]Depth, error)
	// Marks reads marks; absent ones are nil.
	Marks(ctx context.Context, keys []string) ([][]byte, error)
	// Drop removes a whole queue (a revoked device) and says how many rows went.
	Drop(ctx context.Context, queue string) (uint64, error)
	// Purge removes at most limit expired rows and says how many went. It may
	// leave rows of queues that nobody used lately for up to two hours more.
	Purge(ctx context.Context, now time.Time, limit int) (int, error)
}

// Key names a record: Kind is 1 to 32 of a-z 0-9 . - and ID 1 to 512 bytes.
type Key struct {
	Kind string
	ID   string
}

// Record is one versioned value of the directory. Version 0 means absent.
type Record struct {
	Key
	Version uint64
	Value   []byte
	// Expires is zero for a record that stays.
	Expires time.Time
}

// Range asks for records of one kind whose ID begins with Prefix and is greater
// than After, in byte order of the ID.
type Range struct {
	Kind   string
	Prefix string
	After  string
	Limit  int
}

// Write changes one record inside a Commit.
type Write struct {
	Key
	// Expect is the version that the record must have: 0 = must be absent,
	// AnyVersion = no condition. An expired record counts as absent.
	Expect uint64
	// Value is the new value, at most 1 MiB; nil deletes (an empty, non-nil
	// slice is a value).
	Value   []byte
	Expires time.Time
	// CheckOnly changes nothing: the condition alone counts.
	CheckOnly bool
}

// AnyVersion as Expect sets no condition.
const AnyVersion = ^uint64(0)

// Directory is the durable store of everything that is not a message: users,
// devices, invitations, groups, tokens. Every use case of the core is one
// Commit: all of it or nothing, isolated from concurrent callers, on stable
// storage when it returns nil. Versions given by the store are greater than any
// version the key had before.
type Directory interface {
	// Get answers in the order asked; absent and expired records have Version 0.
	Get(ctx context.Context, now time.Time, keys []Key) ([]Record, error)
	List(ctx context.Context, now time.Time, r Range) ([]Record, error)
	// Commit returns a *ConflictError naming the first key whose condition
	// failed, and then has changed nothing. At most 4,096 writes, each of a
	// different key.
	Commit(ctx context.Context, now time.Time, w []Write) error
	// Purge removes at most limit expired records and says how many went.
	Purge(ctx context.Context, now time.Time, limit int) (int, error)
}

// The volatile half may forget everything at any time; that degrades to
// "everyone offline", never to a lost message.

// Claim announces that a device is connected at a node.
type Claim struct {
	Device, Node, Session string
	TTL                   time.Duration
}

// Route is where a device is connected. Fence grows strictly per device.
type Route struct {
	Device, Node, Session string
	Fence                 uint64
}

// Renewal keeps a claim alive, or releases it when TTL is 0.
type Renewal struct {
	Device, Session string
	// Node is told again, so that a store that forgot can answer Lookup.
	Node  string
	Fence uint64
	TTL   time.Duration
}

// Routes knows which node serves a device. The newest claim wins.
type Routes interface {
	// Claim answers fences in order: max(last+1, unix ms of now).
	Claim(ctx context.Context, now time.Time, c []Claim) ([]uint64, error)
	// Renew answers whether the caller still holds each route; a store that
	// forgot takes the number back. Routes held by a newer claim answer false.
	Renew(ctx context.Context, now time.Time, r []Renewal) ([]bool, error)
	// Lookup answers in order; a device without a live route has Fence 0.
	Lookup(ctx context.Context, now time.Time, devices []string) ([]Route, error)
}

// Beat is one device's presence.
type Beat struct {
	Device string
	State  string // "online", "offline" or a text of the client's, at most 64 bytes
	User   []byte // profile as JSON, at most 4 KiB
	TTL    time.Duration
}

// Presence remembers beats until their TTL ends.
type Presence interface {
	Announce(ctx context.Context, now time.Time, b []Beat) error
	// Beats answers in order; unknown devices have State "".
	Beats(ctx context.Context, now time.Time, devices []string) ([]Beat, error)
}

// Cache holds short-lived values (resume tokens, rendezvous).
type Cache interface {
	Put(ctx context.Context, now time.Time, key string, value []byte, ttl time.Duration) error
	Get(ctx context.Context, now time.Time, key string) ([]byte, error) // nil when absent
	// Take returns and deletes in one step: of two takers one gets the value.
	Take(ctx context.Context, now time.Time, key string) ([]byte, error)
	Delete(ctx context.Context, keys ...string) error
}

// Rate is a token bucket: Burst tokens, refilled over Per.
type Rate struct {
	Burst uint32
	Per   time.Duration
}

// Limiter shares rate limits between nodes.
type Limiter interface {
	// Take takes n tokens from the bucket and answers 0, or how long to wait.
	Take(ctx context.Context, now time.Time, key string, r Rate, n uint32) (time.Duration, error)
}

// Bus carries messages between nodes, best effort, in order per pair of nodes.
type Bus interface {
	Publish(ctx context.Context, node string, messages [][]byte) error
	// Subscribe calls f until ctx ends.
	Subscribe(ctx context.Context, self string, f func(message []byte)) error
}

// Inventory names what the durable half holds, so that all of it can be read: by
// Queues.Read, Queues.Marks and Directory.List. It is what moves a relay to another
// backend; the relay itself never asks. Every method answers names greater than after
// ("" is the beginning), in byte order, at most limit of them; none mean the end. A
// name of which nothing is left but what has expired may come or not.
type Inventory interface {
	// Queues names queues with rows.
	Queues(ctx context.Context, after string, limit int) ([]string, error)
	// Marks names marks.
	Marks(ctx context.Context, after string, limit int) ([]string, error)
	// Kinds names kinds of records.
	Kinds(ctx context.Context, after string, limit int) ([]string, error)
}

// Positions is offered by a durable store, for one that takes another's place: devices
// remember the last position that they had, also of queues that are empty by now, and would
// never see what came below.
type Positions interface {
	// Highest is at or above every position that the store ever gave in any queue.
	Highest(ctx context.Context) (uint64, error)
	// Raise makes every position that is given from now on greater than above, which is at
	// most MaxPosition; that outlives the store's closing. It never lowers anything.
	Raise(ctx context.Context, above uint64) error
}

// MaxPosition is what Raise may be asked for at most: 292,000 years in µs.
const MaxPosition = 1<<63 - 1<<40

// Snapshots is offered by a store that keeps everything in its own folder (sdk.Env.State).
// It is what an archive of a running relay is made from.
type Snapshots interface {
	// Snapshot makes the folder name within Env.State, which is not there yet, and puts
	// into it what Env.State would have to hold for a store with the same configuration
	// to open with everything that this one held at one moment of the call: whatever had
	// returned before is in it, and queues and directory are of the same moment. Other
	// calls go on meanwhile. All of it is on stable storage when the call returns nil;
	// after an error nothing of the folder is left. The caller removes the folder; a name
	// is checked by CheckSnapshot.
	Snapshot(ctx context.Context, name string) error
}

// Store is what a backend offers; nil fields are "not offered". The operator
// may take the durable half (Queues, Directory) from one plugin and the
// volatile half from another.
type Store struct {
	Queues    Queues
	Directory Directory
	// Inventory goes with both; without it the data cannot be moved elsewhere.
	Inventory Inventory
	// Positions goes with Queues; without it a copy waits until the clock is beyond the
	// positions of the rows that are there.
	Positions Positions
	// Snapshots goes with both as well; without it the operator backs the data up with
	// the backend's own tools.
	Snapshots Snapshots

	Routes   Routes
	Presence Presence
	Cache    Cache
	Limiter  Limiter
	Bus      Bus

	// Ready is a cheap probe; nil means always ready.
	Ready func(ctx context.Context) error
	// Close flushes and ends the store.
	Close func(ctx context.Context) error
}

// Traits are what the core must know of a backend to drive it well.
type Traits struct {
	// Batch is the largest number of rows the core should put in one Append.
	Batch int
	// Lanes is how many Append calls may run at once (hash of the queue).
	Lanes int
	// Shared says that several relay nodes may use the backend at once.
	Shared bool
	// Source says that the backend is the database of another program, opened to be
	// imported from. Its Directory.List and Get, Queues.Read and Inventory show the
	// tables of that program, in records and rows of a form that importer and plugin
	// agree on, as they were at one moment: every record has the same Version, which is
	// another one when the backend has been opened anew. Whatever would write answers
	// kind sdk.Invalid, and no relay serves from it.
	Source bool
}
