package masque

import (
	"crypto/ed25519"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"net"
	"strconv"
	"strings"

	"github.com/quic-go/quic-go/quicvarint"
)

// The Concealed authentication scheme, RFC 9729. The proof is a signature over what
// the TLS connection exports for exactly this key, host and port:
//
//	Concealed k=KEY-ID, a=PUBLIC-KEY, s=2055, v=VERIFICATION, p=SIGNATURE
//
// byte strings in base64url without padding.
const (
	concealed        = "Concealed"
	concealedLabel   = "EXPORTER-HTTP-Concealed-Authentication"
	concealedContext = "HTTP Concealed Authentication"
	ed25519Scheme    = 0x0807 // TLS SignatureScheme ed25519

	exportLength       = 48 // signature input and verification
	verificationLength = 16

	// maxCredentials bounds the header field that is read.
	maxCredentials = 1024
)

// exporter is tls.ConnectionState.ExportKeyingMaterial.
type exporter func(label string, context []byte, length int) ([]byte, error)

// proof is the content of the header field.
type proof struct {
	keyID, public, verification, signature []byte
}

var errProof = errors.New("no proof of a guest")

// prove makes the header field's value for requests to host:port on the connection
// that export belongs to.
func prove(export exporter, key ed25519.PrivateKey, keyID []byte, host string, port uint16) (string, error) {
	public := key.Public().(ed25519.PublicKey)
	input, verification, err := exported(export, keyID, public, host, port)
	if err != nil {
		return "", err
	}
	return concealed + " k=" + encode(keyID) + ", a=" + encode(public) + ", s=" + strconv.Itoa(ed25519Scheme) +
		", v=" + encode(verification) + ", p=" + encode(ed25519.Sign(key, signed(input))), nil
}

// verify says whether the proof was made on the connection that export belongs to.
func (p *proof) verify(export exporter, host string, port uint16) error {
	input, verification, err := exported(export, p.keyID, p.public, host, port)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(verification, p.verification) != 1 || !ed25519.Verify(p.public, signed(input), p.signature) {
		return errProof
	}
	return nil
}

// exported asks for the keying material (RFC 9729 sections 3.1 and 3.2).
func exported(export exporter, keyID, public []byte, host string, port uint16) (input, verification []byte, err error) {
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 256), ed25519Scheme)
	for _, s := range [][]byte{keyID, public, []byte("https"), []byte(host)} {
		b = append(quicvarint.Append(b, uint64(len(s))), s...)
	}
	b = binary.BigEndian.AppendUint16(b, port)
	b = quicvarint.Append(b, 0) // no realm
	out, err := export(concealedLabel, b, exportLength)
	if err != nil {
		return nil, nil, err
	}
	n := exportLength - verificationLength
	return out[:n], out[n:], nil
}

// signed is what the signature covers (RFC 9729 section 3.3).
func signed(input []byte) []byte {
	b := make([]byte, 0, 64+len(concealedContext)+1+len(input))
	for range 64 {
		b = append(b, ' ')
	}
	return append(append(append(b, concealedContext...), 0), input...)
}

// parseProof reads the header field's value. As section 5.1 of RFC 9729 demands,
// whatever is missing, twice or malformed makes the whole of it nothing.
func parseProof(value string) (*proof, error) {
	if len(value) > maxCredentials {
		return nil, errProof
	}
	name, rest, _ := strings.Cut(value, " ")
	if !strings.EqualFold(name, concealed) {
		return nil, errProof
	}
	var p proof
	var scheme string
	for param := range strings.SplitSeq(rest, ",") {
		name, v, ok := strings.Cut(strings.Trim(param, " \t"), "=")
		if !ok {
			return nil, errProof
		}
		var err error
		switch strings.ToLower(name) {
		case "k":
			err = once(&p.keyID, v)
		case "a":
			err = once(&p.public, v)
		case "v":
			err = once(&p.verification, v)
		case "p":
			err = once(&p.signature, v)
		case "s":
			if scheme != "" {
				return nil, errProof
			}
			scheme = v
		case "realm": // we have none
			return nil, errProof
		}
		if err != nil {
			return nil, errProof
		}
	}
	if scheme != strconv.Itoa(ed25519Scheme) || len(p.keyID) == 0 || len(p.public) != ed25519.PublicKeySize ||
		len(p.verification) != verificationLength || len(p.signature) != ed25519.SignatureSize {
		return nil, errProof
	}
	return &p, nil
}

func once(dst *[]byte, value string) (err error) {
	if *dst != nil {
		return errProof
	}
	*dst, err = decode(value)
	return err
}

// authority splits what a request names as its host; the port is 443 where none is
// given. An IPv6 address keeps its brackets, as in a URI.
func authority(text string) (host string, port uint16, err error) {
	if i := strings.LastIndexByte(text, ':'); i >= 0 && strings.IndexByte(text[i:], ']') < 0 {
		n, err := strconv.ParseUint(text[i+1:], 10, 16)
		if err != nil || n == 0 {
			return "", 0, errors.New("bad port")
		}
		text, port = text[:i], uint16(n)
	} else {
		port = 443
	}
	if text == "" || len(text) > 255 {
		return "", 0, errors.New("bad host")
	}
	return text, port, nil
}

// joinAuthority is the inverse of authority, without the default port.
func joinAuthority(host string, port uint16) string {
	if port == 443 {
		if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
			return "[" + host + "]"
		}
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(int(port)))
}
