package sdk

import (
	"fmt"
	"sort"
	"strings"
)

// Position is a place in a configuration file; Line and Column count from 1 and
// are 0 where unknown. Columns count bytes.
type Position struct {
	File         string
	Line, Column int
}

// IsZero reports that nothing is known.
func (p Position) IsZero() bool { return p == Position{} }

// String is FILE:LINE:COLUMN, as far as known.
func (p Position) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.File == "":
		return fmt.Sprintf("%d:%d", p.Line, p.Column)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Located wraps a raw value with the places of its key and of the value itself.
// Decode accepts it wherever it accepts a value.
type Located struct {
	Value   any
	Key, At Position
}

// ConfigError is one mistake in a configuration.
type ConfigError struct {
	// Key is the dotted path: "limits.queue.messages".
	Key string
	// Pos is where; zero where unknown.
	Pos Position
	// Text says what is wrong, without the key and without a secret's value.
	Text string
	// Suggestion is the name that was probably meant, or "".
	Suggestion string
}

// Error is "FILE:LINE:COLUMN: key: text (did you mean name?)".
func (e *ConfigError) Error() string {
	var b strings.Builder
	if !e.Pos.IsZero() {
		b.WriteString(e.Pos.String() + ": ")
	}
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Text)
	if e.Suggestion != "" {
		fmt.Fprintf(&b, " (did you mean %q?)", e.Suggestion)
	}
	return b.String()
}

// ConfigErrors are all mistakes found, in the order of the file.
type ConfigErrors []*ConfigError

// Error is one line for each mistake.
func (e ConfigErrors) Error() string {
	lines := make([]string, len(e))
	for i, c := range e {
		lines[i] = c.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find a *ConfigError.
func (e ConfigErrors) Unwrap() []error {
	all := make([]error, len(e))
	for i, c := range e {
		all[i] = c
	}
	return all
}

// Sort orders by file, line and column, then key.
func (e ConfigErrors) Sort() {
	sort.SliceStable(e, func(i, j int) bool {
		a, b := e[i], e[j]
		switch {
		case a.Pos.File != b.Pos.File:
			return a.Pos.File < b.Pos.File
		case a.Pos.Line != b.Pos.Line:
			return a.Pos.Line < b.Pos.Line
		case a.Pos.Column != b.Pos.Column:
			return a.Pos.Column < b.Pos.Column
		}
		return a.Key < b.Key
	})
}

// err is e sorted, or nil when empty.
func (e ConfigErrors) err() error {
	if len(e) == 0 {
		return nil
	}
	e.Sort()
	return e
}
