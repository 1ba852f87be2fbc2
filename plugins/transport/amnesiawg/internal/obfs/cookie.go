package obfs

import (
	"crypto/rand"
	"crypto/subtle"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
)

// CookieLife is how long a cookie is good.
const CookieLife = 120 * time.Second

// An Oven makes and checks cookies: proof that a source address is real, asked of
// strangers under load (WireGuard white paper, section 5.4.7). Cookies are
// functions of a secret that changes every CookieLife, so that nothing is kept for
// each source. It may be used concurrently.
type Oven struct {
	seal [32]byte
	now  func() time.Time

	mu      sync.Mutex
	secrets [2][32]byte // the current one and the one before
	born    time.Time
}

// NewOven makes an oven for the owner of a public key.
func NewOven(public [32]byte, now func() time.Time) *Oven {
	return &Oven{seal: CookieKey(public), now: now}
}

// turn changes the secret when it is old.
func (o *Oven) turn() [2][32]byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now := o.now(); o.born.IsZero() || now.Sub(o.born) >= CookieLife {
		o.secrets[1] = o.secrets[0]
		if now.Sub(o.born) >= 2*CookieLife { // or never used
			_, _ = rand.Read(o.secrets[1][:]) // never fails
		}
		_, _ = rand.Read(o.secrets[0][:])
		o.born = now
	}
	return o.secrets
}

func bake(secret [32]byte, source netip.AddrPort) (c [MACSize]byte) {
	h, err := blake2s.New128(secret[:])
	if err != nil {
		panic(err) // the size of the key is right
	}
	b, _ := source.MarshalBinary() // never fails
	h.Write(b)
	h.Sum(c[:0])
	return c
}

// Check says whether MAC2 of a message was made with the cookie of its source.
func (o *Oven) Check(msg []byte, source netip.AddrPort) bool {
	if !HasCookie(msg) {
		return false
	}
	ok := 0
	for _, secret := range o.turn() {
		sum := mac2(msg, bake(secret, source))
		ok |= subtle.ConstantTimeCompare(sum[:], msg[len(msg)-MACSize:])
	}
	return ok == 1
}

// Reply makes the cookie reply to a message, with a bare type word.
func (o *Oven) Reply(msg []byte, source netip.AddrPort) []byte {
	reply := make([]byte, CookieSize)
	copy(reply[4:], msg[4:8])
	nonce := reply[8 : 8+chacha20poly1305.NonceSizeX]
	_, _ = rand.Read(nonce) // never fails
	cookie, mac1 := bake(o.turn()[0], source), MAC1(msg)
	aead, err := chacha20poly1305.NewX(o.seal[:])
	if err != nil {
		panic(err) // the size of the key is right
	}
	aead.Seal(reply[8+len(nonce):8+len(nonce)], nonce, cookie[:], mac1[:])
	return reply
}

// A Jar holds the cookie that one peer gave us. It may be used concurrently.
type Jar struct {
	seal [32]byte
	now  func() time.Time

	mu     sync.Mutex
	cookie [MACSize]byte
	baked  time.Time
	last   [MACSize]byte // MAC1 of the last message sent
}

// NewJar makes a jar for cookies of the owner of a public key.
func NewJar(public [32]byte, now func() time.Time) *Jar {
	return &Jar{seal: CookieKey(public), now: now}
}

// Sign sets MAC2 of a message to the peer where there is a fresh cookie, and
// remembers its MAC1 for the reply.
func (j *Jar) Sign(msg []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last = MAC1(msg)
	if !j.baked.IsZero() && j.now().Sub(j.baked) < CookieLife {
		SignCookie(msg, j.cookie)
	}
}

// Open takes the cookie out of a reply and says whether it was one to the last
// message sent.
func (j *Jar) Open(reply []byte) bool {
	aead, err := chacha20poly1305.NewX(j.seal[:])
	if err != nil {
		panic(err) // the size of the key is right
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	const at = 8 + chacha20poly1305.NonceSizeX
	var cookie [MACSize]byte
	if _, err := aead.Open(cookie[:0], reply[8:at], reply[at:CookieSize], j.last[:]); err != nil {
		return false
	}
	j.cookie, j.baked = cookie, j.now()
	return true
}
