package websocket

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/internal/carrier"
	"github.com/commucat/commucat/transports/internal/ws"
)

// maxAnswer bounds the head of the answer.
const maxAnswer = 16 << 10

type dialer struct{ bufs *ws.Buffers }

// NewDialer returns the client half.
func NewDialer() transport.Dialer { return dialer{bufs: new(ws.Buffers)} }

// Name returns "websocket".
func (dialer) Name() string { return Name }

// Dial makes a TLS connection and upgrades it. The error is
// [transport.ErrRefused] if a stranger's answer came back.
func (d dialer) Dial(ctx context.Context, to transport.Endpoint, with transport.Dial) (net.Conn, error) {
	conn, _, err := carrier.DialTLS(ctx, to, with, true)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	early, err := upgrade(conn, to, with)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, errors.Join(err, ctx.Err())
	}
	return &stream{Conn: ws.New(conn, ws.Client, early, d.bufs)}, nil
}

// upgrade makes the request of RFC 6455 section 4.1.
func upgrade(conn net.Conn, to transport.Endpoint, with transport.Dial) (early []byte, err error) {
	var raw [16]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return nil, err
	}
	key := base64.StdEncoding.EncodeToString(raw[:])
	path, authority := carrier.Path(to), carrier.Authority(to)
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n", path, authority)
	fmt.Fprintf(&b, "User-Agent: %s\r\nUpgrade: websocket\r\nOrigin: https://%s\r\nSec-WebSocket-Version: 13\r\n", carrier.Agent(with), authority)
	b.WriteString("Accept-Language: en-US,en;q=0.9\r\n")
	if with.Token != nil {
		fmt.Fprintf(&b, "Cookie: %s=%s\r\n", to.Params[transport.ParamCookie], with.Token(http.MethodGet, path, ""))
	}
	fmt.Fprintf(&b, "Sec-WebSocket-Key: %s\r\n\r\n", key)
	if _, err := io.WriteString(conn, b.String()); err != nil {
		return nil, err
	}
	limited := &io.LimitedReader{R: conn, N: maxAnswer}
	r := bufio.NewReader(limited)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if with.ServerTime != nil {
		if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			with.ServerTime(at)
		}
	}
	if resp.StatusCode != http.StatusSwitchingProtocols || !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") ||
		resp.Header.Get("Sec-Websocket-Accept") != ws.Accept(key) {
		return nil, fmt.Errorf("websocket: status %d: %w", resp.StatusCode, transport.ErrRefused)
	}
	early = make([]byte, r.Buffered())
	_, err = io.ReadFull(r, early)
	return early, err
}

// stream is the client's end.
type stream struct{ *ws.Conn }

// Close sends the close frame and wakes every call; in the background, and for
// at most [ws.Linger], the relay may still take the last bytes and close too.
func (s *stream) Close() error {
	err := s.Conn.Close()
	s.Conn.FinishSoon()
	return err
}
