package chronicle_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/commucat/commucat/sdk/plugintest/chronicle"
)

// parse reads "s12.0" (sent by 1 to 2, number 0), "a…" and "v…" (acknowledged, shown).
func parse(t *testing.T, text string) []chronicle.Event {
	t.Helper()
	var out []chronicle.Event
	for word := range strings.FieldsSeq(text) {
		what, ok := map[byte]chronicle.What{'s': chronicle.Sent, 'a': chronicle.Acked, 'v': chronicle.Shown, '?': 9}[word[0]]
		e := chronicle.Event{What: what}
		pair, n, cut := strings.Cut(word[1:], ".")
		if _, err := fmt.Sscan(n, &e.N); err != nil || !ok || !cut || len(pair) != 2 {
			t.Fatal(word)
		}
		e.From, e.To = int(pair[0]-'0'), int(pair[1]-'0')
		out = append(out, e)
	}
	return out
}

func TestCheck(t *testing.T) {
	tests := []struct {
		name, events, want string // want: counts of lost, twice, early, invented, malformed
	}{
		{"nothing", "", "0 0 0 0 0"},
		{"all is well", "s12.0 s12.1 a12.0 v12.0 v12.1 a12.1", "0 0 0 0 0"},
		{"shown before the acknowledgement", "s12.0 v12.0 a12.0", "0 0 0 0 0"},
		{"sent and never acknowledged", "s12.0 s12.1 a12.1 v12.1", "0 0 0 0 0"},
		{"unacknowledged ones may be shown", "s12.0 v12.0", "0 0 0 0 0"},
		{"lost", "s12.0 a12.0 s12.1 a12.1 v12.1", "1 0 0 0 0"},
		{"lost at the end", "s12.0 v12.0 a12.0 s12.1 a12.1", "1 0 0 0 0"},
		{"shown to somebody else", "s12.0 a12.0 v13.0", "1 0 0 1 0"},
		{"twice", "s12.0 a12.0 v12.0 v12.0", "0 1 0 0 0"},
		{"thrice", "s12.0 a12.0 v12.0 v12.0 v12.0", "0 2 0 0 0"},
		{"twice, much later", "s12.0 v12.0 s12.1 v12.1 v12.0", "0 1 0 0 0"},
		{"out of order", "s12.0 s12.1 v12.1 v12.0", "0 0 1 0 0"},
		{"two late ones", "s12.0 s12.1 s12.2 v12.2 v12.0 v12.1", "0 0 2 0 0"},
		{"pairs are independent", "s12.0 s21.0 s32.0 v32.0 v12.0 v21.0", "0 0 0 0 0"},
		{"shown and never sent", "v12.0", "0 0 0 1 0"},
		{"shown before it was sent", "v12.0 s12.0", "0 0 0 1 0"},
		{"acknowledged and never sent", "a12.7", "0 0 0 1 0"},
		{"acknowledged twice", "s12.0 a12.0 a12.0 v12.0", "0 0 0 0 1"},
		{"a number left out", "s12.0 s12.2", "0 0 0 0 1"},
		{"sent twice", "s12.0 s12.0", "0 0 0 0 1"},
		{"no such event", "?12.0", "0 0 0 0 1"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := chronicle.Check(parse(t, test.events))
			got := fmt.Sprint(len(r.Lost), len(r.Twice), len(r.Early), len(r.Invented), len(r.Malformed))
			if got != test.want || r.Good() != (test.want == "0 0 0 0 0") {
				t.Errorf("%s, want %s\n%s", got, test.want, r)
			}
		})
	}
}

func TestReport(t *testing.T) {
	r := chronicle.Check(parse(t, "s12.0 s12.1 s12.2 s12.3 s12.4 a12.0 a12.1 a12.2 a12.3 a12.4 v12.4 v12.4"))
	want := "5 sent, 5 acknowledged, 2 shown: 4 lost, 1 shown twice, 0 out of order, 0 invented\n" +
		"lost: 1 to 2, message 0\nlost: 1 to 2, message 1\nlost: 1 to 2, message 2\nlost: and 1 more\ntwice: 1 to 2, message 4"
	if r.String() != want {
		t.Errorf("%s", r)
	}
}

func TestLog(t *testing.T) {
	var l chronicle.Log
	var group sync.WaitGroup
	for from := range 4 {
		group.Go(func() {
			for n := range uint64(100) {
				l.Add(chronicle.Sent, from, 9, n)
				l.Add(chronicle.Acked, from, 9, n)
				l.Add(chronicle.Shown, from, 9, n)
			}
		})
	}
	group.Wait()
	if r := chronicle.Check(l.Events()); !r.Good() || r.Shown != 400 {
		t.Error(r)
	}
}

func ExampleCheck() {
	var l chronicle.Log
	l.Add(chronicle.Sent, 1, 2, 0)
	l.Add(chronicle.Acked, 1, 2, 0)
	fmt.Println(chronicle.Check(l.Events()))
	// Output:
	// 1 sent, 1 acknowledged, 0 shown: 1 lost, 0 shown twice, 0 out of order, 0 invented
	// lost: 1 to 2, message 0
}
