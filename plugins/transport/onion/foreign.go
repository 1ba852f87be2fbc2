package onion

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cretz/bine/control"

	"github.com/commucat/commucat/sdk"
)

// keyFile holds the service's key where the tor is the operator's: as tor writes it,
// "ED25519-V3:" and base64.
const keyFile = "control-key"

// joinTor opens the control connections of a tor that is not ours.
func joinTor(ctx context.Context, address, password string, log *slog.Logger) (*daemon, error) {
	d := &daemon{log: log, done: make(chan struct{}), foreign: true, changed: make(chan struct{}, 1)}
	for _, to := range []**textproto.Conn{&d.conn, &d.events} {
		network, at := "tcp", address
		if path, ok := strings.CutPrefix(address, "unix:"); ok {
			network, at = "unix", path
		}
		raw, err := new(net.Dialer).DialContext(ctx, network, at)
		if err != nil {
			d.hangUp()
			return nil, fmt.Errorf("tor's control socket %s: %w", address, err)
		}
		_ = raw.SetDeadline(time.Now().Add(replyTime))
		c := textproto.NewConn(raw)
		*to = c
		ctl := control.NewConn(c)
		if err := ctl.Authenticate(password); err != nil {
			d.hangUp()
			return nil, fmt.Errorf("tor's control socket %s does not let the relay in (its user must be able to read tor's cookie): %w", address, err)
		}
		_ = raw.SetDeadline(time.Time{})
		if d.ctl == nil {
			d.ctl = ctl
		}
	}
	return d, nil
}

// foreignKey is the service's key, "NEW:ED25519-V3" before there is one.
func (s *service) foreignKey() (string, error) {
	b, err := os.ReadFile(filepath.Join(s.state, keyFile))
	if errors.Is(err, os.ErrNotExist) {
		return "NEW:ED25519-V3", nil
	}
	if err != nil {
		return "", err
	}
	key := strings.TrimSpace(string(b))
	if !strings.HasPrefix(key, "ED25519-V3:") || strings.ContainsAny(key, " \r\n") {
		return "", &sdk.Error{Kind: sdk.Corrupt, Op: keyFile, Text: "holds no key of an onion service"}
	}
	return key, nil
}

// publish makes the service in the operator's tor. It ends with the control connection.
func (s *service) publish(d *daemon) error {
	key, err := s.foreignKey()
	if err != nil {
		return err
	}
	words := []string{"ADD_ONION", key}
	flags := []string{"MaxStreamsCloseCircuit"}
	if s.cfg.Authorise {
		flags = append(flags, "V3Auth")
	}
	if s.cfg.SingleHop {
		flags = append(flags, "NonAnonymous")
	}
	words = append(words, "Flags="+strings.Join(flags, ","), "MaxStreams="+strconv.Itoa(s.cfg.Streams))
	plain := len(words)
	if s.cfg.Defence != "off" {
		words = append(words, "PoWDefensesEnabled=1", "PoWQueueRate=20", "PoWQueueBurst=100")
	}
	rest := []string{fmt.Sprintf("Port=%d,%s", s.cfg.Port, s.arrivals.Local())}
	if s.cfg.Authorise {
		for _, public := range s.guests.keys() {
			rest = append(rest, "ClientAuthV3="+base32Of(public))
		}
	}
	answer, err := d.ask(strings.Join(append(words, rest...), " "))
	if err != nil && s.cfg.Defence == "auto" {
		answer, err = d.ask(strings.Join(append(words[:plain:plain], rest...), " "))
		if err == nil {
			s.env.Log().Warn("this tor has no defence by proof of work")
		}
	}
	if err != nil {
		return err
	}
	for line := range strings.Lines(answer) {
		line = strings.TrimSpace(line)
		if made, ok := strings.CutPrefix(line, "PrivateKey="); ok {
			if err := replace(filepath.Join(s.state, keyFile), []byte(made+"\n")); err != nil {
				return err
			}
		}
		if address, ok := strings.CutPrefix(line, "ServiceID="); ok && validAddress(address) {
			s.know(address)
		}
	}
	s.publication(told)
	return nil
}

// anew replaces the service by one with the guests of now: circuits that stand go on.
func (s *service) anew(d *daemon) error {
	s.mu.Lock()
	address := s.address
	s.mu.Unlock()
	if _, err := d.ask("DEL_ONION " + address); err != nil {
		return err
	}
	return s.publish(d) // when it fails there is no service any more
}
