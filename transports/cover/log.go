package cover

import (
	"log/slog"
	"net"
	"net/url"
)

func levelOf(err error) slog.Level {
	if t, ok := err.(net.Error); ok && t.Timeout() {
		return slog.LevelInfo
	}
	return slog.LevelWarn
}

// errorAttr leaves out the request's address, which a stranger chose.
func errorAttr(err error) slog.Attr {
	if u, ok := err.(*url.Error); ok {
		err = u.Err
	}
	return slog.String("reason", err.Error())
}
