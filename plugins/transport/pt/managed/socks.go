package managed

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"

	"golang.org/x/net/proxy"
)

// Connect asks a child's client side for a stream to an address, with the arguments
// of that connection. carrier is a connection to the child; exactly the negotiation is
// read from it, so that it is the stream afterwards. A grant says nothing about the
// other end: some transports grant before they have connected.
func Connect(ctx context.Context, carrier net.Conn, address string, args Args) error {
	user, password, ok, err := args.Login()
	if err != nil {
		return err
	}
	var auth *proxy.Auth
	if ok {
		auth = &proxy.Auth{User: user, Password: password}
	}
	d, err := proxy.SOCKS5("tcp", carrier.RemoteAddr().String(), auth, proxy.Direct)
	if err != nil {
		return err
	}
	with, ok := d.(interface {
		DialWithConn(ctx context.Context, c net.Conn, network, address string) (net.Addr, error)
	})
	if !ok {
		return errors.ErrUnsupported
	}
	if _, err := with.DialWithConn(ctx, carrier, "tcp", address); err != nil {
		return fmt.Errorf("the transport did not connect: %w", err)
	}
	return nil
}

// Request is what a parent asks a child's client side for.
type Request struct {
	// Target is host and port.
	Target string
	Args   Args
}

// The parts of SOCKS5 (RFC 1928, RFC 1929) that pluggable transports use.
const (
	socksVersion   = 5
	methodNone     = 0
	methodLogin    = 2
	methodRefused  = 0xff
	loginVersion   = 1
	commandConnect = 1
	typeIPv4       = 1
	typeName       = 3
	typeIPv6       = 4
)

// AcceptSocks is the child's side of Connect, up to the question. Exactly the
// negotiation is read; the caller bounds its time.
func AcceptSocks(c io.ReadWriter) (Request, error) {
	var r Request
	methods, err := readSocks(c, socksVersion)
	if err != nil {
		return r, err
	}
	switch {
	case bytes.IndexByte(methods, methodLogin) >= 0:
		if _, err := c.Write([]byte{socksVersion, methodLogin}); err != nil {
			return r, err
		}
		user, err := readSocks(c, loginVersion)
		if err != nil {
			return r, err
		}
		password, err := readShort(c)
		if err != nil {
			return r, err
		}
		if r.Args, err = FromLogin(string(user), string(password)); err != nil {
			_, _ = c.Write([]byte{loginVersion, 1}) // it is let go in any case
			return r, err
		}
		if _, err := c.Write([]byte{loginVersion, 0}); err != nil {
			return r, err
		}
	case bytes.IndexByte(methods, methodNone) >= 0:
		if _, err := c.Write([]byte{socksVersion, methodNone}); err != nil {
			return r, err
		}
	default:
		_, _ = c.Write([]byte{socksVersion, methodRefused}) // it is let go in any case
		return r, errors.New("no way to log in that is known")
	}
	r.Target, err = readTarget(c)
	return r, err
}

// readSocks reads a version and a text of at most 255 bytes.
func readSocks(r io.Reader, version byte) ([]byte, error) {
	var v [1]byte
	if _, err := io.ReadFull(r, v[:]); err != nil {
		return nil, err
	}
	if v[0] != version {
		return nil, fmt.Errorf("version %d of SOCKS, wanted is %d", v[0], version)
	}
	return readShort(r)
}

func readShort(r io.Reader) ([]byte, error) {
	var n [1]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, err
	}
	b := make([]byte, n[0])
	_, err := io.ReadFull(r, b)
	return b, err
}

func readTarget(r io.Reader) (string, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", err
	}
	if head[0] != socksVersion || head[1] != commandConnect || head[2] != 0 {
		return "", errors.New("not a request to connect")
	}
	var host string
	switch head[3] {
	case typeIPv4, typeIPv6:
		b := make([]byte, 4)
		if head[3] == typeIPv6 {
			b = make([]byte, 16)
		}
		if _, err := io.ReadFull(r, b); err != nil {
			return "", err
		}
		host = net.IP(b).String()
	case typeName:
		b, err := readShort(r)
		if err != nil {
			return "", err
		}
		if host = string(b); !plainHost(host) {
			return "", errors.New("the target is no host name")
		}
	default:
		return "", fmt.Errorf("address type %d", head[3])
	}
	var port [2]byte
	if _, err := io.ReadFull(r, port[:]); err != nil {
		return "", err
	}
	return net.JoinHostPort(host, strconv.Itoa(int(binary.BigEndian.Uint16(port[:])))), nil
}

// plainHost takes names and addresses without anything that would be read as more.
func plainHost(s string) bool {
	for i := range len(s) {
		c := s[i]
		if letter := c|0x20 >= 'a' && c|0x20 <= 'z'; !letter && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' && c != ':' {
			return false
		}
	}
	return s != ""
}

// AnswerSocks grants or refuses what AcceptSocks was asked for.
func AnswerSocks(w io.Writer, granted bool) error {
	code := byte(0)
	if !granted {
		code = 1
	}
	_, err := w.Write([]byte{socksVersion, code, 0, typeIPv4, 0, 0, 0, 0, 0, 0})
	return err
}
