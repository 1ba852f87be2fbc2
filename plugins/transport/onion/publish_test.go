package onion

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cretz/bine/control"

	"github.com/commucat/commucat/plugins/transport/internal/agent"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// nobodys is a listener to which nobody comes.
type nobodys chan struct{}

func (n nobodys) Accept() (net.Conn, error) {
	<-n
	return nil, net.ErrClosed
}

func (n nobodys) Close() error {
	close(n)
	return nil
}

func (n nobodys) Addr() net.Addr { return &net.TCPAddr{} }

// requested is what a tor was asked for, and when.
type requested struct {
	words string
	at    time.Time
}

// publishing is a service that tells a tor of its guests; what it says is seen. It runs in
// the time of a bubble.
func publishing(t *testing.T, c Config) (*service, <-chan requested) {
	t.Helper()
	seen := make(chan requested, 64)
	ours, theirs := net.Pipe()
	c.Guests, c.Port = 10, 80
	g, err := openGuests("", c.Guests, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	s := &service{cfg: c, env: sdk.NewEnv(sdk.EnvOptions{}), state: t.TempDir(), guests: g, known: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(t.Context())
	s.arrivals = agent.Receive(nobodys(make(chan struct{})), time.Minute, slog.New(slog.DiscardHandler), s.header)
	d := &daemon{
		log: slog.New(slog.DiscardHandler), foreign: c.Control != "", changed: make(chan struct{}, 1),
		done: make(chan struct{}), conn: textproto.NewConn(ours),
	}
	d.ctl = control.NewConn(d.conn)
	s.daemon, s.address = d, strings.Repeat("a", 56)
	s.running.Go(func() {
		for r := bufio.NewScanner(theirs); r.Scan(); {
			seen <- requested{r.Text(), time.Now()}
			if _, err := io.WriteString(theirs, "250 OK\r\n"); err != nil {
				return
			}
		}
	})
	s.running.Go(func() { s.republish(d) })
	t.Cleanup(func() {
		s.cancel()
		_, _ = ours.Close(), theirs.Close()
		s.arrivals.Close()
		s.running.Wait()
	})
	return s, seen
}

// events are directories' answers.
func events(s *service, actions ...string) {
	progress := newWatch(time.Hour)
	defer progress.stop()
	for _, a := range actions {
		e := &control.HSDescEvent{Action: a, Address: s.address}
		if a == "FAILED" {
			e.Reason = "UPLOAD_REJECTED"
		}
		s.descriptor(e, progress)
	}
}

// quiet fails where tor is asked for anything within a day.
func quiet(t *testing.T, seen <-chan requested) {
	t.Helper()
	select {
	case r := <-seen:
		t.Errorf("tor was asked for %s", r.words)
	case <-time.After(24 * time.Hour):
	}
}

// Descriptors that are refused again and again are followed by others ever more rarely.
// Guests who come and go meanwhile do not wait for that.
func TestGuestsDoNotWaitForRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, seen := publishing(t, Config{Authorise: true})
		var pause time.Duration
		for range 12 {
			began := time.Now()
			events(s, "UPLOAD", "FAILED", "FAILED")
			pause = (<-seen).at.Sub(began)
		}
		if pause != paceRefused.Most {
			t.Fatalf("the last pause is %v", pause)
		}
		events(s, "UPLOAD", "FAILED")
		time.Sleep(paceOwn.Well + time.Second)
		last := time.Now()
		for i, change := range []func() error{
			func() error {
				_, err := s.Invite(t.Context(), "", transport.Guest{ID: "friend"})
				return err
			},
			func() error { return s.Revoke(t.Context(), "friend") },
		} {
			if err := change(); err != nil {
				t.Fatal(err)
			}
			r := <-seen
			if wait := r.at.Sub(last); r.words != "SIGNAL RELOAD" || wait > paceOwn.Most || i > 0 && wait < paceOwn.Least {
				t.Errorf("change %d: %s after %v", i, r.words, wait)
			}
			last = r.at
			events(s, "UPLOAD", "FAILED")
		}
		if r := <-seen; r.at.Sub(last) != paceRefused.Most {
			t.Errorf("the refusal behind the changes was followed after %v", r.at.Sub(last))
		}
		quiet(t, seen)
	})
}

// The operator's tor makes its service anew only where no directory took the descriptor.
func TestRefusalsOfTheOperatorsTor(t *testing.T) {
	for name, c := range map[string]struct {
		answers []string
		anew    bool
	}{
		"one refuses, another takes it":  {[]string{"UPLOAD", "UPLOAD", "FAILED", "UPLOADED"}, false},
		"one takes it, another refuses":  {[]string{"UPLOAD", "UPLOAD", "UPLOADED", "FAILED", "FAILED"}, false},
		"all refuse":                     {[]string{"UPLOAD", "UPLOAD", "FAILED", "FAILED"}, true},
		"all refuse the next one":        {[]string{"UPLOAD", "UPLOADED", "UPLOAD", "FAILED"}, true},
		"an answer about the one before": {[]string{"UPLOAD", "FAILED", "UPLOAD", "FAILED", "UPLOADED"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, seen := publishing(t, Config{Authorise: true, Defence: "off", Control: "127.0.0.1:9051"})
				for _, a := range c.answers {
					events(s, a)
					time.Sleep(time.Second)
				}
				if c.anew {
					for _, word := range []string{"DEL_ONION ", "ADD_ONION "} {
						if r := <-seen; !strings.HasPrefix(r.words, word) {
							t.Errorf("%s, want %s", r.words, word)
						}
					}
					events(s, "FAILED") // of the old one
					time.Sleep(time.Second)
					events(s, "UPLOAD", "UPLOADED")
				}
				quiet(t, seen)
			})
		})
	}
}

// A disk that is full when a refused descriptor is to be followed by another ends nothing:
// that is done when there is room.
func TestRefusedOnAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, seen := publishing(t, Config{Authorise: true})
		if err := os.WriteFile(s.folder(), nil, 0o600); err != nil { // where a folder should be
			t.Fatal(err)
		}
		events(s, "UPLOAD", "FAILED")
		time.Sleep(time.Hour)
		if len(seen) > 0 {
			t.Errorf("tor was asked for %s", (<-seen).words)
		}
		if err := os.Remove(s.folder()); err != nil {
			t.Fatal(err)
		}
		if r := <-seen; r.words != "SIGNAL RELOAD" {
			t.Error(r.words)
		}
		if _, err := os.Stat(filepath.Join(s.folder(), authFolder, "nobody.auth")); err != nil {
			t.Error(err)
		}
		quiet(t, seen)
	})
}

// With authorise = false there are no files of guests: with one tor would ask everybody for
// a key, when a guest of before is revoked.
func TestRevokedWithoutAuthorisation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, seen := publishing(t, Config{})
		if err := s.guests.add("of before", make([]byte, 32), make([]byte, tokenSize), time.Time{}); err != nil {
			t.Fatal(err)
		}
		if err := s.Revoke(t.Context(), "of before"); err != nil {
			t.Fatal(err)
		}
		quiet(t, seen)
		if _, err := os.Stat(s.folder()); !os.IsNotExist(err) {
			t.Errorf("there is a folder of guests: %v", err)
		}
	})
}

// A guest whose file is not written yet is none that tor has been told of.
func TestToldOfWrittenGuests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, seen := publishing(t, Config{Authorise: true})
		if err := s.guests.add("friend", make([]byte, 32), make([]byte, tokenSize), time.Time{}); err != nil {
			t.Fatal(err)
		}
		events(s, "UPLOAD", "FAILED")
		<-seen
		synctest.Wait()
		if err := s.apply(); err != nil {
			t.Fatal(err)
		}
		if r := <-seen; r.words != "SIGNAL RELOAD" {
			t.Error(r.words)
		}
		quiet(t, seen)
	})
}
