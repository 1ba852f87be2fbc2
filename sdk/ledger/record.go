package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/commucat/commucat/sdk"
)

// MaxMetadata is the largest Metadata of a record.
const MaxMetadata = 16 << 10

// MaxLine is the longest line that AppendLine writes, without its line end.
const MaxLine = MaxMetadata + 512

// label begins the canonical form:
//
//	label ‖ 00 ‖ seq u64 ‖ time i64, unix µs ‖ digest 32 ‖ prev 32 ‖ u32 length ‖ metadata
//
// integers big endian.
const label = "commucat/ledger/1"

// Sum is the hash that belongs into r.Hash.
func (r Record) Sum() [32]byte {
	b := make([]byte, 0, len(label)+1+8+8+64+4+len(r.Metadata))
	b = append(append(b, label...), 0)
	b = binary.BigEndian.AppendUint64(b, r.Seq)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Time.UnixMicro()))
	b = append(append(b, r.Digest[:]...), r.Prev[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.Metadata)))
	return sha256.Sum256(append(b, r.Metadata...))
}

// Next makes the record that follows prev (the zero Record before the first one).
// The time is cut to microseconds; metadata must be as Metadata makes it.
func Next(prev Record, at time.Time, digest [32]byte, metadata []byte) (Record, error) {
	r := Record{Seq: prev.Seq + 1, Time: at.UTC().Truncate(time.Microsecond), Digest: digest, Prev: prev.Hash, Metadata: metadata}
	r.Hash = r.Sum()
	return r, r.Check()
}

// Metadata writes fields as the canonical JSON object: keys sorted, no spaces.
func Metadata(fields map[string]any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if fields == nil {
		fields = map[string]any{}
	}
	if err := e.Encode(fields); err != nil {
		return nil, invalid("metadata: %v", err)
	}
	out := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if len(out) > MaxMetadata {
		return nil, invalid("metadata of %d bytes; at most %d", len(out), MaxMetadata)
	}
	return out, nil
}

// Check says what is wrong with a record by itself: limits, form of the metadata,
// hash. The error has kind Invalid.
func (r Record) Check() error {
	switch {
	case r.Seq == 0:
		return invalid("record 0: numbers begin with 1")
	case !r.Time.Equal(r.Time.Truncate(time.Microsecond)) || r.Time.Location() != time.UTC:
		return invalid("record %d: the time must be UTC in microseconds", r.Seq)
	case r.Time.Year() < 1970 || r.Time.Year() > 9999:
		return invalid("record %d: the time is out of range", r.Seq)
	case len(r.Metadata) > MaxMetadata:
		return invalid("record %d: metadata of %d bytes; at most %d", r.Seq, len(r.Metadata), MaxMetadata)
	case !canonical(r.Metadata):
		return invalid("record %d: metadata is not a canonical JSON object", r.Seq)
	case r.Hash != r.Sum():
		return invalid("record %d: the hash does not belong to the content", r.Seq)
	}
	return nil
}

func canonical(b []byte) bool {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil || m == nil || d.More() {
		return false
	}
	again, err := Metadata(m)
	return err == nil && bytes.Equal(again, b)
}

func invalid(format string, args ...any) error {
	return &sdk.Error{Kind: sdk.Invalid, Op: "ledger", Text: fmt.Sprintf(format, args...)}
}

// Equal reports whether both are the same record.
func (r Record) Equal(o Record) bool { return r.Seq == o.Seq && r.Hash == o.Hash && r.Prev == o.Prev }

// timeLayout is RFC 3339 with microseconds and the offset that the reference writes.
const timeLayout = "2006-01-02T15:04:05.000000+00:00"

// AppendLine appends the record as one line of JSON, without its line end: the
// reference's keys digest, recorded_at and metadata, and the chain's. The order is
// fixed, so that equal records are equal bytes.
func (r Record) AppendLine(b []byte) []byte {
	b = strconv.AppendUint(append(b, `{"seq":`...), r.Seq, 10)
	b = r.Time.UTC().AppendFormat(append(b, `,"recorded_at":"`...), timeLayout)
	b = hex.AppendEncode(append(b, `","digest":"`...), r.Digest[:])
	b = hex.AppendEncode(append(b, `","prev":"`...), r.Prev[:])
	b = hex.AppendEncode(append(b, `","hash":"`...), r.Hash[:])
	b = append(append(b, `","metadata":`...), r.Metadata...)
	return append(b, '}')
}

// ParseLine reads what AppendLine wrote and nothing else: for every line that it
// accepts AppendLine gives the same bytes. It checks the form and the hash, not the
// chain. Metadata aliases line. The error has kind Corrupt.
func ParseLine(line []byte) (Record, error) {
	p := lineParser{rest: line}
	var r Record
	p.literal(`{"seq":`)
	r.Seq = p.number()
	p.literal(`,"recorded_at":"`)
	r.Time = p.time()
	p.literal(`","digest":"`)
	p.hex(r.Digest[:])
	p.literal(`","prev":"`)
	p.hex(r.Prev[:])
	p.literal(`","hash":"`)
	p.hex(r.Hash[:])
	p.literal(`","metadata":`)
	if p.failed == "" && (len(p.rest) < 3 || p.rest[len(p.rest)-1] != '}') {
		p.failed = "the end"
	}
	if p.failed != "" {
		return Record{}, corrupt("not a record: expected %s", p.failed)
	}
	r.Metadata = p.rest[:len(p.rest)-1]
	if len(line) > MaxLine || len(r.Metadata) > MaxMetadata {
		return Record{}, corrupt("not a record: too long")
	}
	if r.Metadata[0] != '{' || !json.Valid(r.Metadata) || bytes.ContainsAny(r.Metadata, "\n\r") {
		return Record{}, corrupt("record %d: metadata is not a JSON object", r.Seq)
	}
	if r.Hash != r.Sum() {
		return Record{}, corrupt("record %d was changed: its hash does not belong to its content", r.Seq)
	}
	return r, nil
}

func corrupt(format string, args ...any) error {
	return &sdk.Error{Kind: sdk.Corrupt, Op: "ledger", Text: fmt.Sprintf(format, args...)}
}

type lineParser struct {
	rest   []byte
	failed string
}

func (p *lineParser) literal(s string) {
	if p.failed != "" {
		return
	}
	rest, ok := bytes.CutPrefix(p.rest, []byte(s))
	if !ok {
		p.failed = s
	}
	p.rest = rest
}

func (p *lineParser) number() uint64 {
	n := 0
	for n < len(p.rest) && p.rest[n] >= '0' && p.rest[n] <= '9' {
		n++
	}
	v, err := strconv.ParseUint(string(p.rest[:n]), 10, 64)
	if err != nil || v == 0 || p.rest[0] == '0' {
		p.failed = "a number"
		return 0
	}
	p.rest = p.rest[n:]
	return v
}

func (p *lineParser) time() time.Time {
	if p.failed != "" || len(p.rest) < len(timeLayout) {
		p.failed = "a time"
		return time.Time{}
	}
	text := string(p.rest[:len(timeLayout)])
	t, err := time.Parse(timeLayout, text)
	if err != nil || t.UTC().Format(timeLayout) != text {
		p.failed = "a time"
		return time.Time{}
	}
	p.rest = p.rest[len(timeLayout):]
	return t.UTC()
}

func (p *lineParser) hex(dst []byte) {
	if p.failed != "" || len(p.rest) < 2*len(dst) {
		p.failed = "a hash"
		return
	}
	text := p.rest[:2*len(dst)]
	if _, err := hex.Decode(dst, text); err != nil || bytes.ContainsAny(text, "ABCDEF") {
		p.failed = "a hash"
		return
	}
	p.rest = p.rest[2*len(dst):]
}
