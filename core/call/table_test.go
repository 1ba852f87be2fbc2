package call

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/sdk/ccp"
)

type bed struct {
	*Table
	now    time.Time
	events []string
}

func newBed(change func(*Options)) *bed {
	b := &bed{now: time.Unix(1_800_000_000, 0)}
	opt := Options{Clock: func() time.Time { return b.now }, Audit: func(event, id string, data map[string]any) {
		b.events = append(b.events, fmt.Sprint(event, " ", id))
	}}
	if change != nil {
		change(&opt)
	}
	b.Table = New(opt)
	return b
}

func offer(id, from string) []byte {
	return []byte(fmt.Sprintf(`{"call_id":%q,"from":%q,"to":["b"]}`, id, from))
}

func code(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

func TestOffer(t *testing.T) {
	video := `"media":{"audio":{"codec":"opus","bitrate":1,"sample_rate":48000,"channels":1},"video":{"codec":"vp8","max_bitrate":1,"frame_rate":1,"max_resolution":{"width":0,"height":1}}}`
	tests := []struct{ name, body, want string }{
		{"good", string(offer("c", "a")), "<nil>"},
		{"by user", string(offer("c", "u")), "<nil>"},
		{"forged sender", string(offer("c", "b")), CodeBadSender},
		{"empty id", string(offer("", "a")), CodeBadRequest},
		{"no keys", `{}`, CodeBadRequest},
		{"no object", `[]`, CodeBadRequest},
		{"expired", `{"call_id":"c","from":"a","to":[],"expires_at":1}`, CodeBadRequest},
		{"sample rate", `{"call_id":"c","from":"a","to":[],"media":{"audio":{"codec":"opus","bitrate":1,"sample_rate":44100,"channels":1}}}`, CodeBadRequest},
		{"resolution", `{"call_id":"c","from":"a","to":[],` + video + `}`, CodeBadRequest},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := code(newBed(nil).Offer("a", "u", 9, []string{"b"}, []byte(tt.body))); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestLifeOfACall(t *testing.T) {
	b := newBed(nil)
	if err := b.Offer("a", "u", 9, []string{"b", "c"}, offer("call", "a")); err != nil {
		t.Fatal(err)
	}
	if err := b.Offer("a", "u", 9, []string{"b", "c"}, offer("call", "a")); err != nil {
		t.Errorf("the same offer again: %v", err)
	}
	steps := []struct {
		name string
		err  error
		want string
	}{
		{"id in use", b.Offer("x", "x", 9, nil, offer("call", "x")), CodeCallExists},
		{"stranger answers", b.Answer("x", 9, []byte(`{"call_id":"call","accept":true}`)), CodeNoCall},
		{"other channel", b.Answer("b", 8, []byte(`{"call_id":"call","accept":true}`)), CodeNoCall},
		{"answer", b.Answer("b", 9, []byte(`{"call_id":"call","accept":true}`)), "<nil>"},
		{"stats", b.Stats("b", 9, []byte(`{"call_id":"call","direction":"send"}`)), "<nil>"},
		{"stranger's stats", b.Stats("x", 9, []byte(`{"call_id":"call","direction":"send"}`)), CodeNoCall},
		{"update", b.Transport("c", 9, []byte(`{"call_id":"call","update":"consent_keepalive","interval_secs":5}`)), "<nil>"},
		{"bad update", b.Transport("c", 9, []byte(`{"call_id":"call","update":"other"}`)), CodeBadRequest},
		{"stranger ends", b.End("x", 9, []byte(`{"call_id":"call","reason":"hangup"}`)), CodeNoCall},
		{"unknown ends", b.End("x", 9, []byte(`{"call_id":"other","reason":"hangup"}`)), "<nil>"},
		{"packet", b.Media("a", 9, ccp.TypeVoiceFrame, []byte("\x01\x00\x00x")), "<nil>"},
		{"raw packet", b.Media("a", 9, ccp.TypeVoiceFrame, []byte("\x01\x01\x00x")), CodeBadMedia},
		{"short packet", b.Media("a", 9, ccp.TypeVoiceFrame, []byte("\x01")), CodeBadMedia},
		{"no call there", b.Media("a", 8, ccp.TypeVoiceFrame, []byte("x")), "<nil>"},
		{"end", b.End("c", 9, []byte(`{"call_id":"call","reason":"hangup"}`)), "<nil>"},
	}
	for _, s := range steps {
		if got := code(s.err); got != s.want {
			t.Errorf("%s: got %s, want %s", s.name, got, s.want)
		}
	}
	if b.Active() != 0 || len(b.devices) != 0 {
		t.Error("something is left")
	}
	if diff := cmp.Diff([]string{"offer call", "answer call", "end call"}, b.events); diff != "" {
		t.Error(diff)
	}
}

func TestRejectEnds(t *testing.T) {
	b := newBed(nil)
	b.Offer("a", "u", 9, []string{"b"}, offer("call", "a"))
	if err := b.Answer("b", 9, []byte(`{"call_id":"call","accept":false,"reason":"busy"}`)); err != nil || b.Active() != 0 {
		t.Errorf("%v, %d active", err, b.Active())
	}
}

func TestLimitsAndExpiry(t *testing.T) {
	b := newBed(func(o *Options) { o.PerDevice, o.Calls = 2, 3 })
	for i := range 2 {
		if err := b.Offer("a", "u", 9, []string{"b"}, offer(fmt.Sprint("call", i), "a")); err != nil {
			t.Fatal(err)
		}
	}
	if got := code(b.Offer("a", "u", 9, nil, offer("more", "a"))); got != CodeLimit {
		t.Errorf("per device: %s", got)
	}
	b.Offer("x", "x", 9, nil, offer("third", "x"))
	if got := code(b.Offer("y", "y", 9, nil, offer("fourth", "y"))); got != CodeLimit {
		t.Errorf("in all: %s", got)
	}
	b.Answer("b", 9, []byte(`{"call_id":"call1","accept":true}`))
	b.now = b.now.Add(3 * time.Minute)
	if n := len(b.Expire()); n != 2 || b.Active() != 1 {
		t.Errorf("%d expired, %d left", n, b.Active())
	}
	b.now = b.now.Add(24 * time.Hour)
	if n := len(b.Expire()); n != 1 {
		t.Errorf("%d expired", n)
	}
}

func TestDisconnect(t *testing.T) {
	b := newBed(nil)
	b.Offer("a", "u", 9, []string{"b"}, offer("call", "a"))
	ended := b.Disconnect("b")
	if len(ended) != 1 || ended[0].Channel != 9 || b.Active() != 0 {
		t.Fatalf("%+v", ended)
	}
	e, err := ccp.ParseCallEnd(ended[0].Body)
	if err != nil || e.Reason != ccp.EndFailure || !strings.Contains(string(e.Metadata), `"cause":"disconnect"`) {
		t.Errorf("%+v %v", e, err)
	}
}
