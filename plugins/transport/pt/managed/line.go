package managed

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
)

// Limits of what a child says.
const (
	maxLine   = 16 << 10
	maxText   = 1024
	maxMethod = 64
	maxFields = 32
)

// The words that a line begins with (pt-spec, section 3.3). Others are ignored.
const (
	Version      = "VERSION"
	VersionError = "VERSION-ERROR"
	EnvError     = "ENV-ERROR"
	ProxyDone    = "PROXY DONE"
	ProxyError   = "PROXY-ERROR"
	CMethod      = "CMETHOD"
	CMethodError = "CMETHOD-ERROR"
	CMethodsDone = "CMETHODS DONE"
	SMethod      = "SMETHOD"
	SMethodError = "SMETHOD-ERROR"
	SMethodsDone = "SMETHODS DONE"
	Status       = "STATUS"
	Log          = "LOG"
)

// Line is one line of a child's standard output.
type Line struct {
	// Word is one of the constants, "" for a line that is to be ignored.
	Word string
	// Method is a transport's name, with CMETHOD, SMETHOD and their errors.
	Method string
	// Protocol is how a client speaks to CMETHOD's address: "socks5".
	Protocol string
	// Addr is where the method listens.
	Addr netip.AddrPort
	// Args are SMETHOD's, or the fields of STATUS and LOG.
	Args Args
	// Text is VERSION's number, or what went wrong.
	Text string
}

// ParseLine reads a line without its end. A line with an unknown word is no error.
func ParseLine(s string) (Line, error) {
	if len(s) > maxLine {
		return Line{}, fmt.Errorf("a line of %d bytes, at most %d", len(s), maxLine)
	}
	if strings.ContainsAny(s, "\n\x00") {
		return Line{}, errors.New("a line holds a line end or NUL")
	}
	word, rest, _ := strings.Cut(s, " ")
	switch word {
	case Version, VersionError, EnvError, ProxyError:
		return Line{Word: word, Text: shorten(rest)}, nil
	case CMethodError, SMethodError:
		name, text, _ := strings.Cut(rest, " ")
		if !ValidMethod(name) {
			return Line{}, fmt.Errorf("%s without the name of a transport", word)
		}
		return Line{Word: word, Method: name, Text: shorten(text)}, nil
	case "PROXY", "CMETHODS", "SMETHODS":
		if rest != "DONE" {
			return Line{}, nil
		}
		return Line{Word: s}, nil
	case CMethod:
		return parseClient(rest)
	case SMethod:
		return parseServer(rest)
	case Status, Log:
		fields, err := parseFields(rest)
		return Line{Word: word, Args: fields}, err
	}
	return Line{}, nil
}

func parseClient(rest string) (Line, error) {
	f := strings.Fields(rest)
	if len(f) < 3 || len(f) > maxFields || !ValidMethod(f[0]) {
		return Line{}, errors.New("CMETHOD is not followed by name, protocol and address")
	}
	at, err := netip.ParseAddrPort(f[2])
	if err != nil {
		return Line{}, fmt.Errorf("CMETHOD %s: no address: %w", f[0], err)
	}
	if f[1] != "socks5" && f[1] != "socks4" {
		return Line{}, fmt.Errorf("CMETHOD %s speaks %.20q, which is not known", f[0], f[1])
	}
	return Line{Word: CMethod, Method: f[0], Protocol: f[1], Addr: at}, nil
}

func parseServer(rest string) (Line, error) {
	f := strings.Fields(rest)
	if len(f) < 2 || len(f) > maxFields || !ValidMethod(f[0]) {
		return Line{}, errors.New("SMETHOD is not followed by name and address")
	}
	at, err := netip.ParseAddrPort(f[1])
	if err != nil {
		return Line{}, fmt.Errorf("SMETHOD %s: no address: %w", f[0], err)
	}
	l := Line{Word: SMethod, Method: f[0], Addr: at}
	for _, option := range f[2:] {
		if text, ok := strings.CutPrefix(option, "ARGS:"); ok {
			if l.Args, err = ParseArgs(text, Comma); err != nil {
				return Line{}, fmt.Errorf("SMETHOD %s: %w", f[0], err)
			}
		}
	}
	return l, nil
}

// String writes the line as a child does, without its end.
func (l Line) String() string {
	switch l.Word {
	case CMethod:
		return fmt.Sprintf("%s %s %s %s", l.Word, l.Method, l.Protocol, l.Addr)
	case SMethod:
		s := fmt.Sprintf("%s %s %s", l.Word, l.Method, l.Addr)
		if len(l.Args) > 0 {
			s += " ARGS:" + l.Args.Encode(Comma)
		}
		return s
	case CMethodError, SMethodError:
		return l.Word + " " + l.Method + " " + l.Text
	case Version, VersionError, EnvError, ProxyError:
		return l.Word + " " + l.Text
	case Status, Log:
		var b strings.Builder
		b.WriteString(l.Word)
		for _, f := range l.Args {
			b.WriteString(" " + f.Key + "=" + quote(f.Value))
		}
		return b.String()
	}
	return l.Word
}

// ValidMethod is pt-spec's rule for names of transports: a C identifier.
func ValidMethod(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != "" && len(s) <= maxMethod
}

func shorten(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.ToValidUTF8(s, "?")
}

// parseFields reads "KEY=value KEY=\"value\"" (pt-spec, sections 3.3.4 and 3.3.5).
func parseFields(s string) (Args, error) {
	var out Args
	for {
		s = strings.TrimLeft(s, " \t\r")
		if s == "" {
			return out, nil
		}
		key, rest, ok := strings.Cut(s, "=")
		if !ok || key == "" || strings.ContainsAny(key, " \t\"\\\r") {
			return nil, errors.New("a field is not of the form KEY=value")
		}
		if len(out) == maxFields {
			return nil, fmt.Errorf("more than %d fields", maxFields)
		}
		var value string
		if strings.HasPrefix(rest, `"`) {
			if value, s, ok = unquote(rest[1:]); !ok {
				return nil, errors.New("a quoted value does not end")
			}
		} else {
			value, s, _ = strings.Cut(rest, " ")
		}
		out = append(out, Arg{key, value})
	}
}

// unquote reads a C string behind its opening quote.
func unquote(s string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
			switch c = s[i]; {
			case c == 'n':
				b.WriteByte('\n')
			case c == 'r':
				b.WriteByte('\r')
			case c == 't':
				b.WriteByte('\t')
			case c >= '0' && c <= '7':
				n, end := 0, i
				for ; end < len(s) && end < i+3 && s[end] >= '0' && s[end] <= '7'; end++ {
					n = n*8 + int(s[end]-'0')
				}
				b.WriteByte(byte(n))
				i = end - 1
			default:
				b.WriteByte(c)
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}

func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < 0x20 || c == 0x7f:
			fmt.Fprintf(&b, `\%03o`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// Lines reads a child's lines until the end. A line that is too long is passed over.
type Lines struct{ r *bufio.Reader }

// NewLines reads from r.
func NewLines(r io.Reader) *Lines { return &Lines{bufio.NewReaderSize(r, maxLine+2)} }

// Next is the next line, without its end.
func (l *Lines) Next() (string, error) {
	for {
		b, err := l.r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = l.r.ReadSlice('\n')
			}
			if err != nil {
				return "", err
			}
			continue
		}
		if err != nil && len(b) == 0 {
			return "", err
		}
		return strings.TrimRight(string(b), "\r\n"), nil
	}
}
