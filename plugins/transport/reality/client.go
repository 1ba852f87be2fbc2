package reality

import (
	"context"
	"crypto/ecdh"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	tls "github.com/refraction-networking/utls"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// handshakeTime bounds a dial whose context has no deadline.
const handshakeTime = 30 * time.Second

// dialer is the client half.
type dialer struct {
	now func() time.Time
	env sdk.Env
}

// dial opens a stream. transport.ErrRefused means that the cover answered: the key,
// the short id or this device's clock is wrong, or the relay has no cover it can use.
func (d *dialer) dial(ctx context.Context, to transport.Endpoint, with transport.Dial) (net.Conn, error) {
	p, err := parseParams(to, with.Fingerprint)
	if err != nil {
		return nil, err
	}
	if len(with.Key) == shortIDSize {
		p.id = shortID(with.Key)
	}
	prof, err := chooseProfile(p.fingerprint, p, d.now())
	if err != nil {
		return nil, err
	}
	dialTCP := with.DialTCP
	if dialTCP == nil {
		dialTCP = new(net.Dialer).DialContext
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	port := to.Port
	if port == 0 {
		port = 443
	}
	tcp, err := dialTCP(ctx, "tcp", net.JoinHostPort(to.Host, strconv.Itoa(int(port))))
	if err != nil {
		return nil, err
	}
	if k, ok := tcp.(keeper); ok {
		_ = k.SetKeepAliveConfig(prof.keepAlive())
	}
	sock := &socket{Conn: tcp}
	a := &attempt{params: p, profile: prof, roots: with.Roots, now: d.now()}
	conn, err := a.handshake(ctx, sock)
	if err != nil {
		_ = tcp.Close()
		return nil, err
	}
	if !a.proved {
		// What a browser does with this site; nothing of ours was sent.
		browse(conn, a, with.ServerTime)
		return nil, fmt.Errorf("reality: %s showed its site: the link's key or short id is wrong, was replaced or revoked (ask for a new link), or this device's clock is off: %w", p.name, transport.ErrRefused)
	}
	return &stream{tlsStream: conn, raw: tcp, facts: transport.Facts{Transport: Name, Remote: transport.AddrPort(tcp.RemoteAddr()), Context: context.Background()}}, nil
}

// attempt is one handshake of the client half.
type attempt struct {
	params
	profile profile
	roots   *x509.CertPool
	now     time.Time

	key    []byte
	proved bool
}

// errMiddle is neither the relay nor a cover that browsers trust. A cover without a public
// certificate (force = true) looks just like somebody in between.
var errMiddle = errors.New("answered with a certificate that browsers do not trust either: " +
	"if the relay's cover has no public certificate, the link is wrong, replaced or revoked, this device's clock is off, or the relay lets nobody in yet; otherwise somebody is in between")

func (a *attempt) handshake(ctx context.Context, sock *socket) (*tls.UConn, error) {
	spec, err := a.profile.hello()
	if err != nil {
		return nil, fmt.Errorf("reality: hello: %w", err)
	}
	conn := tls.UClient(sock, &tls.Config{
		ServerName:             a.name,
		InsecureSkipVerify:     true, // verify does it: there are two ways to be right
		VerifyPeerCertificate:  a.verify,
		SessionTicketsDisabled: true,
		// Browsers fill records from the first one on.
		DynamicRecordSizingDisabled: true,
	}, tls.HelloCustom)
	if err := conn.ApplyPreset(&spec); err != nil {
		return nil, fmt.Errorf("reality: hello: %w", err)
	}
	if a.profile.finish != nil {
		if err := a.profile.finish(conn); err != nil {
			return nil, fmt.Errorf("reality: hello: %w", err)
		}
	}
	if err := conn.BuildHandshakeState(); err != nil {
		return nil, fmt.Errorf("reality: hello: %w", err)
	}
	if err := a.seal(conn); err != nil {
		return nil, err
	}
	if err := conn.HandshakeContext(ctx); err != nil {
		if errors.Is(err, errMiddle) {
			return nil, fmt.Errorf("reality: %s %w", a.name, errMiddle)
		}
		return nil, fmt.Errorf("reality: handshake: %w", err)
	}
	return conn, nil
}

// seal puts the claim into the session id. The hello is made again from the fields when
// it is sent, so both forms are changed.
func (a *attempt) seal(conn *tls.UConn) error {
	hello := conn.HandshakeState.Hello
	if len(hello.Raw) < sessionOffset+sessionSize || hello.Raw[sessionOffset-1] != sessionSize {
		return fmt.Errorf("reality: the hello of %s has no session id", a.profile.name)
	}
	private := shareKey(conn.HandshakeState.State13.KeyShareKeys)
	if private == nil {
		return fmt.Errorf("reality: the hello of %s has no X25519 share", a.profile.name)
	}
	hello.SessionId = make([]byte, sessionSize)
	copy(hello.Raw[sessionOffset:], hello.SessionId)
	key, err := deriveKey(private, a.public, hello.Raw)
	if err != nil {
		return fmt.Errorf("reality: the link's key: %w", err)
	}
	session, err := sealClaim(key, hello.Raw, claim{version: a.version, time: a.now, id: a.id})
	if err != nil {
		return fmt.Errorf("reality: seal: %w", err)
	}
	a.key = key
	copy(hello.SessionId, session)
	copy(hello.Raw[sessionOffset:], session)
	return nil
}

// shareKey chooses as the server does: the classical share first.
func shareKey(keys *tls.KeySharePrivateKeys) *ecdh.PrivateKey {
	switch {
	case keys == nil:
		return nil
	case keys.Ecdhe != nil && keys.Ecdhe.Curve() == ecdh.X25519():
		return keys.Ecdhe
	}
	return keys.MlkemEcdhe
}

// verify accepts the relay by its proof and the cover by the web's roots. Anything
// else ends with the alert that a browser sends.
func (a *attempt) verify(raw [][]byte, _ [][]*x509.Certificate) error {
	if len(raw) == 0 {
		return errMiddle
	}
	leaf, err := x509.ParseCertificate(raw[0])
	if err != nil {
		return errMiddle
	}
	if proves(a.key, leaf) {
		a.proved = true
		return nil
	}
	rest := x509.NewCertPool()
	for _, b := range raw[1:] {
		if c, err := x509.ParseCertificate(b); err == nil {
			rest.AddCert(c)
		}
	}
	if _, err := leaf.Verify(x509.VerifyOptions{DNSName: a.name, Roots: a.roots, Intermediates: rest}); err != nil {
		return errMiddle
	}
	return nil
}
