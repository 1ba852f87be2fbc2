package masque

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"
)

// maxGuest bounds a guest's id in bytes.
const maxGuest = 64

// A key id (RFC 9729, parameter k) says for whom and until when a key is good:
//
//	version u8 = 1 | generation u16 | expires u40, Unix seconds, 0 for none | tag 16 | guest id
//
// The tag is HMAC-SHA-256 over everything else and the public key, cut to 16
// bytes. So the relay keeps no list of the keys that it has allowed, and a key id
// that it has not made costs a stranger one HMAC.
const (
	keyIDVersion = 1
	keyIDHead    = 8
	keyIDTag     = 16
	maxKeyID     = keyIDHead + keyIDTag + maxGuest
)

// grant is what a key id says.
type grant struct {
	guest      string
	generation uint16
	expires    time.Time // zero: until it is revoked
}

func (g grant) head() []byte {
	b := make([]byte, 0, maxKeyID)
	b = append(b, keyIDVersion)
	b = binary.BigEndian.AppendUint16(b, g.generation)
	var seconds uint64
	if !g.expires.IsZero() {
		seconds = uint64(max(g.expires.Unix(), 1))
	}
	return append(b, byte(seconds>>32), byte(seconds>>24), byte(seconds>>16), byte(seconds>>8), byte(seconds))
}

func readHead(b []byte, guest string) grant {
	g := grant{guest: guest, generation: binary.BigEndian.Uint16(b[1:])}
	if s := int64(b[3])<<32 | int64(binary.BigEndian.Uint32(b[4:])); s != 0 {
		g.expires = time.Unix(s, 0)
	}
	return g
}

// over says that a grant has expired.
func (g grant) over(now time.Time) bool { return !g.expires.IsZero() && !now.Before(g.expires) }

var (
	errGuest = errors.New("a guest's id has 1 to 64 bytes")
	errKeyID = errors.New("unknown key id")
)

// keyID vouches for a public key.
func (s *secrets) keyID(g grant, public ed25519.PublicKey) ([]byte, error) {
	if len(g.guest) == 0 || len(g.guest) > maxGuest {
		return nil, errGuest
	}
	head := g.head()
	return append(append(head, mac(s.vouch, head, public, []byte(g.guest))[:keyIDTag]...), g.guest...), nil
}

// open reads a key id that was shown with a public key. It does not look at
// expiry and revocation.
func (s *secrets) open(id []byte, public ed25519.PublicKey) (grant, error) {
	if len(id) <= keyIDHead+keyIDTag || len(id) > maxKeyID || id[0] != keyIDVersion {
		return grant{}, errKeyID
	}
	head, tag, guest := id[:keyIDHead], id[keyIDHead:keyIDHead+keyIDTag], id[keyIDHead+keyIDTag:]
	if !hmac.Equal(tag, mac(s.vouch, head, public, guest)[:keyIDTag]) {
		return grant{}, errKeyID
	}
	return readHead(head, string(guest)), nil
}

// linkKey is the private key of a link, the same each time it is asked for.
func (s *secrets) linkKey(g grant) (ed25519.PrivateKey, error) {
	seed, err := hkdf.Key(sha256.New, s.link, nil, string(g.head())+g.guest, ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// bearerTag is the length of a bearer token's MAC.
const bearerTag = 24

// bearerToken is what a client without RFC 9729 shows instead of a proof: the head
// and guest of a key id with a MAC of its own, in base64url.
func (s *secrets) bearerToken(g grant) (string, error) {
	if len(g.guest) == 0 || len(g.guest) > maxGuest {
		return "", errGuest
	}
	head := g.head()
	return encode(append(append(head, mac(s.bearer, head, nil, []byte(g.guest))[:bearerTag]...), g.guest...)), nil
}

func (s *secrets) openBearer(token string) (grant, error) {
	const least, most = keyIDHead + bearerTag, keyIDHead + bearerTag + maxGuest
	if len(token) > base64.RawURLEncoding.EncodedLen(most) {
		return grant{}, errKeyID
	}
	b, err := decode(token)
	if err != nil || len(b) <= least || b[0] != keyIDVersion {
		return grant{}, errKeyID
	}
	head, tag, guest := b[:keyIDHead], b[keyIDHead:least], b[least:]
	if !hmac.Equal(tag, mac(s.bearer, head, nil, guest)[:bearerTag]) {
		return grant{}, errKeyID
	}
	return readHead(head, string(guest)), nil
}

func mac(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func decode(s string) ([]byte, error) { return base64.RawURLEncoding.Strict().DecodeString(s) }

// newKey is transport.Funcs.NewKey: the private half is an Ed25519 seed.
func newKey() (private, public []byte, err error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	return key.Seed(), pub, nil
}
