package front

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"
)

func secureListener(t *testing.T, c *tls.Config) *secure {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newSecure(l, c, time.Minute, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// TestSecureClose: the end of the listener is the end of handshakes under way.
func TestSecureClose(t *testing.T) {
	s := secureListener(t, &tls.Config{MinVersion: tls.VersionTLS13})
	silent, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("a second close: %v", err)
	}
	if _, err := s.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after the end: %v", err)
	}
	if _, err := io.ReadAll(silent); err != nil && !isReset(err) {
		t.Errorf("the silent connection: %v", err)
	}
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

// TestSecurePanic: a panic in one handshake costs that connection alone.
func TestSecurePanic(t *testing.T) {
	first := true
	s := secureListener(t, &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			if first {
				first = false
				panic("the first one")
			}
			return nil, errors.New("no certificate")
		},
	})
	for range 2 {
		c, err := tls.Dial("tcp", s.Addr().String(), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
		if err == nil {
			_ = c.Close()
			t.Fatal("a handshake without a certificate")
		}
	}
	c, err := s.Accept() // the second one: net/http hears why it failed
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.(*tls.Conn).Handshake(); err == nil {
		t.Error("the outcome of the handshake is lost")
	}
}
