package relay

import (
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/commucat/commucat/sdk/ccp"
)

// A stored payload is XChaCha20-Poly1305 of
//
//	kind u8 | flags u8 | channel u32 | time i64 | log 8 | counter u64 |
//	len u8 | device | len u8 | user | body
//
// behind its 24 bytes of nonce, with queue ‖ id as associated data: a row moved
// to another queue or id does not open.
const (
	envelopeFixed = 1 + 1 + 4 + 8 + 8 + 8 + 1 + 1
	sealOverhead  = chacha20poly1305.NonceSizeX + chacha20poly1305.Overhead
	prefixSize    = 16
	prefixUses    = 1 << 20
)

// flagMoved in a stored row says that it was moved behind the others and is to
// be sent alone. It never goes to a peer.
const flagMoved = 0x80

var (
	errEnvelope = errors.New("relay: stored row does not open")
	errName     = errors.New("relay: name longer than 255 bytes")
)

// envelope is the content of one stored row.
type envelope struct {
	kind         ccp.Type
	flags        uint8
	channel      uint32
	time         int64
	id           ccp.MessageID
	device, user string
	body         []byte
}

func (e *envelope) size() int {
	return envelopeFixed + len(e.device) + len(e.user) + len(e.body)
}

func (e *envelope) append(dst []byte) []byte {
	dst = append(dst, byte(e.kind), e.flags)
	dst = binary.BigEndian.AppendUint32(dst, e.channel)
	dst = binary.BigEndian.AppendUint64(dst, uint64(e.time))
	dst = append(dst, e.id.Log[:]...)
	dst = binary.BigEndian.AppendUint64(dst, e.id.Counter)
	dst = append(dst, byte(len(e.device)))
	dst = append(dst, e.device...)
	dst = append(dst, byte(len(e.user)))
	dst = append(dst, e.user...)
	return append(dst, e.body...)
}

// parse reads the plain form; body aliases b.
func (e *envelope) parse(b []byte) error {
	if len(b) < envelopeFixed {
		return errEnvelope
	}
	e.kind, e.flags = ccp.Type(b[0]), b[1]
	e.channel = binary.BigEndian.Uint32(b[2:])
	e.time = int64(binary.BigEndian.Uint64(b[6:]))
	copy(e.id.Log[:], b[14:22])
	e.id.Counter = binary.BigEndian.Uint64(b[22:])
	b = b[30:]
	var ok bool
	if e.device, b, ok = cutName(b); !ok {
		return errEnvelope
	}
	if e.user, b, ok = cutName(b); !ok {
		return errEnvelope
	}
	e.body = b
	return nil
}

func cutName(b []byte) (string, []byte, bool) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return "", nil, false
	}
	n := 1 + int(b[0])
	return string(b[1:n]), b[n:], true
}

// rowID is the storage id of a message: it covers the sender, so another device
// cannot claim its ids.
func rowID(device string, id ccp.MessageID) (out [16]byte) {
	var buf [255 + 1 + 16]byte
	b := append(buf[:0], device...)
	b = append(b, 0)
	b = append(b, id.Log[:]...)
	b = binary.BigEndian.AppendUint64(b, id.Counter)
	sum := sha256.Sum256(b)
	copy(out[:], sum[:])
	return out
}

// movedID is the id of a row after it was moved behind the others.
func movedID(id [16]byte) (out [16]byte) {
	sum := sha256.Sum256(append([]byte("moved\x00"), id[:]...))
	copy(out[:], sum[:])
	return out
}

// vault seals and opens rows. The subkey that XChaCha20 derives from the first
// 16 bytes of a nonce is kept for many rows: a random prefix and a counter make
// nonces as unique as random ones, at the price of plain ChaCha20-Poly1305. A
// vault serves one goroutine at a time.
type vault struct {
	key  [32]byte
	rand io.Reader

	seal   cipher.AEAD
	prefix [prefixSize]byte
	uses   uint64

	open       cipher.AEAD
	openPrefix [prefixSize]byte

	ad    []byte
	nonce [chacha20poly1305.NonceSize]byte
}

func newVault(key [32]byte, random io.Reader) *vault {
	return &vault{key: key, rand: random}
}

func (v *vault) subkey(prefix []byte) (cipher.AEAD, error) {
	k, err := chacha20.HChaCha20(v.key[:], prefix)
	if err != nil {
		return nil, err
	}
	return chacha20poly1305.New(k)
}

// appendSealed appends the sealed form of e for one queue. On error dst is
// returned unchanged.
func (v *vault) appendSealed(dst []byte, e *envelope, queue string, id [16]byte) ([]byte, error) {
	if len(e.device) > 255 || len(e.user) > 255 {
		return dst, errName
	}
	if v.seal == nil || v.uses == prefixUses {
		if _, err := io.ReadFull(v.rand, v.prefix[:]); err != nil {
			return dst, fmt.Errorf("relay: nonce: %w", err)
		}
		aead, err := v.subkey(v.prefix[:])
		if err != nil {
			return dst, err
		}
		v.seal, v.uses = aead, 0
	}
	v.uses++
	binary.BigEndian.PutUint64(v.nonce[4:], v.uses)
	start := len(dst)
	dst = append(dst, v.prefix[:]...)
	dst = append(dst, v.nonce[4:]...)
	dst = e.append(dst)
	v.ad = append(append(v.ad[:0], queue...), id[:]...)
	body := start + chacha20poly1305.NonceSizeX
	sealed := v.seal.Seal(dst[body:body], v.nonce[:], dst[body:], v.ad)
	if &sealed[0] == &dst[body] {
		return dst[:body+len(sealed)], nil
	}
	return append(dst[:body], sealed...), nil
}

// openRow opens a stored payload in place; e.body aliases it.
func (v *vault) openRow(e *envelope, payload []byte, queue string, id [16]byte) error {
	if len(payload) < sealOverhead+envelopeFixed {
		return errEnvelope
	}
	if v.open == nil || string(v.openPrefix[:]) != string(payload[:prefixSize]) {
		aead, err := v.subkey(payload[:prefixSize])
		if err != nil {
			return err
		}
		v.open = aead
		copy(v.openPrefix[:], payload)
	}
	var nonce [chacha20poly1305.NonceSize]byte
	copy(nonce[4:], payload[prefixSize:])
	v.ad = append(append(v.ad[:0], queue...), id[:]...)
	c := payload[chacha20poly1305.NonceSizeX:]
	plain, err := v.open.Open(c[:0], nonce[:], c, v.ad)
	if err != nil {
		return errEnvelope
	}
	return e.parse(plain)
}
