package ws

import (
	"bytes"
	"crypto/sha1" // RFC 6455 section 4.2.2; protects nothing
	"encoding/base64"
	"net"
	"net/http"
	"strings"
	"time"
)

const acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// Accept is the answer to a Sec-WebSocket-Key.
func Accept(key string) string {
	sum := sha1.Sum([]byte(key + acceptGUID))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Upgrade says whether a request asks for a WebSocket.
func Upgrade(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket") && listed(r.Header.Get("Connection"), "upgrade")
}

// listed looks for a word in a comma-separated list.
func listed(list, word string) bool {
	for list != "" {
		var item string
		item, list, _ = strings.Cut(list, ",")
		if strings.EqualFold(strings.TrimSpace(item), word) {
			return true
		}
	}
	return false
}

// ValidKey says whether key is 16 bytes of base64.
func ValidKey(key string) bool {
	raw, err := base64.StdEncoding.Strict().DecodeString(key)
	return err == nil && len(raw) == 16
}

// Hijack takes the connection over and answers 101. extra are further header
// lines, each with its line end. Once it has returned an error without
// a connection, w can still be answered on.
func Hijack(w http.ResponseWriter, r *http.Request, extra string, bufs *Buffers) (*Conn, error) {
	key := r.Header.Get("Sec-Websocket-Key")
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	var early []byte
	if n := rw.Reader.Buffered(); n > 0 {
		b, _ := rw.Reader.Peek(n)
		early = bytes.Clone(b)
	}
	return New(conn, Server, early, bufs), switching(conn, key, extra)
}

func switching(conn net.Conn, key, extra string) error {
	answer := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		Accept(key) + "\r\n" + extra + "Date: " + time.Now().UTC().Format(http.TimeFormat) + "\r\n\r\n"
	_ = conn.SetWriteDeadline(time.Now().Add(Linger))
	_, err := conn.Write([]byte(answer))
	_ = conn.SetWriteDeadline(time.Time{})
	return err
}
