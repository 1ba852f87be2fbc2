package managed

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
)

// The Extended ORPort (ext-orport-spec): the child's server side connects to its
// parent, both prove that they know the cookie, and the child says whom it has
// accepted. Then the connection is the client's stream.
//
//	parent → child   types (1 = SAFE_COOKIE), 0
//	child  → parent  1, nonce (32)
//	parent → child   HMAC (32), nonce (32)
//	child  → parent  HMAC (32)
//	parent → child   1
//	child  → parent  commands: type (u16), length (u16), body; DONE is the last
//	parent → child   OKAY (u16 0x1000), 0
const (
	cookieHeader = "! Extended ORPort Auth Cookie !\n"
	serverLabel  = "ExtORPort authentication server-to-client hash"
	clientLabel  = "ExtORPort authentication client-to-server hash"
	safeCookie   = 1
	nonceSize    = 32

	commandDone      = 0x0000
	commandUserAddr  = 0x0001
	commandTransport = 0x0002
	replyOkay        = 0x1000
	replyDeny        = 0x1001

	maxCommands = 16
	maxBody     = 1024
)

// CookieSize is how long the secret of a cookie is.
const CookieSize = 32

// Cookie is the secret that both sides know.
type Cookie [CookieSize]byte

// NewCookie draws a cookie and writes it for the child, for the owner alone.
func NewCookie(path string) (*Cookie, error) {
	c := new(Cookie)
	if _, err := rand.Read(c[:]); err != nil {
		return nil, err
	}
	// Written beside and moved, so that nobody reads half of it.
	temp := path + ".new"
	if err := os.WriteFile(temp, append([]byte(cookieHeader), c[:]...), 0o600); err != nil {
		return nil, err
	}
	return c, os.Rename(temp, path)
}

// ReadCookie reads a cookie's file.
func ReadCookie(path string) (*Cookie, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(len(cookieHeader))+CookieSize+1))
	if err != nil {
		return nil, err
	}
	if len(b) != len(cookieHeader)+CookieSize || string(b[:len(cookieHeader)]) != cookieHeader {
		return nil, fmt.Errorf("%s is no cookie of an extended ORPort", path)
	}
	return (*Cookie)(b[len(cookieHeader):]), nil
}

func (c *Cookie) hash(label string, client, server []byte) []byte {
	h := hmac.New(sha256.New, c[:])
	h.Write([]byte(label))
	h.Write(client)
	h.Write(server)
	return h.Sum(nil)
}

// Arrival is what a child says of a client that it has accepted.
type Arrival struct {
	// Client is not valid where the child does not know it.
	Client netip.AddrPort
	// Method is the transport's name; "" if it was not said.
	Method string
}

var errCookie = errors.New("the other side does not know the cookie")

// AcceptExtOR is the parent's side. It reads not one byte beyond the handshake; the
// caller bounds its time by a deadline on the connection.
func AcceptExtOR(c io.ReadWriter, cookie *Cookie) (Arrival, error) {
	var a Arrival
	if _, err := c.Write([]byte{safeCookie, 0}); err != nil {
		return a, err
	}
	var chosen [1 + nonceSize]byte
	if _, err := io.ReadFull(c, chosen[:]); err != nil {
		return a, err
	}
	if chosen[0] != safeCookie {
		return a, fmt.Errorf("authentication type %d was not offered", chosen[0])
	}
	client, server := chosen[1:], make([]byte, nonceSize)
	if _, err := rand.Read(server); err != nil {
		return a, err
	}
	if _, err := c.Write(append(cookie.hash(serverLabel, client, server), server...)); err != nil {
		return a, err
	}
	var proof [sha256.Size]byte
	if _, err := io.ReadFull(c, proof[:]); err != nil {
		return a, err
	}
	if !hmac.Equal(proof[:], cookie.hash(clientLabel, client, server)) {
		_, _ = c.Write([]byte{0}) // it is let go in any case
		return a, errCookie
	}
	if _, err := c.Write([]byte{1}); err != nil {
		return a, err
	}
	return a, a.commands(c)
}

func (a *Arrival) commands(c io.ReadWriter) error {
	for range maxCommands {
		kind, body, err := readCommand(c)
		if err != nil {
			return err
		}
		switch kind {
		case commandDone:
			return writeCommand(c, replyOkay, nil)
		case commandUserAddr:
			if at, err := netip.ParseAddrPort(string(body)); err == nil {
				a.Client = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
			}
		case commandTransport:
			if ValidMethod(string(body)) {
				a.Method = string(body)
			}
		}
	}
	_ = writeCommand(c, replyDeny, nil) // it is let go in any case
	return fmt.Errorf("more than %d commands", maxCommands)
}

// DialExtOR is the child's side of a connection to its parent.
func DialExtOR(c io.ReadWriter, cookie *Cookie, a Arrival) error {
	var types [256]byte
	for i := range types {
		if _, err := io.ReadFull(c, types[i:i+1]); err != nil {
			return err
		}
		if types[i] == 0 {
			break
		}
		if i == len(types)-1 {
			return errors.New("too many types of authentication")
		}
	}
	hello := make([]byte, 1+nonceSize)
	hello[0] = safeCookie
	if _, err := rand.Read(hello[1:]); err != nil {
		return err
	}
	if _, err := c.Write(hello); err != nil {
		return err
	}
	var answer [sha256.Size + nonceSize]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return err
	}
	server := answer[sha256.Size:]
	if !hmac.Equal(answer[:sha256.Size], cookie.hash(serverLabel, hello[1:], server)) {
		return errCookie
	}
	if _, err := c.Write(cookie.hash(clientLabel, hello[1:], server)); err != nil {
		return err
	}
	var ok [1]byte
	if _, err := io.ReadFull(c, ok[:]); err != nil {
		return err
	}
	if ok[0] != 1 {
		return errCookie
	}
	if a.Client.IsValid() {
		if err := writeCommand(c, commandUserAddr, []byte(a.Client.String())); err != nil {
			return err
		}
	}
	if err := writeCommand(c, commandTransport, []byte(a.Method)); err != nil {
		return err
	}
	if err := writeCommand(c, commandDone, nil); err != nil {
		return err
	}
	kind, _, err := readCommand(c)
	if err == nil && kind != replyOkay {
		err = fmt.Errorf("the parent refused the client (reply %#04x)", kind)
	}
	return err
}

func readCommand(r io.Reader) (kind uint16, body []byte, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint16(head[2:])
	if n > maxBody {
		return 0, nil, fmt.Errorf("a command of %d bytes, at most %d", n, maxBody)
	}
	body = make([]byte, n)
	_, err = io.ReadFull(r, body)
	return binary.BigEndian.Uint16(head[:]), body, err
}

func writeCommand(w io.Writer, kind uint16, body []byte) error {
	b := binary.BigEndian.AppendUint16(nil, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	_, err := w.Write(append(b, body...))
	return err
}
