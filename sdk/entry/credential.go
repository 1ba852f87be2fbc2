package entry

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Sizes of the layout, in bytes and in characters of base64url.
//
//	token   id(8) | time u32 unix s | nonce(8) | mac(16)
//	mac     HMAC-SHA-256(key, label 00 method 00 path 00 st 00 time nonce)[:16]
//	id      expiry u32 unix s | random(4)
//	cookie  TOKEN or TOKEN "." ST
const (
	idSize    = 8
	keySize   = 16
	timeSize  = 4
	nonceSize = 8
	macSize   = 16
	tokenSize = idSize + timeSize + nonceSize + macSize

	// TokenLength is the number of characters of a token without a stream part.
	TokenLength = tokenSize / 3 * 4
	// StreamLength is the number of characters of a stream part.
	StreamLength = (streamSize*8 + 5) / 6
	// MaxLength is the longest cookie value: token, dot, stream part.
	MaxLength = TokenLength + 1 + StreamLength

	// MinMaster is the least number of bytes of a master secret.
	MinMaster = 32

	// MethodRaw is the method of tokens on transports without HTTP; the path is
	// then the transport's name.
	MethodRaw = "RAW"

	credentialLabel = "commucat/entry/1\x00"
	tokenLabel      = "commucat/entry-token/1\x00"
)

// strictURL refuses stray trailing bits, so that a token has one spelling; it
// is never changed.
var strictURL = base64.RawURLEncoding.Strict()

// Credential lets its holder make tokens until it expires. Key is a secret.
type Credential struct {
	// ID is public: the expiry in unix seconds and four random bytes.
	ID [idSize]byte
	// Key signs tokens.
	Key [keySize]byte
}

// New draws a credential that ends at expires, truncated to the second. If
// random fails, master is shorter than [MinMaster] or expires does not fit 32
// bits of unix seconds, it is the zero Credential, which expired in 1970.
func New(master []byte, expires time.Time, random io.Reader) Credential {
	unix := expires.Unix()
	if unix <= 0 || unix > 1<<32-1 || len(master) < MinMaster {
		return Credential{}
	}
	var id [idSize]byte
	binary.BigEndian.PutUint32(id[:4], uint32(unix))
	if _, err := io.ReadFull(random, id[4:]); err != nil {
		return Credential{}
	}
	return Derive(master, id)
}

// Derive gives the credential of an id: HKDF-SHA-256 of master without salt.
func Derive(master []byte, id [idSize]byte) Credential {
	c := Credential{ID: id}
	key, err := hkdf.Key(sha256.New, master, nil, credentialLabel+string(id[:]), keySize)
	if err != nil {
		// Only a FIPS-only runtime with a short master can refuse; such a
		// credential verifies nowhere.
		return c
	}
	copy(c.Key[:], key)
	return c
}

// Expires is the moment from which the relay refuses the credential.
func (c Credential) Expires() time.Time {
	return time.Unix(int64(binary.BigEndian.Uint32(c.ID[:4])), 0)
}

// LogValue hides the key.
func (c Credential) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", fmt.Sprintf("%x", c.ID)), slog.String("key", "hidden"))
}

// String hides the key.
func (c Credential) String() string { return fmt.Sprintf("entry credential %x", c.ID) }

// GoString hides the key.
func (c Credential) GoString() string { return c.String() }

// Token makes the cookie value for one request: TOKEN, or TOKEN.ST when st
// (see [Stream.String]) is not empty. now is the server's clock as the client
// knows it. random gives the nonce; if it fails, the token is empty, which no
// relay accepts.
func (c Credential) Token(method, path, st string, now time.Time, random io.Reader) string {
	var raw [tokenSize]byte
	copy(raw[:], c.ID[:])
	binary.BigEndian.PutUint32(raw[idSize:], uint32(now.Unix()))
	if _, err := io.ReadFull(random, raw[idSize+timeSize:idSize+timeSize+nonceSize]); err != nil {
		return ""
	}
	mac := c.mac(method, path, st, raw[idSize:idSize+timeSize+nonceSize])
	copy(raw[tokenSize-macSize:], mac[:macSize])
	token := strictURL.EncodeToString(raw[:])
	if st != "" {
		token += "." + st
	}
	return token
}

// mac signs a request; stamp is time and nonce.
func (c Credential) mac(method, path, st string, stamp []byte) [sha256.Size]byte {
	h := hmac.New(sha256.New, c.Key[:])
	text := make([]byte, 0, len(tokenLabel)+len(method)+len(path)+len(st)+3+timeSize+nonceSize)
	text = append(text, tokenLabel...)
	text = append(append(text, method...), 0)
	text = append(append(text, path...), 0)
	text = append(append(text, st...), 0)
	text = append(text, stamp...)
	h.Write(text)
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	return sum
}
