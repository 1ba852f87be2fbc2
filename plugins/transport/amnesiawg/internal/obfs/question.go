package obfs

import (
	"crypto/rand"
	"encoding/binary"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
)

// A client that hears nothing cannot tell a blocked path from a key that is not
// known, because strangers get no answer. So it asks, with a datagram that only who
// knows the server's public key can make or read:
//
//	question  nonce 24 | sealed( time u32 | digest of parameters 8 | address inside 16 ) 44 | random
//	answer    nonce 24 | sealed( first 8 bytes of the question's nonce | flags u8 ) 25 | random
//
// Sealed is XChaCha20-Poly1305 under keys made of the server's public key, so that
// both look like junk; the lengths are the key's as well. The server answers a
// question once, within QuestionLife of its time. Numbers are little-endian.
type Asker struct {
	ask, answer [32]byte
	sizes       [2]int
}

// QuestionLife is how far the clocks of both sides may differ.
const QuestionLife = 90 * time.Second

const (
	nonceSize    = chacha20poly1305.NonceSizeX
	questionSize = nonceSize + 4 + 8 + 16 + 16
	answerSize   = nonceSize + 8 + 1 + 16

	flagSameParameters = 1
	flagKnownKey       = 2
)

// Question is what a client asks.
type Question struct {
	Time time.Time
	// Parameters is Params.Digest of the client's.
	Parameters [8]byte
	// Address is the client's inside the tunnel, which stands for its key.
	Address [16]byte
}

// Answer is what a server says.
type Answer struct {
	SameParameters, KnownKey bool
}

// NewAsker makes questions and answers for the owner of a public key.
func NewAsker(server [32]byte) *Asker {
	key := func(label string) [32]byte { return blake2s.Sum256(append([]byte(label), server[:]...)) }
	a := &Asker{ask: key("commucat/amnesiawg/question/1"), answer: key("commucat/amnesiawg/answer/1")}
	a.sizes = [2]int{length(a.ask, questionSize), length(a.answer, answerSize)}
	return a
}

// length makes a datagram's length of its key, none of plain WireGuard's.
func length(key [32]byte, least int) int {
	n := least + int(blake2s.Sum256(key[:])[0])
	if plainSize(n) {
		n++
	}
	return n
}

// QuestionSize is the length of a question's datagram.
func (a *Asker) QuestionSize() int { return a.sizes[0] }

func seal(key [32]byte, plain []byte, size int) []byte {
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		panic(err) // the size of the key is right
	}
	d := make([]byte, nonceSize, size)
	_, _ = rand.Read(d) // never fails
	Unlike(d)
	d = aead.Seal(d, d, plain, nil)
	at := len(d)
	d = d[:size]
	Fill(d[at:])
	return d
}

func unseal(key [32]byte, d []byte, size int) ([]byte, bool) {
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		panic(err) // the size of the key is right
	}
	plain, err := aead.Open(nil, d[:nonceSize], d[nonceSize:size], nil)
	return plain, err == nil
}

// Ask makes the datagram of a question. Its first 8 bytes are what the answer names.
func (a *Asker) Ask(q Question) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(q.Time.Unix()))
	b = append(append(b, q.Parameters[:]...), q.Address[:]...)
	return seal(a.ask, b, a.sizes[0])
}

// ReadQuestion reads a question; what has another length costs nothing.
func (a *Asker) ReadQuestion(d []byte) (q Question, ok bool) {
	if len(d) != a.sizes[0] {
		return q, false
	}
	b, ok := unseal(a.ask, d, questionSize)
	if !ok {
		return q, false
	}
	q.Time = time.Unix(int64(binary.LittleEndian.Uint32(b)), 0)
	copy(q.Parameters[:], b[4:])
	copy(q.Address[:], b[12:])
	return q, true
}

// Reply makes the datagram of an answer to a question's datagram.
func (a *Asker) Reply(question []byte, w Answer) []byte {
	b := append([]byte(nil), question[:8]...)
	flags := byte(0)
	if w.SameParameters {
		flags |= flagSameParameters
	}
	if w.KnownKey {
		flags |= flagKnownKey
	}
	return seal(a.answer, append(b, flags), a.sizes[1])
}

// ReadAnswer reads an answer to one of the questions whose first 8 bytes are given.
func (a *Asker) ReadAnswer(d []byte, asked map[[8]byte]bool) (w Answer, ok bool) {
	if len(d) != a.sizes[1] {
		return w, false
	}
	b, ok := unseal(a.answer, d, answerSize)
	if !ok || !asked[[8]byte(b)] {
		return w, false
	}
	return Answer{SameParameters: b[8]&flagSameParameters != 0, KnownKey: b[8]&flagKnownKey != 0}, true
}

// Digest stands for what both sides must have in common.
func (p *Params) Digest() (d [8]byte) {
	common := Params{Prefix: p.Prefix, Type: p.Type, Protection: p.Protection, Trailers: p.Trailers}
	h := blake2s.Sum256(common.Marshal())
	copy(d[:], h[:])
	return d
}
