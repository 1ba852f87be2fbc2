package sqlite

import (
	"cmp"
	"hash/crc32"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// engine keeps rows. It knows no rules: duplicates, quotas and positions are the
// index's. All methods are safe for concurrent use; errors have a kind.
type engine interface {
	// write applies a change as a whole. With sync it is on stable storage when
	// it returns nil; after an error nothing is known of it.
	write(c *change, sync bool) error
	// scan calls f for each row of a queue by position.
	scan(queue string, f func(row)) error
	// id is the id of a row that exists.
	id(queue string, position uint64) ([16]byte, error)
	// read gives rows with after < position <= until that are alive at now.
	read(queue string, after, until uint64, now uint32, page storage.Page) ([]storage.Envelope, error)
	marks(keys []string) ([][]byte, error)
	// due gives at most limit notes of buckets before the given one.
	due(before uint32, limit int) ([]note, error)
	// queueNames and markNames give the names after a name, in order, at most limit.
	queueNames(after string, limit int) ([]string, error)
	markNames(after string, limit int) ([]string, error)
	// high is the persisted bound of all positions.
	high() (uint64, error)
	ready() error
	// checkpoint makes dir/queues a copy of what the engine holds outside the database.
	checkpoint(dir string) error
	close() error
}

// change is one atomic write.
type change struct {
	puts  []put
	dels  []at  // rows known to exist
	cuts  []cut // ranges
	marks []storage.Mark
	notes []note
	paid  []note // notes to remove
	high  uint64 // 0: unchanged
}

// order sorts new rows by their keys: beside the key before it, a memtable finds a
// key's place in a few steps.
func (c *change) order() {
	slices.SortFunc(c.puts, func(a, b put) int {
		return cmp.Or(strings.Compare(a.queue, b.queue), cmp.Compare(a.position, b.position))
	})
}

func (c *change) empty() bool {
	return len(c.puts)+len(c.dels)+len(c.cuts)+len(c.marks)+len(c.notes)+len(c.paid) == 0 && c.high == 0
}

// size is the number of bytes a change brings.
func (c *change) size() (n int) {
	for i := range c.puts {
		n += len(c.puts[i].body) + len(c.puts[i].queue) + 64
	}
	for i := range c.marks {
		n += len(c.marks[i].Value) + len(c.marks[i].Key)
	}
	return n
}

// row is a message without its body.
type row struct {
	position uint64
	id       [16]byte
	expires  uint32 // unix seconds, rounded up
	size     uint32
}

type put struct {
	queue string
	row
	body []byte
}

type at struct {
	queue    string
	position uint64
}

type cut struct {
	queue    string
	from, to uint64 // inclusive
	// rows are all positions within, if they are known and not many.
	rows []uint64
}

// manyCut is the length of a cut that nobody lists row by row.
const manyCut = 8192

// note says that a queue has rows which expire within a bucket.
type note struct {
	bucket uint32
	queue  string
}

// bucketOf divides time into 4,096 seconds.
func bucketOf(expires uint32) uint32 { return expires >> 12 }

// seconds rounds up, so that nothing expires early.
func seconds(t time.Time) uint32 {
	s := t.Unix()
	if t.Nanosecond() > 0 {
		s++
	}
	return uint32(min(max(s, 0), math.MaxUint32))
}

// clock rounds down.
func clock(t time.Time) uint32 { return uint32(min(max(t.Unix(), 0), math.MaxUint32)) }

func stamp(expires uint32) time.Time { return time.Unix(int64(expires), 0).UTC() }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// summer makes checksums of rows one after the other; what it keeps spares each an
// allocation.
type summer struct {
	head [28]byte
	name []byte
}

// sum covers a row with its place, so that a row that strayed is found as well.
func (s *summer) sum(queue string, r *row, body []byte) uint32 {
	copy(s.head[:16], r.id[:])
	putUint64(s.head[16:24], r.position)
	putUint32(s.head[24:28], r.expires)
	s.name = append(s.name[:0], queue...)
	c := crc32.Update(0, castagnoli, s.head[:])
	return crc32.Update(c, castagnoli, body) ^ crc32.Checksum(s.name, castagnoli)
}

func putUint64(b []byte, v uint64) {
	putUint32(b, uint32(v>>32))
	putUint32(b[4:], uint32(v))
}

func putUint32(b []byte, v uint32) {
	_ = b[3]
	b[0], b[1], b[2], b[3] = byte(v>>24), byte(v>>16), byte(v>>8), byte(v)
}

func corrupt(text string) error { return &storage.Error{Kind: sdk.Corrupt, Text: text} }

// outOfOrder is what a reader says whose rows do not ascend: what leads to them is
// damaged, and rows may be missing.
func outOfOrder() error { return corrupt("rows are out of order; restore the database from a backup") }

func unavailable(op string, err error) error {
	return &storage.Error{Kind: sdk.Unavailable, Op: op, Err: err}
}
