package config

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/commucat/commucat/sdk"
)

// EnableTransport gives the text of a configuration in which [transport.NAME] has
// enabled = on. Only that line changes: comments, order and spacing stay. name is what
// errors call the file.
func EnableTransport(name string, text []byte, transport string, on bool) ([]byte, error) {
	if _, err := parse(name, text); err != nil {
		return nil, err
	}
	if !validName(transport) {
		return nil, fmt.Errorf("%q is not a name: 1 to 32 of a-z 0-9 -", transport)
	}
	value := strconv.FormatBool(on)
	var p unstable.Parser
	p.Reset(text)
	var table []string
	header := -1 // where the line behind the table's header begins
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
			switch {
			case len(full) == 3 && full[0] == "transport" && full[1] == transport && full[2] == "enabled":
				at, ok := boolAt(text, lastKeyEnd(e))
				if !ok {
					return nil, sdk.ConfigErrors{{Pos: sdk.Position{File: name}, Key: "transport." + transport + ".enabled", Text: "must be true or false"}}
				}
				return splice(text, at, at+len(word(text[at:])), value), nil
			case len(full) <= 2 && full[0] == "transport" && e.Value().Kind == unstable.InlineTable && (len(full) == 1 || full[1] == transport):
				return nil, fmt.Errorf("%s: transport %s stands in an inline table; change enabled there by hand", name, transport)
			}
		}
	}
	line := "enabled = " + value + "\n"
	if header >= 0 {
		if header == len(text) && len(text) > 0 && text[len(text)-1] != '\n' {
			line = "\n" + line
		}
		return splice(text, header, header, line), nil
	}
	out := bytes.Clone(text)
	if len(out) > 0 && out[len(out)-1] != '\n' {
		out = append(out, '\n')
	}
	if len(out) > 0 {
		out = append(out, '\n')
	}
	return append(out, "[transport."+transport+"]\n"+line...), nil
}

func keyParts(e *unstable.Node) (out []string) {
	for it := e.Key(); it.Next(); {
		out = append(out, string(it.Node().Data))
	}
	return out
}

// lastKeyEnd is where the last part of an expression's key ends.
func lastKeyEnd(e *unstable.Node) int {
	end := 0
	for it := e.Key(); it.Next(); {
		r := it.Node().Raw
		end = int(r.Offset + r.Length)
	}
	return end
}

// lineAfter is the beginning of the next line.
func lineAfter(text []byte, at int) int {
	if i := bytes.IndexByte(text[at:], '\n'); i >= 0 {
		return at + i + 1
	}
	return len(text)
}

// boolAt finds the boolean behind "key =".
func boolAt(text []byte, at int) (int, bool) {
	for at < len(text) && (text[at] == ' ' || text[at] == '\t' || text[at] == '=') {
		at++
	}
	w := word(text[at:])
	return at, w == "true" || w == "false"
}

func word(b []byte) string {
	n := 0
	for n < len(b) && b[n] >= 'a' && b[n] <= 'z' {
		n++
	}
	return string(b[:n])
}

func splice(text []byte, from, to int, with string) []byte {
	return append(append(bytes.Clone(text[:from]), with...), text[to:]...)
}
