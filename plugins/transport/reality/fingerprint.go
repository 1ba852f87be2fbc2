package reality

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	tls "github.com/refraction-networking/utls"
)

// profile is a browser that is imitated.
type profile struct {
	name  string
	hello func() (tls.ClientHelloSpec, error)
	agent string
	// share is out of 100 for "rotate"; 0 is never chosen.
	share int
	// probes is after how long without traffic it sends TCP keep-alives; 0 is never.
	probes time.Duration
	// finish changes the connection before the hello is made; may be nil.
	finish func(*tls.UConn) error
}

const chromeProbes = 45 * time.Second

const chromeAgent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"

// keepAlive is the browser's. Go's own, every 15 s, would tell a client from it.
func (p profile) keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: p.probes > 0, Idle: p.probes, Interval: p.probes, Count: -1}
}

// profiles are those whose hello can carry the sealed session id: 32 bytes of it, TLS
// 1.3 and an X25519 share. Each is named outright: with this protocol a hello is a
// security parameter, which no upgrade of a module may change silently. Those of old
// browsers, which update themselves, can only be chosen by name: "rotate" leaves them out.
func profiles() []profile {
	named := func(id tls.ClientHelloID) func() (tls.ClientHelloSpec, error) {
		return func() (tls.ClientHelloSpec, error) { return tls.UTLSIdToSpec(id) }
	}
	return []profile{
		{"chrome", chromeSpec, chromeAgent, 80, chromeProbes, nil},
		{"firefox", firefoxSpec, "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:153.0) Gecko/20100101 Firefox/153.0", 20, 0, oneShare},
		{"safari", named(tls.HelloSafari_16_0), "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/16.0 Safari/605.1.15", 0, 0, nil},
		{"edge", named(tls.HelloChrome_133), "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/133.0.0.0 Safari/537.36 Edg/133.0.0.0", 0, chromeProbes, nil},
		{"ios", named(tls.HelloIOS_14), "Mozilla/5.0 (iPhone; CPU iPhone OS 14_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/14.0 Mobile/15E148 Safari/604.1", 0, 0, nil},
	}
}

// rotate is the name of the changing choice, rotation how long one choice holds. A
// person does not change browsers with every connection.
const (
	rotate   = "rotate"
	rotation = 7 * 24 * time.Hour
)

// Fingerprints are the names that a link or a device may choose, "rotate" last.
func Fingerprints() []string {
	var names []string
	for _, p := range profiles() {
		names = append(names, p.name)
	}
	return append(names, rotate)
}

// chooseProfile finds a profile by name. For "rotate" it depends on the server, the short id
// and the week, so that one device looks the same for a while and devices with
// short ids of their own do not change all at once.
func chooseProfile(name string, p params, now time.Time) (profile, error) {
	all := profiles()
	if name != rotate {
		if i := slices.IndexFunc(all, func(q profile) bool { return q.name == name }); i >= 0 {
			return all[i], nil
		}
		return profile{}, fmt.Errorf("reality: fingerprint %q is not one of %s", name, strings.Join(Fingerprints(), ", "))
	}
	h := sha256.New()
	h.Write(p.public.Bytes())
	h.Write(p.id[:])
	offset := int64(binary.BigEndian.Uint64(h.Sum(nil)) % uint64(rotation/time.Second))
	week := (now.Unix() + offset) / int64(rotation/time.Second)
	_ = binary.Write(h, binary.BigEndian, week)
	point := int(binary.BigEndian.Uint64(h.Sum(nil)) % 100)
	for _, q := range all {
		if point -= q.share; point < 0 {
			return q, nil
		}
	}
	return all[0], nil
}
