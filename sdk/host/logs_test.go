package host

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode"

	"google.golang.org/grpc"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
)

// lines feeds pieces to a parser and gives what it logged.
func lines(pieces ...string) (string, *logs) {
	var out bytes.Buffer
	h := slog.NewJSONHandler(&out, nil)
	now := time.Unix(1_700_000_000, 0)
	l := newLogs(7, func() time.Time { return now }, func(string) *slog.Logger { return slog.New(h) })
	for _, p := range pieces {
		_, _ = l.Write([]byte(p))
	}
	l.read(strings.NewReader(""))
	return out.String(), l
}

func TestLogs(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"record", `{"time":"2023-11-14T22:13:20.5Z","level":"WARN","msg":"m","b":1,"a":{"x":"y"}}` + "\n", `"level":"WARN","msg":"m","pid":7,"b":1,"a":{"x":"y"}}`},
		{"time of another day", `{"time":"1999-11-14T22:13:20Z","level":"INFO","msg":"m"}` + "\n", `{"time":"2023-`},
		{"library", `{"@level":"error","@message":"m","@timestamp":"x"}` + "\n", `"level":"ERROR","msg":"m"`},
		{"the panic of others", `{"@message":1}` + "\n", `"text":"{\"@message\":1}"`},
		{"half a line", "half", `"text":"half"`},
		{"control", "a\x1b[31mb\x00\r\n", `"text":"a�[31mb��"`},
		{"empty", "\n\n\n", ""},
		{"no message", `{"level":"INFO"}` + "\n", `"msg":"plugin output"`},
		{"twice", `{"level":"INFO","msg":"a","x":1,"x":2}` + "\n", `"pid":7,"x":2}`},
	} {
		got, _ := lines(tc.in)
		if !strings.Contains(got, tc.want) || tc.want == "" && got != "" {
			t.Errorf("%s: %s", tc.name, got)
		}
		var bytewise []string
		for i := range len(tc.in) {
			bytewise = append(bytewise, tc.in[i:i+1])
		}
		if again, _ := lines(bytewise...); again != got {
			t.Errorf("%s: byte by byte: %s", tc.name, again)
		}
	}
	if got, l := lines(strings.Repeat("x\n", 1000)); strings.Count(got, "\n") != logBurst || l.drops() != 1000-logBurst {
		t.Error(strings.Count(got, "\n"), l.drops())
	}
	if _, l := lines("panic: first\n", "panic: second\n"); l.panicked() != "panic: first" {
		t.Error(l.panicked())
	}
}

// TestLogsArePaced: a flood is read at a bounded rate.
func TestLogsArePaced(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	began := now
	l := newLogs(7, func() time.Time { return now }, func(string) *slog.Logger { return slog.New(slog.DiscardHandler) })
	pace := newPace(l.now, func(d time.Duration) { now = now.Add(d) })
	l.read(pacedReader{strings.NewReader(strings.Repeat("x\n", 5<<20)), pace})
	if took := now.Sub(began).Round(time.Second); took != 10*time.Second {
		t.Errorf("10 MiB were read within %v", took)
	}
}

// stdio is a stream of messages of a kibibyte each.
type stdio struct {
	grpc.ClientStream
	left int
}

func (s *stdio) RecvMsg(m any) error {
	if s.left--; s.left < 0 {
		return io.EOF
	}
	m.(*wirepb.OpenRequest).State = make([]byte, 1<<10)
	return nil
}

// TestOutputIsPaced: what comes by a call is taken at the same rate, whatever it says;
// other calls are left alone.
func TestOutputIsPaced(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	began := now
	s := &pacedStream{&stdio{left: 10 << 10}, newPace(func() time.Time { return now }, func(d time.Duration) { now = now.Add(d) })}
	n := 0
	for m := new(wirepb.OpenRequest); s.RecvMsg(m) == nil; n++ {
	}
	if took := now.Sub(began); n != 10<<10 || took < 10*time.Second || took > 12*time.Second {
		t.Errorf("%d messages were read within %v", n, took)
	}
	p := &Process{life: t.Context()}
	open := func(context.Context, *grpc.StreamDesc, *grpc.ClientConn, string, ...grpc.CallOption) (grpc.ClientStream, error) {
		return &stdio{}, nil
	}
	for method, want := range map[string]bool{wire.OutputCall: true, "/commucat.Control/Events": false} {
		got, err := p.paceOutput(t.Context(), nil, nil, method, open)
		if _, paced := got.(*pacedStream); err != nil || paced != want {
			t.Errorf("%s: %T, %v", method, got, err)
		}
	}
}

// TestTidyingIsBounded: what does not end is named, and left behind.
func TestTidyingIsBounded(t *testing.T) {
	var out bytes.Buffer
	p := &Process{o: Options{Name: "x"}, log: slog.New(slog.NewTextHandler(&out, nil))}
	if err := p.settled(make(chan struct{}), time.Millisecond); sdk.KindOf(err) != sdk.Unavailable || !strings.Contains(out.String(), "left behind") {
		t.Error(err, out.String())
	}
	ended := make(chan struct{})
	close(ended)
	if err := p.settled(ended, time.Hour); err != nil {
		t.Error(err)
	}
}

func FuzzLogs(f *testing.F) {
	for _, s := range []string{"{\"level\":\"INFO\",\"msg\":\"m\",\"a\":[{}]}\n", "text\n{", "{\"@message\":1}\n", "\x00\xff\u202e\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, _ := lines(string(b))
		for line := range strings.SplitSeq(strings.TrimSuffix(got, "\n"), "\n") {
			if len(line) > 64<<10*2 {
				t.Fatalf("a line of %d bytes", len(line))
			}
			if strings.IndexFunc(line, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }) >= 0 {
				t.Fatalf("%q", line)
			}
		}
	})
}
