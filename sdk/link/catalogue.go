package link

import (
	"crypto/ed25519"
	"math"
	"slices"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
)

// Limits of catalogues.
const (
	// MaxCatalogue bounds the signed JSON, in bytes.
	MaxCatalogue = 8 << 10
	// MaxNoiseKeys is how many Noise keys may be live.
	MaxNoiseKeys = 3
	// MaxCAs bounds the device CA keys.
	MaxCAs = 16
	// MaxValidity is the longest time between Issued and Expires.
	MaxValidity = 90 * 24 * time.Hour

	catalogueVersion = 1
	catalogueLabel   = "commucat/catalogue/1"
)

// Catalogue lists a relay's keys and what it promises (protocol-extensions.md
// section 8). Times have whole seconds.
type Catalogue struct {
	// Domain is UTF-8 of 1 to 253 bytes.
	Domain string
	// Serial grows with every catalogue of a relay, from 1.
	Serial  uint64
	Issued  time.Time
	Expires time.Time
	// Noise are 1 to 3 keys, the newest first.
	Noise []NoiseKey
	// CA are the device CA keys in force, at least one.
	CA [][32]byte
	// Features are the capabilities promised, Min those that both sides insist
	// on; names unknown here are kept.
	Features []string
	Min      []string
	// RootNext is the root key to pin beside the present one; nil when there is
	// none.
	RootNext *[32]byte
}

// NoiseKey is a server key of a catalogue.
type NoiseKey struct {
	Version uint32
	Public  [32]byte
	// NotAfter is when the relay stops accepting the key.
	NotAfter time.Time
}

// Newest is the Noise key with the highest version.
func (c Catalogue) Newest() NoiseKey {
	return slices.MaxFunc(c.Noise, func(a, b NoiseKey) int { return int(int64(a.Version) - int64(b.Version)) })
}

// Promises is the part of Features that this version knows.
func (c Catalogue) Promises() ccp.Capabilities { return ccp.ParseCapabilities(c.Features) }

// Newer says that c may replace a catalogue with this serial for the same root:
// its serial is not below.
func (c Catalogue) Newer(highestSerial uint64) bool { return c.Serial >= highestSerial }

// Check is the client's test of a catalogue whose signature OpenCatalogue has
// verified: errors are *Error of kind WrongDomain, Expired or Stale. The old
// catalogue stays in force then, and a warning is due.
func (c Catalogue) Check(domain string, now time.Time, highestSerial uint64) error {
	switch {
	case c.Domain != domain:
		return badCatalogue(WrongDomain, "")
	case !now.Before(c.Expires):
		return badCatalogue(Expired, "")
	case !c.Newer(highestSerial):
		return badCatalogue(Stale, "")
	}
	return nil
}

// Satisfied returns an *Error of kind Unsupported if have lacks a capability of
// Min, known here or not.
func (c Catalogue) Satisfied(have ccp.Capabilities) error {
	for _, name := range c.Min {
		if set := ccp.ParseCapabilities([]string{name}); set == 0 || !have.Has(set) {
			return badCatalogue(Unsupported, name)
		}
	}
	return nil
}

func (c Catalogue) check() error {
	switch {
	case c.Domain == "" || len(c.Domain) > MaxDomain:
		return badCatalogue(Malformed, "domain")
	case c.Serial == 0:
		return badCatalogue(Malformed, "serial")
	case c.Issued.Unix() < 0 || !c.Issued.Before(c.Expires) || c.Expires.Sub(c.Issued) > MaxValidity || c.Expires.Unix() > math.MaxUint32<<8:
		return badCatalogue(Malformed, "issued and expires")
	case len(c.Noise) < 1 || len(c.Noise) > MaxNoiseKeys:
		return badCatalogue(Malformed, "not 1 to 3 Noise keys")
	case len(c.CA) < 1 || len(c.CA) > MaxCAs:
		return badCatalogue(Malformed, "not 1 to 16 CA keys")
	case len(c.Features) > ccp.MaxCapabilities || len(c.Min) > ccp.MaxCapabilities:
		return badCatalogue(Malformed, "too many capabilities")
	}
	for i, k := range c.Noise {
		if k.NotAfter.Unix() < 0 || slices.ContainsFunc(c.Noise[:i], func(o NoiseKey) bool { return o.Version == k.Version }) {
			return badCatalogue(Malformed, "noise")
		}
	}
	return nil
}

// Signed is a catalogue as it travels: exact bytes and their signature.
type Signed struct {
	Content   []byte
	Signature [64]byte
}

// SignCatalogue checks and signs a catalogue.
func SignCatalogue(c Catalogue, root ed25519.PrivateKey) (Signed, error) {
	if len(root) != ed25519.PrivateKeySize {
		return Signed{}, badCatalogue(BadSignature, "not an Ed25519 private key")
	}
	if err := c.check(); err != nil {
		return Signed{}, err
	}
	b := c.marshal()
	if len(b) > MaxCatalogue {
		return Signed{}, badCatalogue(Malformed, "longer than 8 KiB")
	}
	return Signed{Content: b, Signature: [64]byte(ed25519.Sign(root, signed(catalogueLabel, b)))}, nil
}

// OpenCatalogue verifies the signature by any of the roots and reads the
// content. Catalogue.Check has the rest of a client's rules. Errors are *Error of
// kind Malformed, NewerVersion or BadSignature.
func OpenCatalogue(s Signed, roots ...ed25519.PublicKey) (Catalogue, error) {
	if len(s.Content) > MaxCatalogue {
		return Catalogue{}, badCatalogue(Malformed, "longer than 8 KiB")
	}
	message := signed(catalogueLabel, s.Content)
	if !slices.ContainsFunc(roots, func(root ed25519.PublicKey) bool {
		return len(root) == ed25519.PublicKeySize && ed25519.Verify(root, message, s.Signature[:])
	}) {
		return Catalogue{}, badCatalogue(BadSignature, "")
	}
	return parseCatalogue(s.Content)
}
