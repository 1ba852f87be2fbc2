package host

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/commucat/commucat/sdk/transport"
)

// Limits of what a process may log.
const (
	maxLogLine  = 16 << 10         // bytes of a line; the rest of it is dropped
	maxLogText  = 2 << 10          // bytes of a text
	maxLogAttrs = 32               // attributes of a record
	logBurst    = 200              // records at once
	logPer      = time.Second / 50 // and one more in this time
)

// logs turns the standard error of a process into records. Lines of slog's JSON
// handler become what they were; everything else becomes a warning.
type logs struct {
	logger  func(plugin string) *slog.Logger
	pid     int
	now     func() time.Time
	mu      sync.Mutex
	line    []byte
	cut     bool // the rest of the line is dropped
	tokens  float64
	last    time.Time
	dropped uint64
	unsaid  uint64 // dropped and not yet said
	panicky string // the first line of a panic
}

func newLogs(pid int, now func() time.Time, logger func(plugin string) *slog.Logger) *logs {
	return &logs{logger: logger, pid: pid, now: now, tokens: logBurst, last: now()}
}

// read takes lines until the end of r.
func (l *logs) read(r io.Reader) {
	var buf [4 << 10]byte
	for {
		n, err := r.Read(buf[:])
		_, _ = l.Write(buf[:n])
		if err != nil {
			l.mu.Lock()
			if len(l.line) > 0 {
				l.end()
			}
			l.mu.Unlock()
			return
		}
	}
}

// Write takes a piece of the stream. It never fails and never waits.
func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for rest := p; len(rest) > 0; {
		piece, after, ended := bytes.Cut(rest, []byte("\n"))
		if room := maxLogLine - len(l.line); len(piece) > room {
			piece, l.cut = piece[:room], true
		}
		if l.line = append(l.line, piece...); ended {
			l.end()
		}
		rest = after
	}
	return len(p), nil
}

// end writes the line that has gathered.
func (l *logs) end() {
	line, cut := l.line, l.cut
	l.line, l.cut = l.line[:0], false
	if len(line) == 0 {
		return
	}
	if l.panicky == "" && (bytes.HasPrefix(line, []byte("panic: ")) || bytes.HasPrefix(line, []byte("fatal error: "))) {
		l.panicky = printable(string(line), 200)
	}
	if !l.take() {
		l.dropped++
		l.unsaid++
		return
	}
	if l.unsaid > 0 {
		l.warn("the plugin logs too much, lines were dropped", slog.Uint64("lines", l.unsaid))
		l.unsaid = 0
	}
	if cut || line[0] != '{' || !l.record(line) {
		l.warn("plugin output", slog.String("text", printable(string(line), maxLogText)))
	}
}

// warn writes a record of the parser's own.
func (l *logs) warn(message string, a slog.Attr) {
	log := l.logger("")
	if !log.Enabled(context.Background(), slog.LevelWarn) {
		return
	}
	r := slog.NewRecord(l.now(), slog.LevelWarn, message, 0)
	r.AddAttrs(slog.Int("pid", l.pid), a)
	_ = log.Handler().Handle(context.Background(), r)
}

// take takes a token.
func (l *logs) take() bool {
	now := l.now()
	l.tokens = min(logBurst, l.tokens+float64(now.Sub(l.last))/float64(logPer))
	l.last = now
	if l.tokens < 1 {
		return false
	}
	l.tokens--
	return true
}

// record writes a line of JSON as the record that it was.
func (l *logs) record(line []byte) bool {
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	var m map[string]any
	if d.Decode(&m) != nil {
		return false
	}
	text := func(keys ...string) string {
		for _, k := range keys {
			if s, ok := m[k].(string); ok {
				delete(m, k)
				return s
			}
		}
		return ""
	}
	// The names of slog, and of the library that serves the control connection.
	message := printable(text("msg", "@message"), maxLogText)
	var level slog.Level
	if level.UnmarshalText([]byte(strings.ToUpper(text("level", "@level")))) != nil || message == "" {
		return false
	}
	at, err := time.Parse(time.RFC3339Nano, text("time", "@timestamp"))
	if now := l.now(); err != nil || at.Sub(now).Abs() > time.Minute {
		at = now
	}
	log := l.logger(text("plugin"))
	if !log.Enabled(context.Background(), level) {
		return true
	}
	r := slog.NewRecord(at, level, message, 0)
	r.AddAttrs(slog.Int("pid", l.pid))
	r.AddAttrs(attrs(line, m)...)
	_ = log.Handler().Handle(context.Background(), r)
	return true
}

// attrs are the other values of a line, in the order in which they stand there.
func attrs(line []byte, m map[string]any) []slog.Attr {
	var out []slog.Attr
	d := json.NewDecoder(bytes.NewReader(line))
	if _, err := d.Token(); err != nil {
		return nil
	}
	for d.More() && len(out) < maxLogAttrs {
		t, err := d.Token()
		if err != nil {
			break
		}
		var skip json.RawMessage
		if d.Decode(&skip) != nil {
			break
		}
		key, _ := t.(string)
		if v, ok := m[key]; ok {
			delete(m, key)
			out = append(out, slog.Any(printable(key, 64), value(v, 0)))
		}
	}
	return out
}

func value(v any, depth int) any {
	switch v := v.(type) {
	case string:
		return printable(v, maxLogText)
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		if f, err := v.Float64(); err == nil {
			return f
		}
		return printable(v.String(), 64)
	case map[string]any:
		if depth > 3 {
			return "…"
		}
		out := make(map[string]any, min(len(v), maxLogAttrs))
		for k, e := range v {
			if len(out) < maxLogAttrs {
				out[printable(k, 64)] = value(e, depth+1)
			}
		}
		return out
	case []any:
		if depth > 3 {
			return "…"
		}
		out := make([]any, 0, min(len(v), maxLogAttrs))
		for _, e := range v[:min(len(v), maxLogAttrs)] {
			out = append(out, value(e, depth+1))
		}
		return out
	}
	return v
}

// printable makes text harmless for terminals and log files.
func printable(s string, limit int) string {
	s = transport.Shorten(strings.ToValidUTF8(s, "\ufffd"), limit)
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return '\ufffd'
		}
		return r
	}, s)
}

// drops is how many lines were dropped.
func (l *logs) drops() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped
}

// panicked is the first line of a panic, or "".
func (l *logs) panicked() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.panicky
}
