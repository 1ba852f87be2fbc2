package managed

import (
	"errors"
	"fmt"
	"strings"
)

// Limits of arguments.
const (
	maxArgs  = 64
	maxArg   = 4096
	maxSocks = 510 // user name and password of SOCKS5, 255 bytes each
)

// The separators between arguments.
const (
	// Comma stands between the arguments of an SMETHOD line.
	Comma = ','
	// Semicolon stands between those of a connection, and of the server's options.
	Semicolon = ';'
)

// Arg is one argument.
type Arg struct{ Key, Value string }

// Args are arguments in their order; a key may stand there several times.
type Args []Arg

// Get is the first value of a key, "" if there is none.
func (a Args) Get(key string) string {
	for _, one := range a {
		if one.Key == key {
			return one.Value
		}
	}
	return ""
}

// Set replaces every value of a key by one.
func (a Args) Set(key, value string) Args {
	var out Args
	for _, one := range a {
		if one.Key != key {
			out = append(out, one)
		}
	}
	return append(out, Arg{key, value})
}

// Encode writes "k=v" pairs with the separator between them (pt-spec, sections 3.3.3
// and 3.5). Separator, equals sign and backslash are escaped by a backslash.
func (a Args) Encode(separator byte) string {
	var b strings.Builder
	for i, one := range a {
		if i > 0 {
			b.WriteByte(separator)
		}
		escape(&b, one.Key, separator)
		b.WriteByte('=')
		escape(&b, one.Value, separator)
	}
	return b.String()
}

func escape(b *strings.Builder, s string, also ...byte) {
	for i := range len(s) {
		c := s[i]
		if c == '\\' || c == '=' || strings.IndexByte(string(also), c) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
}

// ParseArgs reads what Encode writes. Line ends, NUL, and what has no key or no equals
// sign are refused.
func ParseArgs(text string, separator byte) (Args, error) {
	if len(text) > maxArg {
		return nil, fmt.Errorf("arguments of %d bytes, at most %d", len(text), maxArg)
	}
	if text == "" {
		return nil, nil
	}
	var out Args
	var key, word strings.Builder
	isValue := false
	end := func() error {
		if !isValue || key.Len() == 0 {
			return errors.New("an argument is not of the form key=value")
		}
		if len(out) == maxArgs {
			return fmt.Errorf("more than %d arguments", maxArgs)
		}
		out = append(out, Arg{key.String(), word.String()})
		key.Reset()
		word.Reset()
		isValue = false
		return nil
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\n' || c == '\r' || c == 0:
			return nil, errors.New("an argument holds a line end or NUL")
		case c == '\\':
			if i++; i == len(text) {
				return nil, errors.New("the arguments end in a backslash")
			}
			if c = text[i]; c == '\n' || c == '\r' || c == 0 {
				return nil, errors.New("an argument holds a line end or NUL")
			}
			word.WriteByte(c)
		case c == separator:
			if err := end(); err != nil {
				return nil, err
			}
		case c == '=' && !isValue:
			key.WriteString(word.String())
			word.Reset()
			isValue = true
		default:
			word.WriteByte(c)
		}
	}
	return out, end()
}

// Login are the arguments of a connection as a SOCKS5 user name and password; ok is
// false without arguments: then there is no authentication.
func (a Args) Login() (user, password string, ok bool, err error) {
	if len(a) == 0 {
		return "", "", false, nil
	}
	text := a.Encode(Semicolon)
	if len(text) > maxSocks {
		return "", "", false, fmt.Errorf("arguments of %d bytes, at most %d fit into a connection", len(text), maxSocks)
	}
	if len(text) > 255 {
		return text[:255], text[255:], true, nil
	}
	return text, "\x00", true, nil
}

// FromLogin is the other end of Login.
func FromLogin(user, password string) (Args, error) {
	if password == "\x00" {
		password = ""
	}
	return ParseArgs(user+password, Semicolon)
}

// options writes TOR_PT_SERVER_TRANSPORT_OPTIONS for one method (pt-spec, section
// 3.2.3).
func (a Args) options(method string) string {
	var parts []string
	for _, one := range a {
		var b strings.Builder
		escape(&b, one.Key, ':', ';')
		b.WriteByte('=')
		escape(&b, one.Value, ':', ';')
		parts = append(parts, method+":"+b.String())
	}
	return strings.Join(parts, ";")
}

// ParseOptions reads the options of one method out of TOR_PT_SERVER_TRANSPORT_OPTIONS.
func ParseOptions(text, method string) (Args, error) {
	var out Args
	for len(text) > 0 {
		part, rest := cutUnescaped(text, ';')
		text = rest
		name, arg := cutUnescaped(part, ':')
		if name != method || arg == "" {
			continue
		}
		// A colon is escaped here and nowhere else; ParseArgs takes any escape.
		one, err := ParseArgs(arg, ';')
		if err != nil {
			return nil, err
		}
		out = append(out, one...)
	}
	return out, nil
}

func cutUnescaped(s string, at byte) (before, after string) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case at:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}
