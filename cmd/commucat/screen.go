package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
	"golang.org/x/text/width"
)

// screen is what chat shows: a status line, messages, an input line. It is the
// goroutine's alone that runs it.
type screen struct {
	device  *device
	log     *history
	entries []entry
	to      string
	last    string // who wrote last
	status  string
	hint    string // the program's own word, until the next key
	input   []rune
	width   int
	height  int
	up      int // lines scrolled back
	tell    func(any)
}

// maxInput bounds the input line, in characters.
const maxInput = 4096

// run draws and reads keys until the user leaves, ctx ends, or the client has. The
// terminal is as before when it returns.
func (s *screen) run(ctx context.Context, in *os.File, out io.Writer, events <-chan any) (err error) {
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return err
	}
	const enter, leave = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
	defer func() {
		_, no := io.WriteString(out, leave)
		err = errors.Join(err, no, term.Restore(int(in.Fd()), before))
	}()
	if _, err := io.WriteString(out, enter); err != nil {
		return err
	}
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	typed := make(chan []byte)
	go func() { // it ends with the terminal, or the program
		defer close(typed)
		for {
			b := make([]byte, 1024)
			n, err := in.Read(b)
			if n > 0 {
				select {
				case typed <- b[:n]:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	var keys []byte
	for {
		if w, h, err := term.GetSize(int(in.Fd())); err == nil {
			s.width, s.height = w, h
		}
		if _, err := io.WriteString(out, s.frame()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-resized:
		case v := <-events:
			if e, ok := v.(ended); ok {
				return e.err
			}
			s.happened(v)
		case b, ok := <-typed:
			if !ok {
				return nil
			}
			var quit bool
			if keys, quit = s.keys(append(keys, b...)); quit {
				return nil
			}
		}
	}
}

func (s *screen) happened(v any) {
	switch v := v.(type) {
	case state:
		s.status = string(v)
	case entry:
		s.entries = put(s.entries, v)
		if v.From != "" && v.From != "relay" {
			s.last = v.From
		}
	case mark:
		s.marked(v)
	}
}

func (s *screen) marked(m mark) {
	for _, e := range s.entries {
		if e.Key == m.key {
			e.Mark = m.mark
			s.keep(e)
		}
	}
	if m.why != "" {
		s.note(m.why)
	}
}

// keep shows an entry and writes it down.
func (s *screen) keep(e entry) {
	s.entries = put(s.entries, e)
	if err := s.log.add(e); err != nil {
		s.note(err.Error())
	}
}

func (s *screen) note(text string) { s.hint = printable([]byte(text)) }

// keys handles what was typed; what is not whole yet is given back.
func (s *screen) keys(b []byte) (rest []byte, quit bool) {
	for len(b) > 0 {
		n := 1
		switch c := b[0]; {
		case c == 3 || c == 4: // ctrl-c, ctrl-d
			return nil, true
		case c == 0x1b:
			if n = escape(b); n == 0 {
				return b, false
			}
			switch string(b[:n]) {
			case "\x1b[5~":
				s.up += max(1, s.height/2)
			case "\x1b[6~":
				s.up = max(0, s.up-max(1, s.height/2))
			}
		case c == '\r' || c == '\n':
			s.hint = ""
			if s.enter() {
				return nil, true
			}
		case c == 0x7f || c == 8:
			s.input = s.input[:max(0, len(s.input)-1)]
		case c == 0x15: // ctrl-u
			s.input = nil
		case !utf8.FullRune(b):
			return b, false
		default:
			var r rune
			if r, n = utf8.DecodeRune(b); unicode.IsPrint(r) && len(s.input) < maxInput {
				s.input = append(s.input, r)
			}
		}
		b = b[n:]
	}
	return nil, false
}

// escape is the length of the control sequence that b begins with (ECMA-48), 0 while
// it is not whole.
func escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	if b[1] != '[' && b[1] != 'O' {
		return 2
	}
	for i := 2; i < len(b); i++ {
		if b[i] >= 0x40 && b[i] <= 0x7e || i > 32 {
			return i + 1
		}
	}
	return 0
}

// enter sends the line, or does what it says; true ends the program.
func (s *screen) enter() (quit bool) {
	line := strings.TrimSpace(string(s.input))
	s.input, s.up = nil, 0
	word, rest, _ := strings.Cut(line, " ")
	switch {
	case line == "":
	case word == "/quit":
		return true
	case word == "/to" && strings.TrimSpace(rest) != "":
		s.to = strings.TrimSpace(rest)
	case word == "/reply" && s.last != "":
		s.to = s.last
	case strings.HasPrefix(line, "/"):
		s.note("/to NAME, /reply, /quit")
	case s.to == "":
		s.note("to whom? /to NAME")
	default:
		s.send(line)
	}
	return false
}

// frame is the whole screen.
func (s *screen) frame() string {
	if s.width < 8 || s.height < 4 {
		return "\x1b[H\x1b[J"
	}
	to := s.to
	if to == "" {
		to = "nobody yet: /to NAME"
	}
	p := s.device.Profile()
	head := s.fit(p.Handle + " at " + p.Relay.Domain + " | " + s.status + " | to " + to)
	var lines []string
	for _, e := range s.entries {
		lines = append(lines, s.lines(e)...)
	}
	room := s.height - 2
	if s.hint != "" {
		room--
	}
	s.up = min(s.up, max(0, len(lines)-room))
	lines = lines[:len(lines)-s.up]
	lines = lines[max(0, len(lines)-room):]
	out := append([]string{head}, lines...)
	for len(out) < room+1 {
		out = append(out, "")
	}
	if s.hint != "" {
		out = append(out, s.fit("* "+s.hint))
	}
	input := s.input
	for span(input) > s.width-4 {
		input = input[1:]
	}
	out = append(out, "> "+string(input)+"_")
	return "\x1b[H" + strings.Join(out, "\x1b[K\r\n") + "\x1b[J"
}

// lines are an entry's, wrapped.
func (s *screen) lines(e entry) []string {
	who := short(e.From)
	if e.From == "" {
		who = e.Mark + " me"
		if e.To != "" {
			who += " to " + short(e.To)
		}
	}
	var out []string
	text := e.Time.Local().Format(time.TimeOnly) + " " + who + ": " + printable([]byte(e.Text))
	for line := range strings.SplitSeq(strings.ReplaceAll(text, "\t", " "), "\n") {
		out = append(out, s.wrap(line)...)
	}
	return out
}

// short makes a long id readable; names stay.
func short(id string) string {
	if len(id) == 64 || len(id) == 32 {
		return id[:8]
	}
	return printable([]byte(strings.ReplaceAll(id, "\n", " ")))
}

// wrap cuts a line at the width of the screen.
func (s *screen) wrap(line string) []string {
	var out []string
	var row strings.Builder
	used := 0
	for _, r := range line {
		w := columns(r)
		if used+w > s.width {
			out = append(out, row.String())
			row.Reset()
			used = 0
		}
		row.WriteRune(r)
		used += w
	}
	return append(out, row.String())
}

// columns is how many a character takes.
func columns(r rune) int {
	switch k := width.LookupRune(r).Kind(); {
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case k == width.EastAsianWide || k == width.EastAsianFullwidth:
		return 2
	}
	return 1
}

func span(rs []rune) (n int) {
	for _, r := range rs {
		n += columns(r)
	}
	return n
}

// fit is the first row of a line.
func (s *screen) fit(line string) string { return s.wrap(strings.ReplaceAll(line, "\n", " "))[0] }
