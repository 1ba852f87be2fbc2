package reality

import (
	"bytes"
	"crypto/mlkem"
	"strings"
)

// TLS as far as it is read here (RFC 8446).
const (
	recordHeader = 5
	maxPlain     = 1 << 14
	maxCipher    = maxPlain + 256

	typeChangeCipherSpec = 20
	typeAlert            = 21
	typeHandshake        = 22
	typeApplicationData  = 23

	clientHelloType = 1
	serverHelloType = 2

	extensionServerName = 0
	extensionALPN       = 16
	extensionVersions   = 43
	extensionPSKModes   = 45
	extensionKeyShare   = 51

	tls13 = 0x0304

	groupX25519 = 29
	groupHybrid = 4588 // X25519MLKEM768

	x25519Size      = 32
	hybridHelloSize = mlkem.EncapsulationKeySize768 + x25519Size
	hybridReplySize = mlkem.CiphertextSize768 + x25519Size
)

// retryRandom marks a ServerHello that is a HelloRetryRequest (RFC 8446 section 4.1.3).
var retryRandom = []byte{
	0xCF, 0x21, 0xAD, 0x74, 0xE5, 0x9A, 0x61, 0x11, 0xBE, 0x1D, 0x8C, 0x02, 0x1E, 0x65, 0xB8, 0x91,
	0xC2, 0xA2, 0x11, 0x16, 0x7A, 0xBB, 0x8C, 0x5E, 0x07, 0x9E, 0x09, 0xE2, 0xC8, 0xA8, 0x33, 0x9C,
}

// offered says which protocol a hello asks for first; servers answer it with records
// of their own sizes.
type offered uint8

const (
	offersNone offered = iota
	offersOther
	offersHTTP2
	offeredKinds
)

// clientHello is what the server half reads of a hello.
type clientHello struct {
	// message is the handshake message without the record header; the slices
	// below lie in it.
	message    []byte
	serverName string
	tls13      bool
	x25519     []byte
	hybrid     []byte
	protocol   offered
	// resumes says that session tickets make sense to the client (psk_dhe_ke).
	resumes bool
}

// share is the X25519 half that the session id was sealed with: the classical one
// where it is offered, else the one inside the hybrid.
func (h *clientHello) share() []byte {
	if h.x25519 != nil {
		return h.x25519
	}
	if h.hybrid != nil {
		return h.hybrid[mlkem.EncapsulationKeySize768:]
	}
	return nil
}

// recordState says how far a first record has come.
type recordState uint8

const (
	recordPart  recordState = iota // more bytes may make it a hello
	recordAlien                    // it will never be a hello of ours
	recordHello                    // exactly one ClientHello in one record
)

// inspect looks at the first bytes of a connection.
func inspect(b []byte) recordState {
	if len(b) > 0 && b[0] != typeHandshake || len(b) > 1 && b[1] != 3 || len(b) > 5 && b[5] != clientHelloType {
		return recordAlien
	}
	if len(b) < recordHeader {
		return recordPart
	}
	size := recordSize(b)
	if size < sessionOffset+sessionSize || size > maxPlain || len(b) > recordHeader+size {
		return recordAlien
	}
	if len(b) >= recordHeader+4 {
		if message := int(b[6])<<16 | int(b[7])<<8 | int(b[8]); message != size-4 {
			return recordAlien // a message over several records
		}
	}
	if len(b) < recordHeader+size {
		return recordPart
	}
	return recordHello
}

// recordSize is the length that a record header states.
func recordSize(b []byte) int { return int(b[3])<<8 | int(b[4]) }

// recordLengths are the whole lengths of the records that lie in b; rest is where an
// incomplete last one begins.
func recordLengths(b []byte) (lengths []int, rest int) {
	for len(b)-rest >= recordHeader {
		n := recordHeader + recordSize(b[rest:])
		if len(b)-rest < n {
			break
		}
		lengths = append(lengths, n)
		rest += n
	}
	return lengths, rest
}

// reader takes fields from the front of a message; after a field that is not there
// it stays failed.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if r.failed || n > len(r.b) {
		r.failed = true
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) number(size int) int {
	n := 0
	for _, c := range r.take(size) {
		n = n<<8 | int(c)
	}
	return n
}

// vector takes a field with a length of size bytes before it.
func (r *reader) vector(size int) reader { return reader{r.take(r.number(size)), r.failed} }

func (r *reader) more() bool { return !r.failed && len(r.b) > 0 }

// parseClientHello reads a handshake message. The second result is false for what is
// malformed and for what cannot carry a sealed session id.
func parseClientHello(message []byte) (*clientHello, bool) {
	r := reader{b: message}
	if r.number(1) != clientHelloType || r.number(3) != len(message)-4 {
		return nil, false
	}
	r.take(2 + 32)
	session := r.vector(1)
	r.vector(2) // cipher suites
	r.vector(1) // compression methods
	extensions := r.vector(2)
	if r.failed || extensions.failed || len(session.b) != sessionSize || len(r.b) > 0 {
		return nil, false
	}
	h := &clientHello{message: message}
	seen := map[int]bool{}
	for extensions.more() {
		kind := extensions.number(2)
		body := extensions.vector(2)
		if extensions.failed || body.failed || seen[kind] {
			return nil, false
		}
		seen[kind] = true
		if !h.extension(kind, body) {
			return nil, false
		}
	}
	return h, !extensions.failed
}

func (h *clientHello) extension(kind int, body reader) bool {
	switch kind {
	case extensionServerName:
		return h.names(body)
	case extensionALPN:
		list := body.vector(2)
		first := list.vector(1)
		if list.failed || first.failed {
			return false
		}
		h.protocol = offersOther
		if string(first.b) == "h2" {
			h.protocol = offersHTTP2
		}
	case extensionVersions:
		list := body.vector(1)
		for list.more() {
			h.tls13 = list.number(2) == tls13 || h.tls13
		}
		return !list.failed
	case extensionPSKModes:
		modes := body.vector(1)
		h.resumes = bytes.IndexByte(modes.b, 1) >= 0
		return !modes.failed
	case extensionKeyShare:
		list := body.vector(2)
		for list.more() {
			group := list.number(2)
			data := list.vector(2)
			if list.failed || data.failed {
				return false
			}
			// A share of another size or a second one is nobody's who has a key, and the
			// module would take the first without a look at its size.
			switch {
			case group == groupX25519:
				if len(data.b) != x25519Size || h.x25519 != nil {
					return false
				}
				h.x25519 = data.b
			case group == groupHybrid:
				if len(data.b) != hybridHelloSize || h.hybrid != nil {
					return false
				}
				h.hybrid = data.b
			}
		}
		return !list.failed
	}
	return true
}

// names takes the first host name (RFC 6066 section 3).
func (h *clientHello) names(body reader) bool {
	list := body.vector(2)
	for list.more() {
		kind := list.number(1)
		name := list.vector(2)
		if list.failed || name.failed {
			return false
		}
		if kind == 0 && h.serverName == "" {
			h.serverName = string(name.b)
		}
	}
	return !list.failed && !strings.HasSuffix(h.serverName, ".")
}

// serverHello is what is read of the cover's answer.
type serverHello struct {
	suite  int
	group  int
	share  []byte
	tls13  bool
	retry  bool
	random []byte
}

// parseServerHello reads a handshake message.
func parseServerHello(message []byte) (*serverHello, bool) {
	r := reader{b: message}
	if r.number(1) != serverHelloType || r.number(3) != len(message)-4 {
		return nil, false
	}
	r.take(2)
	h := &serverHello{random: r.take(32)}
	r.vector(1)
	h.suite = r.number(2)
	r.take(1)
	extensions := r.vector(2)
	if r.failed || extensions.failed {
		return nil, false
	}
	h.retry = bytes.Equal(h.random, retryRandom)
	for extensions.more() {
		kind := extensions.number(2)
		body := extensions.vector(2)
		switch {
		case extensions.failed || body.failed:
			return nil, false
		case kind == extensionVersions:
			h.tls13 = body.number(2) == tls13
		case kind == extensionKeyShare:
			if h.group = body.number(2); !h.retry {
				share := body.vector(2)
				h.share = share.b
			}
		}
	}
	return h, !extensions.failed
}

// fits reports whether the module can answer in place of this ServerHello: TLS 1.3
// with one of the two groups, and with a share that the client has offered.
func (h *serverHello) fits(c *clientHello) bool {
	if !h.tls13 || h.retry {
		return false
	}
	switch h.group {
	case groupX25519:
		return len(h.share) == x25519Size && c.x25519 != nil
	case groupHybrid:
		if len(h.share) != hybridReplySize || c.hybrid == nil {
			return false
		}
		_, err := mlkem.NewEncapsulationKey768(c.hybrid[:mlkem.EncapsulationKeySize768])
		return err == nil
	}
	return false
}
