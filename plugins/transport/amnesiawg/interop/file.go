package interop

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// File is a configuration file as AmneziaWG's apps read it, turned into what
// amneziawg-go is told.
type File struct {
	// Address is ours inside the tunnel, Allowed where the tunnel leads.
	Address, Allowed netip.Prefix
	MTU              int
	// Endpoint is the peer's "host:port".
	Endpoint string
	// Private and Public are our private and the peer's public key, in hexadecimal.
	Private, Public string
	// Wire are the lines of the obfuscation parameters.
	Wire string
}

// ParseFile reads a configuration file as the apps do: by sections, names without
// regard to case.
func ParseFile(text string) (File, error) {
	var f File
	section := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if strings.HasPrefix(line, "[") {
			section = strings.ToLower(strings.Trim(line, "[]"))
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return f, fmt.Errorf("%q is no setting", line)
		}
		if err := f.set(section, strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)); err != nil {
			return f, fmt.Errorf("%s: %w", name, err)
		}
	}
	if f.Private == "" || f.Public == "" || f.Endpoint == "" || !f.Address.IsValid() || !f.Allowed.IsValid() {
		return f, errors.New("something is missing")
	}
	return f, nil
}

func (f *File) set(section, name, value string) (err error) {
	switch section + "." + name {
	case "interface.privatekey":
		f.Private, err = hexKey(value)
	case "interface.address":
		f.Address, err = netip.ParsePrefix(value)
	case "interface.mtu":
		_, err = fmt.Sscan(value, &f.MTU)
	case "interface.headerprotectionkey":
		var key string
		key, err = hexKey(value)
		f.Wire += "header_protection_key=" + key + "\n"
	case "interface.randomtrailers":
		f.Wire += "random_trailers=" + value + "\n"
	case "interface.contentpaddingaddition":
		f.Wire += "content_padding_addition=" + value + "\n"
	case "interface.jc", "interface.jmin", "interface.jmax", "interface.s1", "interface.s2", "interface.s3", "interface.s4",
		"interface.h1", "interface.h2", "interface.h3", "interface.h4",
		"interface.i1", "interface.i2", "interface.i3", "interface.i4", "interface.i5":
		f.Wire += name + "=" + value + "\n"
	case "peer.publickey":
		f.Public, err = hexKey(value)
	case "peer.allowedips":
		f.Allowed, err = netip.ParsePrefix(value)
	case "peer.endpoint":
		f.Endpoint = value
	case "peer.persistentkeepalive":
	default:
		return errors.New("the apps know no such setting")
	}
	return err
}

func hexKey(text string) (string, error) {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) != 32 {
		return "", errors.New("no key of 32 bytes")
	}
	return hex.EncodeToString(b), nil
}

// Client is what a device is told to be the client that the file describes.
func (f File) Client() string {
	return "private_key=" + f.Private + "\n" + f.Wire + "public_key=" + f.Public + "\nallowed_ip=" + f.Allowed.String() +
		"\nendpoint=" + f.Endpoint + "\npersistent_keepalive_interval=25\n"
}

// Server is what a device is told to be the other side of a client: private is its
// key, and the parameters are the file's.
func (f File) Server(private, client string, inside netip.Addr) string {
	return "private_key=" + private + "\nlisten_port=0\n" + f.Wire + "public_key=" + client + "\nallowed_ip=" + inside.String() + "/128\n"
}
