package masque

import (
	"errors"
	"net"
	"net/http"
	"net/netip"

	"github.com/dunglas/httpsfv"
)

// Error types of the Proxy-Status header (RFC 9209 section 2.3).
const (
	statusDNSTimeout = "dns_timeout"
	statusDNS        = "dns_error"
	statusProhibited = "destination_ip_prohibited"
	statusUnroutable = "destination_ip_unroutable"
	statusLimit      = "connection_limit_reached"
	statusRequest    = "http_request_error"
	statusDenied     = "http_request_denied"
)

var (
	errProtocol   = errors.New("this protocol is not offered")
	errTarget     = errors.New("this target is not offered")
	errProhibited = errors.New("the target's address is not public")
	errTemplate   = errors.New("the path names no target")
	errResolve    = errors.New("the target's name has no address")
	errUnroutable = errors.New("the target cannot be reached")
)

// proxyStatus is the value of a Proxy-Status header: who answers, and one parameter.
func proxyStatus(r *http.Request, params func(*httpsfv.Params)) string {
	host, _, err := authority(r.Host)
	if err != nil {
		host = "proxy"
	}
	item := httpsfv.NewItem(host)
	params(item.Params)
	text, err := httpsfv.Marshal(item)
	if err != nil { // a host that a structured field cannot hold
		return ""
	}
	return text
}

// refuse answers a guest's request that cannot be served.
func refuse(w http.ResponseWriter, r *http.Request, code int, kind string, err error) {
	w.Header().Set("Content-Length", "0")
	if text := proxyStatus(r, func(p *httpsfv.Params) {
		p.Add("error", httpsfv.Token(kind))
		p.Add("details", err.Error())
	}); text != "" {
		w.Header().Set("Proxy-Status", text)
	}
	w.WriteHeader(code)
}

// nextHop announces where a tunnel leads.
func nextHop(w http.ResponseWriter, r *http.Request, to netip.AddrPort) {
	if text := proxyStatus(r, func(p *httpsfv.Params) { p.Add("next-hop", to.String()) }); text != "" {
		w.Header().Set("Proxy-Status", text)
	}
}

// failure sorts the error of a dial (RFC 9209 sections 2.3.1, 2.3.2, 2.3.5 and 2.3.6). text
// is what the guest may read: the error itself names the relay's resolver and addresses.
func failure(err error) (code int, kind string, text error) {
	var dns *net.DNSError
	switch {
	case errors.Is(err, errProhibited):
		return http.StatusForbidden, statusProhibited, errProhibited
	case errors.As(err, &dns) && dns.IsTimeout:
		return http.StatusGatewayTimeout, statusDNSTimeout, errResolve
	case errors.As(err, &dns):
		return http.StatusBadGateway, statusDNS, errResolve
	}
	return http.StatusBadGateway, statusUnroutable, errUnroutable
}
