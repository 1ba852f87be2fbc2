package reality

import (
	"crypto/ecdh"
	"fmt"

	"github.com/commucat/commucat/sdk/transport"
)

// Parameters of an endpoint beside transport.ParamName, the server name in the hello.
// Short names keep links short.
const (
	// ParamPublicKey is the server's X25519 public key, base64 without padding.
	ParamPublicKey = "pbk"
	// ParamShortID are up to 16 hexadecimal digits.
	ParamShortID = "sid"
	// ParamFingerprint is one of Fingerprints.
	ParamFingerprint = "fp"
	// ParamVersion is the version to announce, "26.7.28" if absent.
	ParamVersion = "v"
)

// params are what a client must know of a server.
type params struct {
	public      *ecdh.PublicKey
	id          shortID
	name        string
	fingerprint string
	version     version
}

func parseParams(to transport.Endpoint, preferred string) (params, error) {
	p := params{name: to.Params[transport.ParamName], fingerprint: preferred, version: currentVersion}
	var err error
	if p.public, err = parsePublic(to.Params[ParamPublicKey]); err != nil {
		return p, fmt.Errorf("reality: the link's %s is %w", ParamPublicKey, err)
	}
	if p.id, err = parseShortID(to.Params[ParamShortID]); err != nil {
		return p, fmt.Errorf("reality: the link's %s: %w", ParamShortID, err)
	}
	if p.name == "" {
		p.name = to.Host
	}
	if !plainName(p.name) {
		return p, fmt.Errorf("reality: the link's %s %q is no host name", transport.ParamName, p.name)
	}
	if text := to.Params[ParamVersion]; text != "" {
		if p.version, err = parseVersion(text); err != nil {
			return p, fmt.Errorf("reality: the link's %s: %w", ParamVersion, err)
		}
	}
	if p.fingerprint == "" {
		p.fingerprint = to.Params[ParamFingerprint]
	}
	if p.fingerprint == "" {
		p.fingerprint = "chrome"
	}
	return p, nil
}

// endpoint is the inverse of parseParams.
func (p params) endpoint(host string, port uint16) transport.Endpoint {
	m := map[string]string{
		ParamPublicKey:      encodeKey(p.public.Bytes()),
		ParamShortID:        p.id.String(),
		transport.ParamName: p.name,
		ParamFingerprint:    p.fingerprint,
	}
	if p.version != currentVersion {
		m[ParamVersion] = p.version.String()
	}
	return transport.Endpoint{Transport: Name, Host: host, Port: port, Params: m}
}
