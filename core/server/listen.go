package server

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/commucat/commucat/core/front"
	"github.com/commucat/commucat/sdk/entry"
)

// compatName is the transport of the reference's connect path; links never name
// it.
const compatName = "compat"

func (s *Server) connectPath() string {
	if p := string(s.cfg.Server.ConnectPath); p != "" {
		return p
	}
	return s.data.drawn.ConnectPath
}

func (s *Server) cookie() string {
	if c := s.cfg.Server.Cookie; c != "" {
		return c
	}
	return s.data.drawn.Cookie
}

// openFront binds the public sockets and makes what answers on them.
func (s *Server) openFront(ctx context.Context) error {
	if err := s.openCertificates(ctx); err != nil {
		return err
	}
	if err := s.bind(ctx); err != nil {
		return err
	}
	o := CoverOptions{Folder: string(s.cfg.Cover.Site), Cookie: s.cookie(), Domain: string(s.cfg.Server.Domain), Log: s.log}
	if s.cfg.Cover.Origin != "" {
		u, err := url.Parse(string(s.cfg.Cover.Origin))
		if err != nil {
			return fmt.Errorf("cover.origin: %w", err)
		}
		o.Origin = u
	}
	cover, err := s.opt.Cover(o)
	if err != nil {
		return fmt.Errorf("cover: %w", err)
	}
	s.cover = front.Site(cover)
	s.entries = entry.NewVerifier(s.ring.EntryMasters, s.opt.Clock)
	s.webs = s.opt.Webs(WebOptions{
		Path: s.connectPath(), Cookie: s.cookie(), Verify: s.entries.Verify, Cover: s.cover,
		Enabled: s.cfg.Enabled, Compat: s.cfg.Compat.ConnectPath, Keepalive: s.cfg.Server.Keepalive,
	})
	api, err := s.restAPI()
	if err != nil {
		return err
	}
	s.front, err = front.New(front.Options{
		Certificates: s.files, Admission: s.gate, Cover: s.cover, AltSvc: s.cfg.Cover.AltSvc, Webs: s.webs, API: api, Accept: s.sessions.Serve,
		HeaderTimeout: s.cfg.Limits.HandshakeTimeout, DrainTimeout: 5 * time.Second, Log: s.log, Metrics: s.metrics,
	})
	return err
}

func (s *Server) openCertificates(ctx context.Context) (err error) {
	pair := front.Pair{Certificate: string(s.cfg.TLS.Cert), Key: string(s.cfg.TLS.Key)}
	former := s.data.path(keysDir, "tls.crt")
	switch {
	case pair.Certificate != "":
		if !samePublicKey(former, pair.Certificate) {
			s.log.Warn("devices and links of before pin the key of the relay's own certificate and cannot connect; 'commucat doctor' says what to do",
				"key", s.data.path(keysDir, "tls.key"))
		}
	default:
		if _, err := os.Stat(s.data.path(keysDir, "tls.key")); errors.Is(err, fs.ErrNotExist) {
			if s.known(ctx) {
				s.log.Warn("the relay's own certificate gets a new key: devices and links of before cannot connect; restore the former from a backup if there is one",
					"key", s.data.path(keysDir, "tls.key"))
			}
		}
		var pin [32]byte
		if pair.Certificate, pair.Key, pin, err = s.ring.SelfSigned(); err != nil {
			return err
		}
		s.pin = &pin
	}
	s.files, err = front.OpenFiles([]front.Pair{pair}, s.log, s.metrics)
	return err
}

// samePublicKey compares the first certificates of two files; a file that cannot be
// read differs from none.
func samePublicKey(one, other string) bool {
	a, errA := leaf(one)
	b, errB := leaf(other)
	return errA != nil || errB != nil || bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo)
}

func leaf(name string) (*x509.Certificate, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	for {
		block, rest := pem.Decode(b)
		switch {
		case block == nil:
			return nil, errors.New("no certificate")
		case block.Type == "CERTIFICATE":
			return x509.ParseCertificate(block.Bytes)
		}
		b = rest
	}
}

// known says that there are devices or links which know this relay.
func (s *Server) known(ctx context.Context) bool {
	users, err := s.accounts.Users(ctx, "", 1)
	if err != nil || len(users) > 0 {
		return err == nil
	}
	invites, err := s.accounts.Invites(ctx, "", 1)
	return err == nil && len(invites) > 0
}

// bind takes sockets from systemd where it passes some, and opens the configured
// addresses otherwise. After an error those that are open are closed with the rest.
func (s *Server) bind(ctx context.Context) (err error) {
	s.onClose(func(context.Context) error {
		for _, ln := range s.public {
			ln.Close()
		}
		return nil
	})
	if s.public, err = activated(); err != nil {
		return err
	}
	if len(s.public) == 0 {
		for _, a := range s.cfg.Server.Listen {
			if s.opt.Prepare && a.Port() != 0 {
				continue
			}
			ln, err := new(net.ListenConfig).Listen(ctx, "tcp", string(a))
			if err != nil {
				return listenError(string(a), err)
			}
			s.public = append(s.public, ln)
		}
	}
	return nil
}

func listenError(address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("address %s is in use by another program; stop it or choose another with --listen or server.listen", address)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("address %s needs more rights; choose a port from 1024 on, or give the program CAP_NET_BIND_SERVICE", address)
	}
	return fmt.Errorf("address %s cannot be listened on: %w", address, err)
}

// activated takes the sockets that systemd passes (sd_listen_fds(3)). The
// variables are cleared so that no child takes them again.
func activated() ([]net.Listener, error) {
	const first = 3
	pid, n := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	if pid != strconv.Itoa(os.Getpid()) || n == "" {
		return nil, nil
	}
	defer func() {
		for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
			os.Unsetenv(v)
		}
	}()
	count, err := strconv.Atoi(n)
	if err != nil || count < 0 || count > 64 {
		return nil, fmt.Errorf("LISTEN_FDS = %q is not a number of sockets", n)
	}
	var out []net.Listener
	for fd := first; fd < first+count; fd++ {
		syscall.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), "socket-"+strconv.Itoa(fd))
		ln, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return out, fmt.Errorf("socket %d passed by systemd is no stream listener: take it out of the socket unit: %w", fd, err)
		}
		out = append(out, ln)
	}
	return out, nil
}
