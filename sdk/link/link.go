package link

import (
	"crypto/ed25519"
	"log/slog"
	"math"
	"time"
	"unicode/utf8"

	"github.com/commucat/commucat/sdk/ccp"
)

// Limits of links.
const (
	// MaxBytes bounds the signed bytes of a link with their signature.
	MaxBytes = 1024
	// MaxDomain is the longest domain, in bytes.
	MaxDomain = 253
	// MaxEndpoints and MaxPins bound the lists.
	MaxEndpoints = ccp.MaxEndpoints
	MaxPins      = 2

	version        = 1
	signatureLabel = "commucat/link/1"
)

// Kind is what a link is for.
type Kind uint8

// The kinds.
const (
	// Invite: makes the first device of a new account.
	Invite Kind = 1
	// Pairing: adds a device to an account.
	Pairing Kind = 2
	// Address: how to reach a relay, without a secret.
	Address Kind = 3
)

// String is "invite", "pairing", "address" or "unknown".
func (k Kind) String() string {
	switch k {
	case Invite:
		return "invite"
	case Pairing:
		return "pairing"
	case Address:
		return "address"
	default:
		return "unknown"
	}
}

// Endpoint is an address of the relay by one transport.
type Endpoint = ccp.Endpoint

// Entry is the credential that opens the relay's front.
type Entry = ccp.Entry

// Link is the content of a link. It is a secret while it is valid: its LogValue
// shows the kind and the domain only.
type Link struct {
	Kind Kind
	// Root is the Ed25519 key that signed the link.
	Root [32]byte
	// NoiseVersion and NoisePublic are the server key to dial with.
	NoiseVersion uint32
	NoisePublic  [32]byte
	// Domain is UTF-8 of 1 to 253 bytes; it enters the proof byte for byte.
	Domain string
	// Entry, Secret and Expires are there in invitations and pairing links,
	// and only there. Secret is never all zero, Expires has whole seconds.
	Entry   *Entry
	Secret  [16]byte
	Expires time.Time
	// Endpoints are 1 to 8, the preferred one first.
	Endpoints []Endpoint
	// Pins are up to two SHA-256 hashes of the TLS key (SPKI) that replace the
	// web roots for this relay.
	Pins [][32]byte
	// Capabilities are what the relay promises, in the bits of ccp.Capabilities;
	// bits unknown here are kept.
	Capabilities uint64

	// Raw are the signed bytes and their signature, set by Parse and not looked
	// at by Sign. String and Web write them.
	Raw []byte
}

// Promises is the part of Capabilities that this version knows.
func (l Link) Promises() ccp.Capabilities {
	return ccp.Capabilities(l.Capabilities) & ccp.AllCapabilities
}

// Expired says whether an invitation or pairing link is over at now. An address
// never expires.
func (l Link) Expired(now time.Time) bool { return !l.Expires.IsZero() && !now.Before(l.Expires) }

// LogValue keeps secrets out of logs.
func (l Link) LogValue() slog.Value {
	return slog.GroupValue(slog.String("kind", l.Kind.String()), slog.String("domain", l.Domain))
}

// GoString keeps secrets out of %#v.
func (l Link) GoString() string { return "link.Link{" + l.Kind.String() + " " + l.Domain + "}" }

func (l Link) check() error {
	secret := l.Kind == Invite || l.Kind == Pairing
	switch {
	case !secret && l.Kind != Address:
		return badLink(NewerVersion, "unknown kind")
	case l.Domain == "" || len(l.Domain) > MaxDomain || !utf8.ValidString(l.Domain):
		return badLink(Malformed, "domain")
	case secret && (l.Entry == nil || l.Secret == [16]byte{} || l.Expires.IsZero()):
		return badLink(Malformed, "entry, secret or expiry is missing")
	case !secret && (l.Entry != nil || l.Secret != [16]byte{} || !l.Expires.IsZero()):
		return badLink(Malformed, "an address holds no entry, secret or expiry")
	case secret && (l.Expires.Unix() < 1 || l.Expires.Unix() > math.MaxUint32 || l.Expires.Nanosecond() != 0):
		return badLink(Malformed, "expiry")
	case len(l.Endpoints) < 1 || len(l.Endpoints) > MaxEndpoints:
		return badLink(Malformed, "not 1 to 8 endpoints")
	case len(l.Pins) > MaxPins:
		return badLink(Malformed, "more than 2 pins")
	}
	for _, e := range l.Endpoints {
		if err := e.Check(); err != nil {
			return badLink(Malformed, err.Error())
		}
	}
	return nil
}

// signed is what the root key signs: the label, a zero byte and the bytes.
func signed(label string, b []byte) []byte {
	return append(append(make([]byte, 0, len(label)+1+len(b)), label+"\x00"...), b...)
}

// Sign makes the link's text (lower case) with the root key that l.Root must be
// the public half of; a zero Root is filled in. It refuses what Parse would.
func (l Link) Sign(root ed25519.PrivateKey) (string, error) {
	if len(root) != ed25519.PrivateKeySize {
		return "", badLink(BadSignature, "not an Ed25519 private key")
	}
	public := [32]byte(root.Public().(ed25519.PublicKey))
	if l.Root == [32]byte{} {
		l.Root = public
	}
	if l.Root != public {
		return "", badLink(BadSignature, "another key than the root named")
	}
	if err := l.check(); err != nil {
		return "", err
	}
	b := l.body()
	b = append(b, ed25519.Sign(root, signed(signatureLabel, b))...)
	if len(b) > MaxBytes {
		return "", badLink(Malformed, "longer than 1024 bytes")
	}
	return Scheme + encode(b), nil
}
