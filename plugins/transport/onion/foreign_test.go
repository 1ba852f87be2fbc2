package onion

import (
	"bufio"
	"encoding/base32"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/transport"
)

// controlPort is the control port of a tor that does what the test says.
type controlPort struct {
	ln    net.Listener
	group sync.WaitGroup
	// answer is what a request is answered by, "" hangs up.
	answer func(request string) string
}

func newControlPort(t *testing.T, answer func(request string) string) *controlPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &controlPort{ln: ln, answer: answer}
	p.group.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			p.group.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		p.group.Wait()
	})
	return p
}

func (p *controlPort) serve(c net.Conn) {
	defer c.Close()
	for r := bufio.NewScanner(c); r.Scan(); {
		said := "250 OK"
		switch word, _, _ := strings.Cut(r.Text(), " "); word {
		case "PROTOCOLINFO":
			said = "250-PROTOCOLINFO 1\r\n250-AUTH METHODS=NULL\r\n250-VERSION Tor=\"0.4.8.0\"\r\n250 OK"
		case "ADD_ONION", "DEL_ONION":
			said = p.answer(r.Text())
		}
		if said == "" {
			return
		}
		if _, err := io.WriteString(c, said+"\r\n"); err != nil {
			return
		}
	}
}

// made is the answer to ADD_ONION.
func made() string {
	b := make([]byte, 35)
	b[34] = 3
	return fmt.Sprintf("250-ServiceID=%s\r\n250 OK", strings.ToLower(base32.StdEncoding.EncodeToString(b)))
}

// request waits for the next one of a kind that holds so many authorised guests.
func request(t *testing.T, seen <-chan string, word string, guests int) {
	t.Helper()
	limit := time.After(patience)
	for {
		select {
		case r := <-seen:
			if strings.HasPrefix(r, word) && strings.Count(r, "ClientAuthV3=") == guests {
				return
			}
		case <-limit:
			t.Fatalf("no %s with %d guests came", word, guests)
		}
	}
}

// A guest who is invited while a tor is joined anew is told to it afterwards.
func TestInvitedWhileTorIsJoined(t *testing.T) {
	seen := make(chan string, 64)
	var mu sync.Mutex
	var s *service
	adds := 0
	listens := make(chan struct{})
	p := newControlPort(t, func(r string) string {
		seen <- r
		if !strings.HasPrefix(r, "ADD_ONION") {
			return "250 OK"
		}
		mu.Lock()
		adds++
		n := adds
		mu.Unlock()
		if n == 2 {
			<-listens
			if _, err := s.Invite(t.Context(), "", transport.Guest{ID: "friend"}); err != nil {
				t.Error(err)
			}
		}
		return made()
	})
	o, err := transport.Open(t.Context(), Plugin(), plugintest.NewLender(t), map[string]any{"control": p.ln.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	s = listening(t, o)
	close(listens)
	request(t, seen, "ADD_ONION", 1) // nobody
	d := joined(t, s)
	d.hangUp()
	request(t, seen, "ADD_ONION", 1)
	request(t, seen, "DEL_ONION", 0)
	request(t, seen, "ADD_ONION", 2)
}

// joined waits for the tor that can be asked.
func joined(t *testing.T, s *service) *daemon {
	t.Helper()
	for until := time.Now().Add(patience); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		d := s.daemon
		s.mu.Unlock()
		if d != nil {
			return d
		}
	}
	t.Fatal("no tor was joined")
	return nil
}

// A service that could not be made again after it was taken away comes back by itself.
func TestServiceComesBackAfterARefusal(t *testing.T) {
	seen := make(chan string, 64)
	var mu sync.Mutex
	adds := 0
	p := newControlPort(t, func(r string) string {
		seen <- r
		if !strings.HasPrefix(r, "ADD_ONION") {
			return "250 OK"
		}
		mu.Lock()
		defer mu.Unlock()
		if adds++; adds == 2 {
			return "551 Not now"
		}
		return made()
	})
	o, err := transport.Open(t.Context(), Plugin(), plugintest.NewLender(t), map[string]any{"control": p.ln.Addr().String(), "proof_of_work": "off"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	s := listening(t, o)
	joined(t, s)
	request(t, seen, "ADD_ONION", 1)
	if _, err := s.Invite(t.Context(), "", transport.Guest{ID: "friend"}); err != nil {
		t.Fatal(err)
	}
	request(t, seen, "ADD_ONION", 2) // refused
	request(t, seen, "ADD_ONION", 2)
}

// Invitations at the same time do not take each other's files away.
func TestInvitationsAtOnce(t *testing.T) {
	dir := t.TempDir()
	g, err := openGuests(dir, 100, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	s := &service{cfg: Config{Authorise: true}, state: dir, guests: g, address: "x"}
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			if _, err := s.Invite(t.Context(), "", transport.Guest{ID: fmt.Sprint(i)}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}
