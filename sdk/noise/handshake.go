package noise

import (
	"errors"
	"fmt"
	"io"
	"slices"

	flynn "github.com/flynn/noise"
)

// DefaultPrologue is the prologue of a relay that configures none.
const DefaultPrologue = "commucat"

// MaxMessage is the longest Noise message in bytes.
const MaxMessage = 65535

// Pattern is a handshake pattern.
type Pattern uint8

// The patterns.
const (
	XK Pattern = iota + 1 // three messages; with PQ: XKpsk3
	IK                    // two messages; with PQ: IKpsk2
)

// String is the name in the Hello: "XK" or "IK".
func (p Pattern) String() string {
	switch p {
	case XK:
		return "XK"
	case IK:
		return "IK"
	}
	return "?"
}

// ParsePattern reads the `pattern` of a Hello; case matters.
func ParsePattern(s string) (Pattern, bool) {
	switch s {
	case "XK":
		return XK, true
	case "IK":
		return IK, true
	}
	return 0, false
}

// Messages is the number of messages: 3 for XK, 2 for IK.
func (p Pattern) Messages() int {
	switch p {
	case XK:
		return 3
	case IK:
		return 2
	}
	return 0
}

// MessageSize is the length in bytes of message i (from 0) with an empty
// payload, the same with and without PQ: XK 48, 48, 64; IK 96, 48. A message
// with a payload is longer by the payload. Checking it first is cheap.
func (p Pattern) MessageSize(i int) int {
	switch {
	case p == XK && i >= 0 && i < 3:
		return [3]int{48, 48, 64}[i]
	case p == IK && i >= 0 && i < 2:
		return [2]int{96, 48}[i]
	}
	return 0
}

// Config describes one handshake.
type Config struct {
	Pattern   Pattern
	Initiator bool
	// Prologue is mixed in as it is: nil is the empty prologue. Relays use
	// DefaultPrologue unless configured otherwise.
	Prologue []byte
	Static   KeyPair
	// Peer is the responder's static key. The initiator must set it; a
	// responder must leave it zero and compare PeerStatic afterwards.
	Peer [32]byte
	// PQ chooses XKpsk3 or IKpsk2; SetPSK must come before the last message.
	PQ bool
	// Random gives the ephemeral key; nil is crypto/rand.
	Random io.Reader
}

// Handshake is one side of a running handshake. It is not safe for concurrent
// use. After any error of WriteMessage or ReadMessage, except ErrPSK and calls
// out of turn, it is dead and answers ErrState.
type Handshake struct {
	state     *flynn.HandshakeState
	pattern   Pattern
	initiator bool
	pq, psk   bool
	next      int // number of the message that comes next
	dead      bool
	split     bool
	peer      [32]byte
	toServer  [32]byte // record keys, set when finished, wiped by Split
	toClient  [32]byte
}

// NewHandshake starts a handshake. Error kind: KindConfig.
func NewHandshake(c Config) (*Handshake, error) {
	var zero [32]byte
	switch {
	case c.Pattern.Messages() == 0:
		return nil, &Error{Kind: KindConfig, Detail: "unknown pattern"}
	case c.Static.Public == zero:
		return nil, &Error{Kind: KindConfig, Detail: "static key pair not set"}
	case c.Initiator && c.Peer == zero:
		return nil, &Error{Kind: KindConfig, Detail: "initiator without the responder's static key"}
	case !c.Initiator && c.Peer != zero:
		return nil, &Error{Kind: KindConfig, Detail: "responder with a preset peer key"}
	}
	config := flynn.Config{
		CipherSuite:   flynn.NewCipherSuite(curve{}, flynn.CipherChaChaPoly, flynn.HashBLAKE2s),
		Random:        c.Random,
		Pattern:       flynn.HandshakeXK,
		Initiator:     c.Initiator,
		Prologue:      c.Prologue,
		StaticKeypair: c.Static.flynn(),
	}
	if c.Pattern == IK {
		config.Pattern = flynn.HandshakeIK
	}
	if c.PQ {
		config.PresharedKeyPlacement = c.Pattern.Messages()
	}
	if c.Initiator {
		config.PeerStatic = slices.Clone(c.Peer[:])
	}
	state, err := flynn.NewHandshakeState(config)
	if err != nil {
		return nil, &Error{Kind: KindConfig, Detail: "handshake state", Err: err}
	}
	return &Handshake{state: state, pattern: c.Pattern, initiator: c.Initiator, pq: c.PQ, peer: c.Peer}, nil
}

// WriteMessage appends the next handshake message with payload to dst. Error
// kinds: KindState, KindPSK, KindLength (the message would pass 65,535 bytes),
// KindKey, KindRandom.
func (h *Handshake) WriteMessage(dst, payload []byte) ([]byte, error) {
	if err := h.turn(true); err != nil {
		return nil, err
	}
	if len(payload) > MaxMessage-h.pattern.MessageSize(h.next) {
		return nil, &Error{Kind: KindLength, Detail: "handshake payload too long"}
	}
	out, c1, c2, err := h.state.WriteMessage(dst, payload)
	if err != nil {
		return nil, h.fail(err)
	}
	h.advance(c1, c2)
	return out, nil
}

// ReadMessage opens the peer's next message and appends its payload to dst.
// Error kinds: KindState, KindPSK, KindLength, KindKey, KindDecrypt. A server
// that holds several static keys starts a new Handshake for each.
func (h *Handshake) ReadMessage(dst, message []byte) ([]byte, error) {
	if err := h.turn(false); err != nil {
		return nil, err
	}
	if n := len(message); n < h.pattern.MessageSize(h.next) || n > MaxMessage {
		h.dead = true
		return nil, ErrLength
	}
	payload, c1, c2, err := h.state.ReadMessage(dst, message)
	if err != nil {
		return nil, h.fail(err)
	}
	if !h.initiator && h.peer == ([32]byte{}) {
		copy(h.peer[:], h.state.PeerStatic())
	}
	h.advance(c1, c2)
	return payload, nil
}

// turn reports why the next message cannot be written (or read) now.
func (h *Handshake) turn(write bool) error {
	switch {
	case h.dead || h.Finished():
		return ErrState
	case write != (h.initiator == (h.next%2 == 0)):
		return ErrState
	case h.pq && !h.psk && h.next == h.pattern.Messages()-1:
		return ErrPSK
	}
	return nil
}

func (h *Handshake) advance(c1, c2 *flynn.CipherState) {
	h.next++
	if c1 != nil && c2 != nil {
		h.toServer, h.toClient = c1.UnsafeKey(), c2.UnsafeKey()
	}
}

func (h *Handshake) fail(err error) error {
	h.dead = true
	var typed *Error
	switch {
	case errors.As(err, &typed):
		return typed
	case errors.Is(err, flynn.ErrShortMessage):
		return ErrLength
	}
	return &Error{Kind: KindDecrypt, Detail: "handshake message", Err: err}
}

// SetPSK sets the pre-shared key of a PQ handshake (see PQServer and
// Decapsulator). It must come before the last message: message 3 of XK,
// message 2 of IK. Error kind: KindState.
func (h *Handshake) SetPSK(psk [32]byte) error {
	if !h.pq || h.dead || h.Finished() {
		return ErrState
	}
	if err := h.state.SetPresharedKey(psk[:]); err != nil {
		return &Error{Kind: KindPSK, Detail: "pre-shared key", Err: err}
	}
	h.psk = true
	return nil
}

// Finished reports whether the last message was written or read.
func (h *Handshake) Finished() bool { return h.next == h.pattern.Messages() }

// Hash is the final handshake hash h (32 bytes), which the Confirm proof
// covers; nil before the handshake has finished.
func (h *Handshake) Hash() []byte {
	if !h.Finished() {
		return nil
	}
	return slices.Clone(h.state.ChannelBinding())
}

// PeerStatic is the peer's static key: for an initiator the configured one, for
// a responder the one that message 3 (XK) or message 1 (IK) carried, zero before.
// After message 1 of IK the peer has not yet proved to hold it: until the first
// record decrypts the message may be a replay.
func (h *Handshake) PeerStatic() [32]byte { return h.peer }

// Split gives the two record ciphers, once: a second call is ErrState, since
// two ciphers of one key would repeat nonces.
func (h *Handshake) Split() (send, recv *Cipher, err error) {
	if h.dead || !h.Finished() || h.split {
		return nil, nil, ErrState
	}
	h.split = true
	up, down := NewCipher(h.toServer), NewCipher(h.toClient)
	h.toServer, h.toClient = [32]byte{}, [32]byte{}
	if h.initiator {
		return up, down, nil
	}
	return down, up, nil
}

// Format prints pattern and progress for every verb, so that none shows a key.
func (h *Handshake) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "noise handshake %s, message %d", h.pattern, h.next)
}
