package ccp

import (
	"math"
	"net/url"
	"strconv"
)

// Reasons of a Move.
const (
	MoveDrain   = "drain"
	MoveBlocked = "blocked"
	MoveUpgrade = "upgrade"
)

// Limits of endpoints, in bytes unless they are numbers.
const (
	MaxEndpoints = 8
	MaxTransport = 32
	MaxHost      = 253
	MaxParams    = 512
)

// Move asks the client to dial elsewhere and resume (protocol-extensions.md
// section 5).
type Move struct {
	// Reason is one of the Move constants; others may come later.
	Reason string
	// WithinMS is how long this connection will still serve, milliseconds.
	WithinMS uint32
	// Endpoints are where to go, at most MaxEndpoints; empty means any that is
	// known.
	Endpoints []Endpoint
}

// Endpoint is an address of a relay by one transport, as links and Move carry
// it.
type Endpoint struct {
	// Transport has 1 to 32 of a-z 0-9 and hyphen.
	Transport string
	// Host is a name or an address (IPv6 without brackets), 1 to 253 printable
	// ASCII characters.
	Host string
	Port uint16
	// Params are the transport's own, as URL query text of at most 512 bytes.
	Params string
}

// Check returns an *Error of kind Field if a limit is broken.
func (e Endpoint) Check() error {
	switch {
	case !validTransport(e.Transport):
		return badField("transport", "not 1 to 32 of a-z 0-9 -")
	case !validHost(e.Host):
		return badField("host", "not 1 to 253 characters of a name or address")
	case e.Port == 0:
		return badField("port", "zero")
	case len(e.Params) > MaxParams:
		return badField("params", "longer than 512 bytes")
	}
	for i := range len(e.Params) {
		if c := e.Params[i]; c <= ' ' || c > '~' {
			return badField("params", "not printable ASCII")
		}
	}
	if _, err := url.ParseQuery(e.Params); err != nil {
		return badField("params", "not URL query text")
	}
	return nil
}

func validTransport(name string) bool { return len(name) <= MaxTransport && validCapability(name) }

// validHost allows what names, IPv4 and IPv6 addresses with zones consist of.
func validHost(host string) bool {
	for i := range len(host) {
		c := host[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && !isDigit(c) && c != '-' && c != '_' && c != '.' && c != ':' && c != '%' {
			return false
		}
	}
	return len(host) >= 1 && len(host) <= MaxHost
}

// Values reads Params; of a key that comes several times the first value counts.
func (e Endpoint) Values() map[string]string {
	query, err := url.ParseQuery(e.Params)
	if err != nil {
		return nil
	}
	values := make(map[string]string, len(query))
	for k, v := range query {
		values[k] = v[0]
	}
	return values
}

// ParamsOf writes values as Params, keys sorted.
func ParamsOf(values map[string]string) string {
	query := make(url.Values, len(values))
	for k, v := range values {
		query.Set(k, v)
	}
	return query.Encode()
}

// ParseMove reads a Move payload.
func ParseMove(b []byte) (Move, error) {
	r, err := readObject(b, "", MaxControl, "endpoints", "reason", "within_ms")
	if err != nil {
		return Move{}, err
	}
	m := Move{Reason: r.text("reason", required), WithinMS: uint32(r.uint("within_ms", defaulted, math.MaxUint32))}
	m.Endpoints = r.endpoints("endpoints")
	if r.err != nil {
		return Move{}, r.err
	}
	return m, nil
}

// endpoints reads a list of at most MaxEndpoints.
func (r *reader) endpoints(name string) []Endpoint {
	list, ok := r.value(name, defaulted)
	if ok && !list.IsArray() {
		r.fail(name, "not an array")
	}
	var out []Endpoint
	for v := range list.Elements() {
		n, err := pick(v, r.full(name), "host", "params", "port", "transport")
		r.note(err)
		e := Endpoint{
			Transport: n.text("transport", required),
			Host:      n.text("host", required),
			Port:      uint16(n.uint("port", required, math.MaxUint16)),
			Params:    n.text("params", defaulted),
		}
		r.note(n.err)
		r.note(e.Check())
		if len(out) == MaxEndpoints {
			r.fail(name, "more than "+strconv.Itoa(MaxEndpoints))
		}
		if r.err != nil {
			return nil
		}
		out = append(out, e)
	}
	return out
}

// Marshal writes the payload, keys sorted.
func (m Move) Marshal() []byte {
	w := writer{}
	w.open('{')
	w.key("endpoints").endpoints(m.Endpoints)
	w.key("reason").text(m.Reason)
	w.key("within_ms").uint(uint64(m.WithinMS))
	return w.close('}')
}

func (w *writer) endpoints(list []Endpoint) {
	w.open('[')
	for _, e := range list {
		w.elem().open('{')
		w.key("host").text(e.Host)
		w.optText("params", e.Params)
		w.key("port").uint(uint64(e.Port))
		w.key("transport").text(e.Transport)
		w.close('}')
	}
	w.close(']')
}
