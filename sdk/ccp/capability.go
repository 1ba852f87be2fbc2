package ccp

import "slices"

// Capabilities is a set of extensions, in the bits of tag 9 of a link
// (protocol-extensions.md sections 1 and 9).
type Capabilities uint16

// The capabilities.
const (
	// ProofBinding: the proof covers the Noise handshake hash; Confirm and Ack are
	// records.
	ProofBinding Capabilities = 1 << iota
	// Sealed: device, account and certificate travel in Confirm.
	Sealed
	// Records: frames are a byte stream over records; rekeying; padding.
	Records
	// Ack: message ids, Send, Deliver, Done, Move.
	Ack
	// Resume: the session above the Noise state can be taken up.
	Resume
	// PQ: hybrid secrecy with ML-KEM-768.
	PQ
)

// AllCapabilities is every capability that this version of the protocol has.
const AllCapabilities = ProofBinding | Sealed | Records | Ack | Resume | PQ

// MaxCapabilities is how many names a list may have, known or not.
const MaxCapabilities = 32

var capabilityNames = [...]string{"proof-binding", "sealed", "records", "ack", "resume", "pq"}

// needs says what each capability depends on, in the order of the bits.
var capabilityNeeds = [...]Capabilities{0, ProofBinding, ProofBinding, ProofBinding, Ack, Sealed}

// ParseCapabilities is the set of the names that are known; others are ignored,
// as is "zstd", which is never accepted.
func ParseCapabilities(names []string) Capabilities {
	var set Capabilities
	for _, name := range names {
		if i := slices.Index(capabilityNames[:], name); i >= 0 {
			set |= 1 << i
		}
	}
	return set
}

// Names lists the set in the order of the bits; nil for the empty set.
func (c Capabilities) Names() []string {
	var names []string
	for i, name := range capabilityNames {
		if c.Has(1 << i) {
			names = append(names, name)
		}
	}
	return names
}

// Has says that all of want are in the set.
func (c Capabilities) Has(want Capabilities) bool { return c&want == want }

// Missing is what want has and the set has not.
func (c Capabilities) Missing(want Capabilities) Capabilities { return want &^ c }

// Check returns an *Error of kind Capability if a member of the set lacks what
// it needs: sealed, records and ack need proof-binding, resume needs ack, pq
// needs sealed.
func (c Capabilities) Check() error {
	for i, needs := range capabilityNeeds {
		if c.Has(1<<i) && !c.Has(needs) {
			return &Error{Kind: Capability, Field: "accepted", Detail: capabilityNames[i] + " without " + needs.Names()[0]}
		}
	}
	return nil
}

// Negotiate is the set that a server accepts: what both have, without members
// whose needs are not met. The result always passes Check.
func Negotiate(client, server Capabilities) Capabilities {
	both := client & server & AllCapabilities
	for i, needs := range capabilityNeeds { // needs stand before those who need them
		if !both.Has(needs) {
			both &^= 1 << i
		}
	}
	return both
}

// validCapability says that a name has 1 to 32 of a-z 0-9 and hyphen.
func validCapability(name string) bool {
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return len(name) >= 1 && len(name) <= 32
}
