package front

import (
	"log"
	"log/slog"
	"strings"
)

// errorLog turns net/http's lines into records. Lines about handshakes and
// malformed requests carry addresses and happen at a stranger's will: they are
// dropped; a handler's panic is kept with its stack.
func errorLog(l *slog.Logger) *log.Logger { return log.New(lines{l}, "", 0) }

type lines struct{ log *slog.Logger }

func (w lines) Write(b []byte) (int, error) {
	if rest, ok := strings.CutPrefix(string(b), "http: panic serving "); ok {
		_, what, _ := strings.Cut(rest, ": ")
		w.log.Error("handler panicked", "panic", strings.TrimSpace(what))
	} else if rest, ok := strings.CutPrefix(string(b), "http2: panic serving "); ok {
		_, what, _ := strings.Cut(rest, ": ")
		w.log.Error("handler panicked", "panic", strings.TrimSpace(what))
	} else if strings.HasPrefix(string(b), "http: Accept error") {
		w.log.Warn("accept failed", "reason", strings.TrimSpace(string(b)))
	}
	return len(b), nil
}
