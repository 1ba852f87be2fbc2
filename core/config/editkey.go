package config

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// SetTransportKey gives the text of a configuration whose [transport.NAME], which must be
// there, has a key with a text as its value; everything else stays as it is.
func SetTransportKey(name string, text []byte, transport, key, value string) ([]byte, error) {
	if _, err := parse(name, text); err != nil {
		return nil, err
	}
	var p unstable.Parser
	p.Reset(text)
	var table []string
	for p.NextExpression() {
		e := p.Expression()
		keys := keyParts(e)
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = keys
		case unstable.KeyValue:
			full := append(append([]string{}, table...), keys...)
			if len(full) != 3 || full[0] != "transport" || full[1] != transport || full[2] != key {
				continue
			}
			v := e.Value()
			if v.Kind != unstable.String || v.Raw.Length == 0 {
				return nil, fmt.Errorf("%s: transport.%s.%s is no text; set it to %q by hand", name, transport, key, value)
			}
			from := int(v.Raw.Offset)
			return splice(text, from, from+int(v.Raw.Length), strconv.Quote(value)), nil
		}
	}
	return AddTransportKey(name, text, transport, key, strconv.Quote(value))
}

// AddTransportKey gives the text of a configuration whose [transport.NAME], which must
// be there, begins with one key more; everything else stays as it is. value is TOML, or
// else a text. A key that is there already is not touched and is an error.
func AddTransportKey(name string, text []byte, transport, key, value string) ([]byte, error) {
	if _, err := parse(name, text); err != nil {
		return nil, err
	}
	if key == "" || strings.Trim(key, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		return nil, fmt.Errorf("%q is not the name of a key: a-z 0-9 _", key)
	}
	var p unstable.Parser
	p.Reset(text)
	var table []string
	header := -1
	for p.NextExpression() {
		e := p.Expression()
		keys := keyParts(e)
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			if table = keys; len(table) == 2 && table[0] == "transport" && table[1] == transport {
				header = lineAfter(text, lastKeyEnd(e))
			}
		case unstable.KeyValue:
			full := append(append([]string{}, table...), keys...)
			if len(full) == 3 && full[0] == "transport" && full[1] == transport && full[2] == key {
				return nil, fmt.Errorf("%s: transport.%s.%s is set already; change it there", name, transport, key)
			}
		}
	}
	if header < 0 {
		return nil, fmt.Errorf("%s: there is no [transport.%s] to add %s to", name, transport, key)
	}
	line := key + " = " + asValue(value) + "\n"
	if header == len(text) && len(text) > 0 && text[len(text)-1] != '\n' {
		line = "\n" + line
	}
	return splice(text, header, header, line), nil
}

// asValue is the value as it stands if it is TOML, else as a quoted text.
func asValue(value string) string {
	if _, ok := valueOf(value); ok {
		return value
	}
	return strconv.Quote(value)
}

// Value reads the value of a command line's KEY=VALUE: TOML, or else a text.
func Value(text string) any {
	if v, ok := valueOf(text); ok {
		return v
	}
	return text
}

func valueOf(text string) (any, bool) {
	var in map[string]any
	if strings.ContainsAny(text, "\n\r") || toml.Unmarshal([]byte("x = "+text), &in) != nil || len(in) != 1 {
		return nil, false
	}
	return in["x"], true
}
