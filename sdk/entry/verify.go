package entry

import (
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"time"
)

// Why a token was refused. To the peer all of them look the same.
var (
	// ErrMalformed is a value of wrong length or spelling.
	ErrMalformed = errors.New("entry: malformed token")
	// ErrExpired is a credential that has ended.
	ErrExpired = errors.New("entry: credential expired")
	// ErrClock is a token made more than [MaxSkew] before or after now.
	ErrClock = errors.New("entry: token from another time")
	// ErrMAC is a token that no master of ours signed for this request.
	ErrMAC = errors.New("entry: wrong token")
	// ErrReplay is a nonce that was seen before.
	ErrReplay = errors.New("entry: token seen before")
)

const (
	// MaxSkew is how far a token's time may be from the relay's.
	MaxSkew = 120 * time.Second
	// NonceMemory is how many nonces each of the two generations remembers.
	NonceMemory = 65_536
)

// Verifier checks tokens. It is safe for concurrent use. Its memory is
// bounded: two generations of [NonceMemory] nonces, each kept for at least
// twice [MaxSkew] and at most four times that; nonces beyond are accepted and
// not remembered, because the token hides the relay and does not authenticate.
type Verifier struct {
	masters func() [][]byte
	now     func() time.Time

	mu      sync.Mutex
	born    time.Time // of the young generation
	young   map[uint64]struct{}
	old     map[uint64]struct{}
	skipped uint64
}

// NewVerifier returns a verifier. masters gives the masters accepted now,
// newest first; it is called once a token and must be cheap and safe for
// concurrent use, and its result is not modified. now is the clock; nil is
// [time.Now].
func NewVerifier(masters func() [][]byte, now func() time.Time) *Verifier {
	if now == nil {
		now = time.Now
	}
	return &Verifier{masters: masters, now: now}
}

// Verify checks the cookie value of one request in this order: length and
// spelling, the credential's expiry, the token's time, the MAC (in constant
// time) over method, path and stream part, and last that the nonce is new. The
// caller has compared the path before. hasStream says that the value carried a
// stream part.
func (v *Verifier) Verify(method, path, value string) (s Stream, hasStream bool, err error) {
	if len(value) != TokenLength && len(value) != MaxLength {
		return Stream{}, false, ErrMalformed
	}
	token, st, hasStream := strings.Cut(value, ".")
	var raw [tokenSize]byte
	if len(token) != TokenLength || !decode(raw[:], token) {
		return Stream{}, false, ErrMalformed
	}
	if hasStream {
		if s, err = ParseStream(st); err != nil {
			return Stream{}, false, err
		}
	}
	now := v.now()
	if now.Unix() >= int64(binary.BigEndian.Uint32(raw[:4])) {
		return Stream{}, false, ErrExpired
	}
	made := time.Unix(int64(binary.BigEndian.Uint32(raw[idSize:])), 0)
	if skew := now.Truncate(time.Second).Sub(made); skew > MaxSkew || skew < -MaxSkew {
		return Stream{}, false, ErrClock
	}
	if !v.signed(&raw, method, path, st) {
		return Stream{}, false, ErrMAC
	}
	nonce := binary.BigEndian.Uint64(raw[idSize+timeSize:])
	if !v.fresh(nonce, now) {
		return Stream{}, false, ErrReplay
	}
	return s, hasStream, nil
}

// signed tries every master, so that the time does not tell which one fits.
func (v *Verifier) signed(raw *[tokenSize]byte, method, path, st string) bool {
	var id [idSize]byte
	copy(id[:], raw[:])
	good := false
	for _, master := range v.masters() {
		if len(master) < MinMaster {
			continue
		}
		mac := Derive(master, id).mac(method, path, st, raw[idSize:idSize+timeSize+nonceSize])
		if hmac.Equal(mac[:macSize], raw[tokenSize-macSize:]) {
			good = true
		}
	}
	return good
}

// fresh remembers a nonce and says whether it was new.
func (v *Verifier) fresh(nonce uint64, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	// A token is good for 2*MaxSkew at most, so a generation may be dropped
	// when the one after it is that old.
	if age := now.Sub(v.born); v.young == nil || age > 2*MaxSkew || age < -2*MaxSkew {
		v.old, v.young, v.born = v.young, make(map[uint64]struct{}), now
	}
	if _, seen := v.young[nonce]; seen {
		return false
	}
	if _, seen := v.old[nonce]; seen {
		return false
	}
	if len(v.young) >= NonceMemory {
		v.skipped++
		return true
	}
	v.young[nonce] = struct{}{}
	return true
}

// Skipped counts tokens that were accepted without being remembered.
func (v *Verifier) Skipped() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.skipped
}
