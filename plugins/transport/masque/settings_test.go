package masque

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// TestStatelessReset: a relay that was started again tells the clients of before at
// once that it does not know them; another relay on that address cannot.
func TestStatelessReset(t *testing.T) {
	for name, same := range map[string]bool{"the same relay": true, "another relay": false} {
		t.Run(name, func(t *testing.T) {
			state := t.TempDir()
			before := startIn(t, state, nil, echo)
			n := newNAT(t, before.server.Addr())
			c := stranger(t, n.in.LocalAddr().String(), quic.Version1)
			// An answer confirms the handshake: before that the client goes on with long headers,
			// to which no reset is an answer.
			asked("GET", func(*testing.T, *quic.Conn, *http.Request) {}).run(t, c)
			n.blocked.Store(true) // as if it were killed: its farewell does not arrive
			_ = before.server.Close()
			if !same {
				state = t.TempDir()
			}
			after := startIn(t, state, nil, echo)
			n.lead(t, after.server.Addr())
			n.blocked.Store(false)
			s, err := c.OpenStream()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write(make([]byte, 500)); err != nil {
				t.Fatal(err)
			}
			patience := 10 * time.Second
			if !same {
				patience = wait
			}
			var reset *quic.StatelessResetError
			select {
			case <-c.Context().Done():
				if err := context.Cause(c.Context()); !errors.As(err, &reset) || !same {
					t.Error(err)
				}
			case <-time.After(patience):
				if same {
					t.Error("nothing was said")
				}
			}
		})
	}
}

// TestRetryUnderLoad: above the rate of new connections addresses must be validated,
// and who does that gets in. The clock stands, so that the rate is not a matter of speed.
func TestRetryUnderLoad(t *testing.T) {
	var cfg Config
	sdk.Defaults(&cfg)
	cfg.Listen, cfg.PerSource = "127.0.0.1:0", 10_000
	at := time.Now()
	s, err := newServer(t.Context(), sdk.NewEnv(sdk.EnvOptions{State: t.TempDir(), Cover: page}), cfg, serverOptions{now: func() time.Time { return at }, dialUDP: dialPublic})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	go func() {
		if c, err := s.Accept(); err == nil {
			echo(c)
			_ = c.Close()
		}
	}()
	c, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	retried := func(i int) bool {
		b := []byte{0xc3, 0, 0, 0, 1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 8, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0x44, 0x90}
		binary.BigEndian.PutUint64(b[6:], uint64(i)+1)
		if _, err := c.Write(append(b, make([]byte, 1200-len(b))...)); err != nil {
			t.Fatal(err)
		}
		pause := time.Millisecond
		if i >= newBurst {
			pause = wait
		}
		_ = c.SetReadDeadline(time.Now().Add(pause))
		answer := make([]byte, 1500)
		n, err := c.Read(answer)
		return err == nil && n > 5 && answer[0]&0xf0 == 0xf0 && binary.BigEndian.Uint32(answer[1:]) == 1
	}
	first := -1
	for i := range newBurst + 20 {
		if retried(i) {
			first = i
			break
		}
	}
	if first < newBurst { // each costs one, and nothing is given back
		t.Fatalf("the first Retry came at packet %d", first)
	}
	e, err := s.Invite(t.Context(), "127.0.0.1", transport.Guest{ID: "guest"})
	if err != nil {
		t.Fatal(err)
	}
	e.Params[paramTCP] = ""
	conn, err := dialled(t, opened(t, nil), e, transport.Dial{})
	if err != nil {
		t.Fatalf("under load: %v", err)
	}
	if err := works(conn, "hello"); err != nil {
		t.Error(err)
	}
	_ = conn.Close()
}

// TestNoEarlyData: nothing that may be replayed is taken (RFC 8446 section 8).
func TestNoEarlyData(t *testing.T) {
	r := start(t, nil, echo)
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	tr := &quic.Transport{Conn: udp}
	defer tr.Close()
	stored := make(chan struct{}, 8)
	tc := &tls.Config{
		InsecureSkipVerify: true, ServerName: "relay.example", NextProtos: []string{http3.NextProtoH3},
		ClientSessionCache: tickets{tls.NewLRUClientSessionCache(1), stored},
	}
	for round := range 2 {
		c, err := tr.DialEarly(t.Context(), r.server.Addr(), tc, &quic.Config{})
		if err != nil {
			t.Fatal(err)
		}
		<-c.HandshakeComplete()
		s := c.ConnectionState()
		if s.Used0RTT || s.TLS.DidResume != (round == 1) {
			t.Errorf("round %d: early data %v, resumed %v", round, s.Used0RTT, s.TLS.DidResume)
		}
		if round == 0 {
			select {
			case <-stored:
			case <-time.After(10 * time.Second):
				t.Fatal("no ticket came")
			}
		}
		_ = c.CloseWithError(0, "")
	}
}

// tickets tells when one came.
type tickets struct {
	tls.ClientSessionCache
	stored chan struct{}
}

func (s tickets) Put(key string, state *tls.ClientSessionState) {
	s.ClientSessionCache.Put(key, state)
	if state != nil {
		s.stored <- struct{}{}
	}
}
