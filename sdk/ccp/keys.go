package ccp

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
)

// Limits of the keys that a device has for transports.
const (
	// MaxTransportKeys is how many a device may have.
	MaxTransportKeys = 8
	// MaxTransportKey bounds a public key, in bytes.
	MaxTransportKey = 64
)

// TransportKey is the public half of a key that a device has for one transport.
// On the wire it is a member of an object:
//
//	"transport_keys": {"amnesiawg": "b64u, 1 to 64 bytes"}
type TransportKey struct {
	// Transport has 1 to 32 of a-z 0-9 and hyphen.
	Transport string
	// Public is the key, 1 to MaxTransportKey bytes.
	Public []byte
}

// Check returns an *Error of kind Field if a limit is broken.
func (k TransportKey) Check() error {
	switch {
	case !validTransport(k.Transport):
		return badField("transport_keys", "names a transport that is not 1 to 32 of a-z 0-9 -")
	case len(k.Public) == 0 || len(k.Public) > MaxTransportKey:
		return badField("transport_keys", "a key has not 1 to "+strconv.Itoa(MaxTransportKey)+" bytes")
	}
	return nil
}

// transportKeys reads an object of keys. A transport that comes twice is an error.
func (r *reader) transportKeys(name string) []TransportKey {
	v := r.object(name, defaulted)
	var out []TransportKey
	for transport, text := range v.Members() {
		b, isText := text.Bytes()
		size := base64.RawURLEncoding.DecodedLen(len(b))
		if !isText || size == 0 || size > MaxTransportKey {
			r.fail(name, "a key is not base64url of 1 to "+strconv.Itoa(MaxTransportKey)+" bytes")
			return nil
		}
		k := TransportKey{Transport: transport, Public: make([]byte, size)}
		if !decodeB64u(k.Public, b) {
			r.fail(name, "a key is not base64url")
		}
		r.note(k.Check())
		for _, other := range out {
			if other.Transport == transport {
				r.fail(name, "names a transport twice")
			}
		}
		if len(out) == MaxTransportKeys {
			r.fail(name, "more than "+strconv.Itoa(MaxTransportKeys))
		}
		if r.err != nil {
			return nil
		}
		out = append(out, k)
	}
	return out
}

func (w *writer) transportKeys(keys []TransportKey) {
	keys = slices.Clone(keys)
	slices.SortFunc(keys, func(a, b TransportKey) int { return strings.Compare(a.Transport, b.Transport) })
	w.open('{')
	for _, k := range keys {
		w.key(k.Transport).b64u(k.Public)
	}
	w.close('}')
}
