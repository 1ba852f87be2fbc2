package onion

import (
	"fmt"
	"io"
)

// SOCKS5 (RFC 1928, RFC 1929), as far as tor is asked by it.
const (
	socksVersion = 5
	socksLogin   = 2 // the method: name and password
	loginVersion = 1
	socksConnect = 1
	socksIPv4    = 1
	socksName    = 3
	socksIPv6    = 4
)

// refusal is tor's answer to a request that it does not grant: RFC 1928 section 6, and
// what onion services add to it (proposal 304, "ExtendedErrors").
type refusal byte

func (r refusal) Error() string {
	switch r {
	case 0x01:
		return "tor gave up"
	case 0x04:
		return "tor found no way to the service"
	case 0x06:
		return "tor took too long"
	case 0xf0:
		return "no directory of the Tor network knows the service: the relay is not there, or has just started"
	case 0xf1:
		return "the service's descriptor cannot be read: is this tor too old"
	case 0xf2:
		return "the service was not reached where it can be asked (introduction): the relay may be gone"
	case 0xf3:
		return "the service did not come to where it was asked to (rendezvous)"
	case 0xf4:
		return "the service wants a key, and the endpoint has none: take a link of this relay"
	case 0xf5:
		return "the service does not know the key: it was revoked, or the service has yet to publish it"
	case 0xf6:
		return "this is no onion address"
	case 0xf7:
		return "the service did not answer in time where it can be asked (introduction)"
	}
	return fmt.Sprintf("tor refused with code %d", byte(r))
}

// askSocks asks for a stream. Streams of one user share circuits, and no other's. Exactly
// the answer is read.
func askSocks(c io.ReadWriter, user, host string, port uint16) error {
	if _, err := c.Write([]byte{socksVersion, 1, socksLogin}); err != nil {
		return err
	}
	var b [4]byte
	if _, err := io.ReadFull(c, b[:2]); err != nil {
		return err
	}
	if b[0] != socksVersion || b[1] != socksLogin {
		return fmt.Errorf("tor's SOCKS socket answers %d, %d to a login", b[0], b[1])
	}
	const password = "0"
	login := append([]byte{loginVersion, byte(len(user))}, user...)
	if _, err := c.Write(append(append(login, byte(len(password))), password...)); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, b[:2]); err != nil {
		return err
	}
	if b[1] != 0 {
		return fmt.Errorf("tor's SOCKS socket refuses the login: %d", b[1])
	}
	ask := append([]byte{socksVersion, socksConnect, 0, socksName, byte(len(host))}, host...)
	if _, err := c.Write(append(ask, byte(port>>8), byte(port))); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, b[:4]); err != nil {
		return err
	}
	if b[0] != socksVersion {
		return fmt.Errorf("tor's SOCKS socket answers in version %d", b[0])
	}
	if b[1] != 0 {
		return refusal(b[1]) // the rest does not matter: it is closed
	}
	return skipAddress(c, b[3])
}

// skipAddress reads the address of an answer, which says nothing here.
func skipAddress(r io.Reader, kind byte) error {
	var size [1]byte
	switch kind {
	case socksIPv4:
		size[0] = 4
	case socksIPv6:
		size[0] = 16
	case socksName:
		if _, err := io.ReadFull(r, size[:]); err != nil {
			return err
		}
	default:
		return fmt.Errorf("tor's SOCKS socket answers with an address of kind %d", kind)
	}
	_, err := io.ReadFull(r, make([]byte, int(size[0])+2))
	return err
}
