package amnesiawg

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/conf"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ccp"
)

// Config is the configuration of both halves; the keys of one half mean nothing to
// the other.
type Config struct {
	// Server half.
	Listen     []string        `cfg:"listen" default:":0" min:"1" max:"16" doc:"UDP addresses, all with the same parameters; clients change between them. Port 0 is drawn once and kept"`
	Generation obfs.Generation `cfg:"generation" default:"2.0" enum:"1.0,1.5,2.0,3.0" doc:"what parameters are drawn for: 2.0 suits current AmneziaWG apps, 1.0 the oldest; our own client knows all"`
	Parameters Parameters      `cfg:"parameters" doc:"obfuscation parameters in AmneziaWG's names; what is not set is drawn once and kept"`
	More       []Listener      `cfg:"more" max:"8" doc:"further listeners with parameters of their own, for example old ones while links change"`
	Padding    obfs.Range      `cfg:"padding" doc:"zero bytes that short packets get inside the encryption, a number or a range up to 512; clients do as the relay does"`
	MTU        int             `cfg:"mtu" default:"1280" min:"1000" max:"1420" doc:"largest packet inside the tunnel; paths must carry 80 bytes and S4 more"`
	Guests     int             `cfg:"guests" default:"20000" min:"1" max:"1000000" doc:"registered devices and links at once"`
	Active     int             `cfg:"active" default:"4096" min:"1" max:"60000" doc:"devices with a session at once; each takes about 50 KiB"`
	Streams    int             `cfg:"streams" default:"64" min:"1" max:"100000" doc:"streams of one device at once"`
	Idle       time.Duration   `cfg:"idle" default:"5m" min:"3m" max:"24h" doc:"how long a device without streams keeps its session"`

	// Client half.
	Carrier string        `cfg:"carrier" default:"own" enum:"own,system" doc:"client: own builds the tunnel itself; system uses one that AmneziaWG's app has built"`
	Silence time.Duration `cfg:"silence" default:"60s" min:"8s" max:"1h" doc:"client: how long the relay may be silent, although it was spoken to, before streams end; less costs battery"`
	Hop     time.Duration `cfg:"hop" default:"0s" max:"24h" doc:"client: how often the UDP port changes where a relay has several; 0 keeps it for a connection's life"`
}

// Listener is a further listener of the server half.
type Listener struct {
	Name       string          `cfg:"name" required:"true" max:"32" doc:"its name in the state folder"`
	Listen     []string        `cfg:"listen" default:":0" min:"1" max:"16" doc:"UDP addresses, as above"`
	Offered    bool            `cfg:"offered" default:"true" doc:"whether new links and devices get it; false keeps old ones going"`
	Generation obfs.Generation `cfg:"generation" default:"2.0" enum:"1.0,1.5,2.0,3.0" doc:"what parameters are drawn for"`
	Parameters Parameters      `cfg:"parameters" doc:"obfuscation parameters, as above"`
}

// Parameters override what is drawn. Numbers below zero and empty texts are not set.
type Parameters struct {
	Jc   int        `cfg:"jc" default:"-1" min:"-1" doc:"junk datagrams before each handshake"`
	Jmin int        `cfg:"jmin" default:"-1" min:"-1" doc:"their least size"`
	Jmax int        `cfg:"jmax" default:"-1" min:"-1" doc:"their largest size"`
	S1   int        `cfg:"s1" default:"-1" min:"-1" doc:"random bytes before an initiation"`
	S2   int        `cfg:"s2" default:"-1" min:"-1" doc:"random bytes before a response"`
	S3   int        `cfg:"s3" default:"-1" min:"-1" doc:"random bytes before a cookie reply"`
	S4   int        `cfg:"s4" default:"-1" min:"-1" doc:"random bytes before data"`
	H1   obfs.Range `cfg:"h1" doc:"type word of initiations, a number or a range"`
	H2   obfs.Range `cfg:"h2" doc:"type word of responses"`
	H3   obfs.Range `cfg:"h3" doc:"type word of cookie replies"`
	H4   obfs.Range `cfg:"h4" doc:"type word of data"`

	I1 obfs.Template `cfg:"i1" doc:"special packet that goes before, made of the tags <b 0xHEX>, <r N>, <rc N>, <rd N>, <t>"`
	I2 obfs.Template `cfg:"i2" doc:"second special packet"`
	I3 obfs.Template `cfg:"i3" doc:"third special packet"`
	I4 obfs.Template `cfg:"i4" doc:"fourth special packet"`
	I5 obfs.Template `cfg:"i5" doc:"fifth special packet"`

	Protection sdk.Secret `cfg:"header_protection_key" doc:"key of header protection (generation 3), 32 bytes in base64"`
	Trailers   bool       `cfg:"random_trailers" doc:"whether handshake messages end in random bytes (generation 3.1)"`
}

// mainListener is the name of the listener that the outer keys describe.
const mainListener = "main"

// listeners are all of them, in order.
func (c *Config) listeners() []Listener {
	first := Listener{Name: mainListener, Listen: c.Listen, Offered: true, Generation: c.Generation, Parameters: c.Parameters}
	return append([]Listener{first}, c.More...)
}

// Check implements sdk.Checker.
func (c *Config) Check() error {
	var errs sdk.ConfigErrors
	fail := func(key, format string, args ...any) {
		errs = append(errs, &sdk.ConfigError{Key: key, Text: fmt.Sprintf(format, args...)})
	}
	names := map[string]bool{}
	for i, l := range c.listeners() {
		at := ""
		if i > 0 {
			at = fmt.Sprintf("more[%d].", i-1)
		}
		if l.Name == "" || names[l.Name] {
			fail(at+"name", "%q is empty or stands for another listener already", l.Name)
		}
		names[l.Name] = true
		for j, a := range l.Listen {
			if err := checkAddress(a); err != nil {
				fail(fmt.Sprintf("%slisten[%d]", at, j), "%v", err)
			}
		}
		wire, err := l.Parameters.apply(obfs.Draw, l.Generation, c.Padding)
		var mistakes sdk.ConfigErrors
		if errors.As(err, &mistakes) {
			for _, m := range mistakes {
				key := at + "parameters." + m.Key
				if m.Key == "padding" {
					key = m.Key
				}
				fail(key, "%s", m.Text)
			}
			continue
		}
		if wire.IsPlain() {
			fail(at+"parameters", "these are plain WireGuard's, which every network can see")
		}
		longest := conf.Endpoint{Host: "h", Ports: make([]uint16, len(l.Listen)), Wire: wire, Secret: new([32]byte), MTU: c.MTU}
		for j := range longest.Ports {
			longest.Ports[j] = 65535
		}
		if n := longest.Size(); n > ccp.MaxParams {
			fail(at+"parameters.i1", "a link would carry %d bytes for this transport, at most %d fit: shorten the special packets, or have fewer ports", n, ccp.MaxParams)
		}
	}
	if len(errs) > 0 {
		return errs
	}
	return nil
}

func checkAddress(a string) error {
	host, port, err := net.SplitHostPort(a)
	if err != nil {
		return errors.New("write it as address:port or :port")
	}
	if host != "" {
		if _, err := netip.ParseAddr(host); err != nil {
			return errors.New("the address must be an IP address, or empty for all")
		}
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return errors.New("the port must be a number from 0 to 65535")
	}
	return nil
}

// tries is how often parameters are drawn until they suit those that are set.
const tries = 200

// apply gives what is set and, for the rest, what drawn gives. The error is an
// sdk.ConfigErrors.
func (p Parameters) apply(drawn func(obfs.Generation) *obfs.Params, g obfs.Generation, padding obfs.Range) (*obfs.Params, error) {
	var err error
	for range tries {
		w := *drawn(g)
		w.Padding = padding
		if err = p.set(&w); err != nil {
			return nil, err
		}
		if err = w.Check(); err == nil {
			return &w, nil
		}
	}
	return nil, err
}

func (p Parameters) set(w *obfs.Params) error {
	for _, n := range []struct {
		from int
		to   *int
	}{
		{p.Jc, &w.Junk.Count}, {p.Jmin, &w.Junk.Min}, {p.Jmax, &w.Junk.Max},
		{p.S1, &w.Prefix[0]}, {p.S2, &w.Prefix[1]}, {p.S3, &w.Prefix[2]}, {p.S4, &w.Prefix[3]},
	} {
		if n.from >= 0 {
			*n.to = n.from
		}
	}
	// Who sets one of the two has the other one suit it.
	switch j := &w.Junk; {
	case j.Min < j.Max:
	case p.Jmin < 0:
		j.Min = j.Max / 2
	case p.Jmax < 0:
		j.Max = min(j.Min+500, obfs.MaxDatagram)
	}
	for i, r := range []obfs.Range{p.H1, p.H2, p.H3, p.H4} {
		if r != (obfs.Range{}) {
			w.Type[i] = r
		}
	}
	w.Special = obfs.Specials{p.I1, p.I2, p.I3, p.I4, p.I5}
	w.Trailers = p.Trailers
	if p.Protection.IsZero() {
		return nil
	}
	key, err := decodeKey(p.Protection.Text())
	if err != nil {
		return sdk.ConfigErrors{{Key: "header_protection_key", Text: "must be 32 bytes in base64"}}
	}
	w.Protection = key
	return nil
}
