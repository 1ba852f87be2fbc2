package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// layer says what an input is wrapped in.
type layer uint8

const (
	raw   layer = iota // TCP
	http1              // TLS, ALPN http/1.1
	http2              // TLS, ALPN h2
)

// Kind is one row of the battery.
type Kind struct {
	Name string
	on   layer
	// input makes the bytes; the random source is the same for both sides.
	input func(r *rand.Rand, opt Options) []byte
	// fin half-closes after the input.
	fin bool
	// parts sends the input byte by byte where it is small.
	parts bool
	// first ends the exchange with the first byte of the answer.
	first bool
	// shape changes the client's hello.
	shape func(*tls.Config)
}

const (
	// maxAnswer bounds what is read of one answer.
	maxAnswer = 256 << 10
	// maxWaits bounds how long an answer may go on, in times of Options.Wait. One that
	// still does counts as left open.
	maxWaits = 20
)

func (k Kind) run(ctx context.Context, addr string, r *rand.Rand, opt Options) Outcome {
	c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return Outcome{End: "refused"}
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	var o Outcome
	if k.on == raw {
		o = k.exchange(c, k.input(r, opt), opt)
		o.Transcript = tlsText([]byte(o.Transcript))
		return o
	}
	conf := &tls.Config{ServerName: opt.ServerName, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12}
	if k.on == http2 {
		conf.NextProtos = []string{"h2"}
	}
	if k.shape != nil {
		k.shape(conf)
	}
	t := tls.Client(c, conf)
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if err := t.HandshakeContext(ctx); err != nil {
		return Outcome{End: endOf(err)}
	}
	_ = c.SetDeadline(time.Time{})
	s := t.ConnectionState()
	head := fmt.Sprintf("tls %x %x %q %v\n", s.Version, s.CipherSuite, s.NegotiatedProtocol, s.CurveID)
	o = k.exchange(t, k.input(r, opt), opt)
	if s.NegotiatedProtocol == "h2" {
		o.Transcript = head + http2Text([]byte(o.Transcript))
	} else {
		o.Transcript = head + http1Text(o.Transcript)
	}
	return o
}

type stream interface {
	net.Conn
	CloseWrite() error
}

// exchange writes the input and reads until the end or until nothing comes for
// Wait. Reading goes on while writing, as answers may come early.
func (k Kind) exchange(c net.Conn, input []byte, opt Options) (o Outcome) {
	written := make(chan time.Time, 1)
	go func() {
		_ = c.SetWriteDeadline(time.Now().Add(opt.Wait + 5*time.Second))
		if k.parts && len(input) <= 64 {
			for i := range input {
				_, _ = c.Write(input[i : i+1])
			}
		} else {
			_, _ = c.Write(input)
		}
		if k.fin {
			if h, ok := c.(stream); ok {
				_ = h.CloseWrite()
			}
		}
		written <- time.Now()
	}()
	var got []byte
	buf := make([]byte, 16<<10)
	var first time.Time
	last := time.Now().Add(maxWaits * opt.Wait)
	for {
		until := time.Now().Add(opt.Wait)
		if until.After(last) {
			until = last
		}
		_ = c.SetReadDeadline(until)
		n, err := c.Read(buf)
		if len(got) < maxAnswer {
			got = append(got, buf[:n]...)
		}
		if n > 0 && first.IsZero() && k.answered(got) {
			first = time.Now()
		}
		if err != nil {
			o.End = endOf(err)
			break
		}
		if k.first && k.answered(got) {
			o.End = "open"
			break
		}
	}
	_ = c.SetWriteDeadline(time.Unix(1, 0))
	if done := <-written; !first.IsZero() {
		o.First = max(first.Sub(done), 0)
	}
	o.Transcript = string(got)
	return o
}

// answered says whether the answer to a request has begun; an HTTP/2 server's
// settings come before any request.
func (k Kind) answered(b []byte) bool {
	if k.on != http2 {
		return len(b) > 0
	}
	for len(b) >= 9 {
		if b[3] == 1 {
			return true
		}
		b = b[min(len(b), 9+int(b[0])<<16+int(b[1])<<8+int(b[2])):]
	}
	return false
}

// endOf names the way a connection ended.
func endOf(err error) string {
	var alert tls.AlertError
	var op *net.OpError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "cut"
	case errors.Is(err, io.EOF):
		return "closed"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "open"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.As(err, &alert):
		return fmt.Sprintf("alert %d", uint8(alert))
	case errors.As(err, &op) && op.Op == "remote error":
		return "alert " + op.Err.Error()
	default:
		return "error " + strings.TrimSpace(err.Error())
	}
}

func reachable(ctx context.Context, addr string) error {
	c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("probe %s: %w", addr, err)
	}
	return c.Close()
}

func hostOf(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil && host != "" {
		return host
	}
	return addr
}
