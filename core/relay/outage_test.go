package relay

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// A storage that fails for minutes, in many lanes, is told of now and then.
func TestOutage(t *testing.T) {
	var log bytes.Buffer
	o := outage{log: slog.New(slog.NewTextHandler(&log, nil))}
	now := time.Unix(1_800_000_000, 0)
	o.works(now)
	for range 650 { // 65 s
		o.fails(now, errors.New("the disk is full"))
		now = now.Add(50 * time.Millisecond)
		o.works(now) // of another lane
		now = now.Add(50 * time.Millisecond)
	}
	if n := strings.Count(log.String(), "the disk is full"); n != 3 {
		t.Errorf("told %d times: %s", n, log.String())
	}
	if strings.Contains(log.String(), "again") {
		t.Errorf("told of an end: %s", log.String())
	}
	log.Reset()
	for range 10 {
		now = now.Add(time.Second)
		o.works(now)
	}
	if got := log.String(); strings.Count(got, "stored again") != 1 || !strings.Contains(got, "failed_calls=650") {
		t.Errorf("the end: %s", got)
	}
	log.Reset()
	now = now.Add(time.Minute)
	o.fails(now, errors.New("refused"))
	if got := log.String(); !strings.Contains(got, "failed_calls=1") || !strings.Contains(got, "refused") {
		t.Errorf("the next one: %s", got)
	}
}
