package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/commucat/commucat/sdk"
)

// maxFile bounds the configuration file.
const maxFile = 1 << 20

// maxDepth bounds nesting; nothing here needs more than four levels.
const maxDepth = 32

// parse reads TOML into tables whose values know their places.
func parse(name string, text []byte) (map[string]any, error) {
	fail := func(line, column int, format string, args ...any) error {
		return sdk.ConfigErrors{{
			Pos:  sdk.Position{File: name, Line: line, Column: column},
			Text: fmt.Sprintf(format, args...),
		}}
	}
	if len(text) > maxFile {
		return nil, fail(0, 0, "larger than 1 MiB")
	}
	if bytes.HasPrefix(text, []byte("\xef\xbb\xbf")) {
		return nil, fail(1, 1, "begins with a byte order mark; save it as UTF-8 without one")
	}
	if !utf8.Valid(text) {
		line, column := invalidAt(text)
		return nil, fail(line, column, "not valid UTF-8")
	}
	var plain map[string]any
	if err := toml.Unmarshal(text, &plain); err != nil {
		var d *toml.DecodeError
		if errors.As(err, &d) {
			line, column := d.Position()
			return nil, fail(line, column, "%s", strings.TrimPrefix(d.Error(), "toml: "))
		}
		return nil, fail(0, 0, "%s", strings.TrimPrefix(err.Error(), "toml: "))
	}
	l := &locator{file: name, places: map[string]place{}, counts: map[string]int{}}
	l.lines = lineStarts(text)
	l.document(text)
	return l.table("", plain, 0), nil
}

func invalidAt(text []byte) (line, column int) {
	line, column = 1, 1
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		if r == utf8.RuneError && n == 1 {
			break
		}
		column += n
		if r == '\n' {
			line, column = line+1, 1
		}
		text = text[n:]
	}
	return line, column
}

type place struct{ key, value sdk.Position }

// locator walks the syntax tree once more for the places that the decoder drops.
// Paths are joined by a byte that no TOML key can contain unescaped.
type locator struct {
	file   string
	lines  []int
	parser unstable.Parser
	places map[string]place
	counts map[string]int // elements seen of each array of tables
}

const sep = "\x00"

func lineStarts(text []byte) []int {
	starts := []int{0}
	for i, c := range text {
		if c == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}

func (l *locator) position(r unstable.Range) sdk.Position {
	low, high := 0, len(l.lines)
	for high-low > 1 {
		if mid := (low + high) / 2; l.lines[mid] <= int(r.Offset) {
			low = mid
		} else {
			high = mid
		}
	}
	return sdk.Position{File: l.file, Line: low + 1, Column: int(r.Offset) - l.lines[low] + 1}
}

func (l *locator) document(text []byte) {
	l.parser.Reset(text)
	table := ""
	for l.parser.NextExpression() {
		e := l.parser.Expression()
		switch e.Kind {
		case unstable.Table:
			table = l.keys("", e.Key(), false)
		case unstable.ArrayTable:
			table = l.keys("", e.Key(), true)
		case unstable.KeyValue:
			l.keyValue(table, e)
		}
	}
}

// keys records the parts of a (dotted) key below prefix and returns the full path.
func (l *locator) keys(prefix string, it unstable.Iterator, array bool) string {
	path := prefix
	for it.Next() {
		n := it.Node()
		path += sep + string(n.Data)
		pos := l.position(n.Raw)
		if _, seen := l.places[path]; !seen {
			l.places[path] = place{pos, pos}
		}
		if it.IsLast() && array {
			l.counts[path]++
		}
		if count := l.counts[path]; count > 0 {
			path += fmt.Sprint(sep, count-1)
			if it.IsLast() {
				l.places[path] = place{pos, pos}
			}
		}
	}
	return path
}

func (l *locator) keyValue(prefix string, e *unstable.Node) {
	path := l.keys(prefix, e.Key(), false)
	l.value(path, e.Value())
}

func (l *locator) value(path string, n *unstable.Node) {
	if p := l.places[path]; n.Raw.Length > 0 {
		p.value = l.position(n.Raw)
		if p.key.IsZero() {
			p.key = p.value
		}
		l.places[path] = p
	}
	switch n.Kind {
	case unstable.Array:
		for i, it := 0, n.Children(); it.Next(); i++ {
			l.value(fmt.Sprint(path, sep, i), it.Node())
		}
	case unstable.InlineTable:
		for it := n.Children(); it.Next(); {
			l.keyValue(path, it.Node())
		}
	}
}

func (l *locator) table(path string, m map[string]any, depth int) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[k] = l.wrap(path+sep+k, v, depth+1)
	}
	return out
}

func (l *locator) wrap(path string, v any, depth int) any {
	if depth > maxDepth {
		return "nested too deeply"
	}
	switch t := v.(type) {
	case map[string]any:
		v = l.table(path, t, depth)
	case []any:
		list := make([]any, len(t))
		for i, e := range t {
			list[i] = l.wrap(fmt.Sprint(path, sep, i), e, depth+1)
		}
		v = list
	}
	p := l.places[path]
	return sdk.Located{Value: v, Key: p.key, At: p.value}
}
