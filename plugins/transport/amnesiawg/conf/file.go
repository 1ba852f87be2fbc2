package conf

import (
	"encoding/base64"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// keepAlive keeps a NAT's memory of the tunnel, in seconds. Our own client needs
// none: the session inside has its own.
const keepAlive = 25

// File writes the configuration file that AmneziaWG's apps and amneziawg-go accept,
// for an endpoint as Server.Invite and links have it. key is the device's private
// key; nil takes the first of the link's, which our own client leaves alone. The file
// is a secret, and for one device: WireGuard knows one place for each key.
//
// Only the relay is routed through the tunnel. Once it is up, a client whose carrier
// is "system" reaches the relay inside.
func File(to transport.Endpoint, key []byte) ([]byte, error) {
	e, err := Parse(to)
	if err != nil {
		return nil, err
	}
	private, err := e.Key(key, 0)
	if err != nil {
		return nil, err
	}
	public, err := PublicKey(private)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	line := func(name string, value any) { fmt.Fprintf(&b, "%s = %v\n", name, value) }
	b.WriteString("[Interface]\n")
	line("PrivateKey", base64.StdEncoding.EncodeToString(private[:]))
	line("Address", ClientAddr(e.Server, public).String()+"/128")
	line("MTU", max(e.MTU, DefaultMTU)) // systems take no IPv6 below; the relay's segments are shorter
	if w := e.Wire; !w.IsPlain() {
		if w.Junk.Count > 0 {
			line("Jc", w.Junk.Count)
			line("Jmin", w.Junk.Min)
			line("Jmax", w.Junk.Max)
		}
		for i, s := range w.Prefix {
			if i < 2 || s > 0 { // the first generation knows S1 and S2 alone
				line(fmt.Sprintf("S%d", i+1), s)
			}
		}
		for i, r := range w.Type {
			line(fmt.Sprintf("H%d", i+1), r)
		}
		for i := range w.Special {
			if w.Special[i].Len() > 0 {
				line(fmt.Sprintf("I%d", i+1), w.Special[i])
			}
		}
		if w.Protected() {
			line("HeaderProtectionKey", base64.StdEncoding.EncodeToString(w.Protection[:]))
		}
		if w.Trailers {
			line("RandomTrailers", "true")
		}
		if w.Padding.High > 0 {
			line("ContentPaddingAddition", w.Padding)
		}
	}
	b.WriteString("\n[Peer]\n")
	line("PublicKey", base64.StdEncoding.EncodeToString(e.Server[:]))
	line("AllowedIPs", ServerAddr(e.Server).String()+"/128")
	line("Endpoint", net.JoinHostPort(e.Host, strconv.Itoa(int(e.Ports[0]))))
	line("PersistentKeepalive", keepAlive)
	return []byte(b.String()), nil
}

// Key is the private key that a client uses: what the endpoint carries goes first,
// one of a link's keys by number, then the device's own.
func (e Endpoint) Key(own []byte, n int) ([32]byte, error) {
	switch {
	case e.Secret != nil:
		return LinkKey(*e.Secret, n)
	case len(own) == 32:
		return [32]byte(own), nil
	case len(own) > 0:
		return [32]byte{}, &sdk.Error{Kind: sdk.Invalid, Op: "key", Text: "the device's key for this transport has not 32 bytes"}
	}
	return [32]byte{}, &sdk.Error{Kind: sdk.Denied, Op: "key", Text: "there is none: neither the endpoint nor the device has a key for this transport; a link or a pairing gives one"}
}
