package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Path is the name of a file or folder. After Load it is absolute, or as given
// when there was no file to start from; "" is not set. "credential:NAME" becomes
// a path in systemd's credentials folder.
type Path string

// UnmarshalText takes any text without a zero byte.
func (p *Path) UnmarshalText(b []byte) error {
	if strings.ContainsRune(string(b), 0) {
		return errors.New("a path cannot contain a zero byte")
	}
	*p = Path(b)
	return nil
}

// MarshalText is the path.
func (p Path) MarshalText() ([]byte, error) { return []byte(p), nil }

// ConfigType names the type in reference pages.
func (Path) ConfigType() string { return "path" }

// Address is "host:port"; the host may be empty (every address) and the port 0
// (any free one).
type Address string

// UnmarshalText checks the form; names are not looked up.
func (a *Address) UnmarshalText(b []byte) error {
	if len(b) > 0 {
		if _, _, err := splitAddress(string(b)); err != nil {
			return err
		}
	}
	*a = Address(b)
	return nil
}

// MarshalText is the address.
func (a Address) MarshalText() ([]byte, error) { return []byte(a), nil }

// ConfigType names the type in reference pages.
func (Address) ConfigType() string { return "address" }

// Port is the number after the colon.
func (a Address) Port() uint16 {
	_, port, _ := splitAddress(string(a))
	return port
}

// Host is what stands before the colon, without brackets.
func (a Address) Host() string {
	host, _, _ := splitAddress(string(a))
	return host
}

func splitAddress(s string) (string, uint16, error) {
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not an address; write it as \"host:port\" or \":port\"", s)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("%q: the port must be a number from 0 to 65535", s)
	}
	if host != "" && !validDomain(host) {
		if _, err := netip.ParseAddr(host); err != nil {
			return "", 0, fmt.Errorf("%q: the host is neither a name nor an IP address", s)
		}
	}
	return host, uint16(port), nil
}

// Domain is a host name: labels of letters, digits and hyphens, 253 bytes at most.
type Domain string

// UnmarshalText checks the name and lowers its letters.
func (d *Domain) UnmarshalText(b []byte) error {
	s := strings.ToLower(string(b))
	if !validDomain(s) {
		return fmt.Errorf("%q is not a host name", b)
	}
	*d = Domain(s)
	return nil
}

// MarshalText is the name.
func (d Domain) MarshalText() ([]byte, error) { return []byte(d), nil }

// ConfigType names the type in reference pages.
func (Domain) ConfigType() string { return "host name" }

func validDomain(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i] | 0x20
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && label[i] != '-' {
				return false
			}
		}
	}
	return true
}

// URL is an absolute http or https address without user, query and fragment.
type URL string

// UnmarshalText checks the form; "" is not set.
func (u *URL) UnmarshalText(b []byte) error {
	if len(b) > 0 {
		p, err := url.Parse(string(b))
		switch {
		case err != nil || p.Host == "" || (p.Scheme != "http" && p.Scheme != "https"):
			return fmt.Errorf("%q is not a URL; write it as \"https://example.org\"", b)
		case p.User != nil || p.RawQuery != "" || p.Fragment != "":
			return errors.New("must not carry a user, a query or a fragment")
		}
	}
	*u = URL(b)
	return nil
}

// MarshalText is the URL.
func (u URL) MarshalText() ([]byte, error) { return []byte(u), nil }

// ConfigType names the type in reference pages.
func (URL) ConfigType() string { return "URL" }

// URLPath is an absolute path of a URL: "/" and letters, digits, - _ . ~ /.
type URLPath string

// UnmarshalText checks the form; "" is not set.
func (p *URLPath) UnmarshalText(b []byte) error {
	s := string(b)
	if s != "" && (s[0] != '/' || len(s) < 2 || len(s) > 128 || strings.Contains(s, "//") || strings.Contains(s, "/.")) {
		return fmt.Errorf("%q is not a path such as \"/assets/9f3c61d2\"", s)
	}
	for i := range len(s) {
		c := s[i] | 0x20
		if (c < 'a' || c > 'z') && (s[i] < '0' || s[i] > '9') && !strings.ContainsRune("/-_.~", rune(s[i])) {
			return fmt.Errorf("%q: only letters, digits and / - _ . ~ are allowed", s)
		}
	}
	*p = URLPath(s)
	return nil
}

// MarshalText is the path.
func (p URLPath) MarshalText() ([]byte, error) { return []byte(p), nil }

// ConfigType names the type in reference pages.
func (URLPath) ConfigType() string { return "URL path" }
