package compat

import (
	"net/http"
	"strings"
	"time"

	"github.com/commucat/commucat/transports/internal/ws"
)

// Mode is a form of the reference's connect path. Its text is the value of the
// header x-commucat-connect-mode.
type Mode string

// The modes.
const (
	Binary    Mode = "binary"
	Events    Mode = "sse"
	LongPoll  Mode = "long-poll"
	WebSocket Mode = "websocket"
)

// alias knows the names of modes.
func alias(text string) (Mode, bool) {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "binary", "stream":
		return Binary, true
	case "sse", "event-stream", "eventstream":
		return Events, true
	case "long-poll", "longpoll", "poll":
		return LongPoll, true
	case "websocket", "ws":
		return WebSocket, true
	default:
		return "", false
	}
}

// Select chooses the mode of a request, CCP-1 section 5.2: query, the two
// headers, upgrade, Accept, else binary. Of a repeated header only the first
// line counts.
func Select(r *http.Request) Mode {
	for query := r.URL.RawQuery; query != ""; {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		key, value, _ := strings.Cut(pair, "=")
		if strings.EqualFold(key, "mode") || strings.EqualFold(key, "transport") {
			if m, ok := alias(value); ok {
				return m
			}
		}
	}
	for _, name := range []string{"X-Connect-Mode", "X-Commucat-Connect-Mode"} {
		if m, ok := alias(r.Header.Get(name)); ok {
			return m
		}
	}
	if ws.Upgrade(r) {
		return WebSocket
	}
	for accept := r.Header.Get("Accept"); accept != ""; {
		var item string
		item, accept, _ = strings.Cut(accept, ",")
		if strings.TrimSpace(item) == "text/event-stream" {
			return Events
		}
	}
	return Binary
}

// Interval is the keep-alive interval that goes with the reference's setting
// connection_keepalive, CCP-1 section 5.6.
func Interval(keepalive time.Duration) time.Duration {
	return max(5*time.Second, (keepalive / 2).Truncate(time.Second))
}
