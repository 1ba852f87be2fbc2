package noise

import (
	"encoding/binary"
	"slices"
)

// Record layout:
//
//	varint n | ciphertext (n bytes = plaintext + 16)
const (
	// MinRecord is the smallest n: an empty record, a keep-alive.
	MinRecord = Overhead
	// MaxRecord is the largest n.
	MaxRecord = 65535
	// MaxPlaintext is the most that one record carries.
	MaxPlaintext = MaxRecord - Overhead
	// DefaultRecord is the n at which a Sealer splits by default: with its two
	// length bytes the record takes 16,384 bytes, the size of one TLS record.
	DefaultRecord = 16382
)

const maxVarint = 10

// Sealer writes the records of one direction. It is not safe for concurrent use.
type Sealer struct {
	cipher *Cipher
}

// NewSealer makes the writer of the direction that c seals.
func NewSealer(c *Cipher) *Sealer { return &Sealer{cipher: c} }

// Counter is the number of records written.
func (s *Sealer) Counter() uint64 { return s.cipher.counter }

// AppendRecords seals plaintext into records of at most maxRecord bytes of
// ciphertext (n, 17 to 65,535; 0 is DefaultRecord) and appends them to dst.
// Empty plaintext gives one empty record. dst grows at most once, and not at
// all when it has SealedSize bytes to spare; plaintext may not overlap that
// space. Error kinds: KindRecord for a maxRecord out of range, KindRetired; dst
// then has not grown and nothing was sealed.
func (s *Sealer) AppendRecords(dst, plaintext []byte, maxRecord int) ([]byte, error) {
	if maxRecord == 0 {
		maxRecord = DefaultRecord
	}
	if maxRecord <= MinRecord || maxRecord > MaxRecord {
		return dst, ErrRecord
	}
	step := maxRecord - Overhead
	records := max(1, (len(plaintext)+step-1)/step)
	if uint64(records) > MaxCounter-s.cipher.counter {
		return dst, ErrRetired
	}
	dst = slices.Grow(dst, SealedSize(len(plaintext), maxRecord))
	for ; records > 0; records-- {
		part := plaintext[:min(step, len(plaintext))]
		plaintext = plaintext[len(part):]
		out, err := s.cipher.AppendSeal(binary.AppendUvarint(dst, uint64(len(part)+Overhead)), part)
		if err != nil {
			return dst, err
		}
		dst = out
	}
	return dst, nil
}

// AppendRecord seals plaintext, at most MaxPlaintext bytes, into exactly one
// record, as peers without the records capability need it for each frame.
// Error kinds: KindRecord, KindRetired.
func (s *Sealer) AppendRecord(dst, plaintext []byte) ([]byte, error) {
	if len(plaintext) > MaxPlaintext {
		return dst, ErrRecord
	}
	return s.AppendRecords(dst, plaintext, MaxRecord)
}

// SealedSize is the number of bytes that AppendRecords adds for a plaintext of
// n bytes. maxRecord is read as there; out of its range the answer is 0.
func SealedSize(n, maxRecord int) int {
	if maxRecord == 0 {
		maxRecord = DefaultRecord
	}
	if n < 0 || maxRecord <= MinRecord || maxRecord > MaxRecord {
		return 0
	}
	step := maxRecord - Overhead
	size := n / step * (varintLen(maxRecord) + maxRecord)
	if rest := n % step; rest > 0 || n == 0 {
		size += varintLen(rest+Overhead) + rest + Overhead
	}
	return size
}

func varintLen(n int) int {
	switch {
	case n < 1<<7:
		return 1
	case n < 1<<14:
		return 2
	}
	return 3
}

// Opener reads the records of one direction from a byte stream. It holds no
// bytes itself: the caller keeps what is not yet consumed. It is not safe for
// concurrent use.
type Opener struct {
	cipher *Cipher
	err    error
}

// NewOpener makes the reader of the direction that c opens.
func NewOpener(c *Cipher) *Opener { return &Opener{cipher: c} }

// Counter is the number of records opened.
func (o *Opener) Counter() uint64 { return o.cipher.counter }

// RecordSize reads the length at the head of in: head is the size of the varint
// and n that of the ciphertext behind it, which need not have arrived. It gives
// ErrIncomplete while the varint is not whole, and ErrRecord as soon as the
// bytes there can only mean a length over 65,535, or mean one under 16.
func RecordSize(in []byte) (head, n int, err error) {
	var v uint64
	for i, b := range in[:min(len(in), maxVarint)] {
		v |= uint64(b&0x7f) << (7 * i)
		if v > MaxRecord {
			return 0, 0, ErrRecord
		}
		if b < 0x80 {
			if v < MinRecord {
				return 0, 0, ErrRecord
			}
			return i + 1, int(v), nil
		}
	}
	if len(in) >= maxVarint {
		return 0, 0, ErrRecord
	}
	return 0, 0, ErrIncomplete
}

// Next opens the record at the head of in, in place: plain aliases in, and is
// empty for a keep-alive. consumed is the length of the whole record. With
// ErrIncomplete nothing was consumed and in is unchanged; after any other error
// (kinds KindRecord, KindDecrypt, KindRetired) the connection must end, in is
// spoilt, and every further call gives that error again.
func (o *Opener) Next(in []byte) (plain []byte, consumed int, err error) {
	head, n, err := o.head(in)
	if err != nil {
		return nil, 0, err
	}
	body := in[head : head+n : head+n]
	if plain, err = o.open(body[:0], body); err != nil {
		return nil, 0, err
	}
	return plain, head + n, nil
}

// AppendNext is Next with the plaintext appended to dst and in left as it was,
// also by a failure: for who must look at the bytes again. dst may not overlap
// in. With an error dst is returned unchanged.
func (o *Opener) AppendNext(dst, in []byte) (out []byte, consumed int, err error) {
	head, n, err := o.head(in)
	if err != nil {
		return dst, 0, err
	}
	if out, err = o.open(dst, in[head:head+n]); err != nil {
		return dst, 0, err
	}
	return out, head + n, nil
}

// head is RecordSize for a record that must be there as a whole.
func (o *Opener) head(in []byte) (head, n int, err error) {
	if o.err != nil {
		return 0, 0, o.err
	}
	head, n, err = RecordSize(in)
	switch {
	case err == nil && len(in)-head < n:
		return 0, 0, ErrIncomplete
	case err != nil && err != ErrIncomplete:
		o.err = err
	}
	return head, n, err
}

func (o *Opener) open(dst, body []byte) ([]byte, error) {
	out, err := o.cipher.Open(dst, body)
	if err != nil {
		o.err = err
	}
	return out, err
}
