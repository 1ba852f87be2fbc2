package main

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/commucat/commucat/sdk/client"
	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/http2"
)

// isBareURL says that s is https://HOST[:PORT][/PATH] without a link in it.
func isBareURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme == "https" && u.Host != "" && u.Fragment == ""
}

// discover asks a relay about itself (compat.public_api) and makes an address link
// of the answer, trusted on first use.
func (a *app) discover(ctx context.Context, server string, insecure bool) (l link.Link, err error) {
	u, err := url.Parse(server)
	if err != nil {
		return l, usageError{err}
	}
	port := uint64(443)
	if p := u.Port(); p != "" {
		if port, err = strconv.ParseUint(p, 10, 16); err != nil {
			return l, usageError{fmt.Errorf("--server: %q is no port", p)}
		}
	}
	path := u.Path
	if path == "" || path == "/" {
		path = connectPath
	}
	to := transport.Endpoint{Transport: http2.Name, Host: u.Hostname(), Port: uint16(port), Params: map[string]string{transport.ParamPath: path}}
	trip, err := http2.NewDialer().(transport.Caller).Call(ctx, to, transport.Dial{Insecure: insecure})
	if err != nil {
		return l, &client.Error{Kind: client.Unreachable, Text: server + " cannot be reached", Err: err}
	}
	defer trip.Close()
	r := (&http.Request{Method: "GET", URL: &url.URL{Path: "/api/server-info"}, Header: http.Header{}}).WithContext(ctx)
	resp, err := trip.RoundTrip(r)
	if err != nil {
		return l, &client.Error{Kind: client.Unreachable, Text: server + " does not answer", Err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return l, err
	}
	return discovered(b, to, path)
}

func discovered(b []byte, to transport.Endpoint, path string) (l link.Link, err error) {
	var info struct {
		Domain    string          `json:"domain"`
		Noise     string          `json:"noise_public"`
		Root      string          `json:"root_public"`
		Catalogue json.RawMessage `json:"catalogue"`
	}
	if json.Unmarshal(b, &info) != nil || info.Domain == "" {
		return l, &client.Error{Kind: client.Refused, Text: "the server says nothing about itself to strangers: ask its operator for a link"}
	}
	key, err := hex.DecodeString(strings.TrimSpace(info.Noise))
	if err != nil || len(key) != 32 {
		return l, errors.New("the relay's answer has no Noise key")
	}
	l = link.Link{
		Kind: link.Address, NoisePublic: [32]byte(key), Domain: info.Domain,
		Endpoints: []link.Endpoint{{Transport: to.Transport, Host: to.Host, Port: to.Port, Params: "path=" + url.QueryEscape(path)}},
	}
	root, err := hex.DecodeString(info.Root)
	if err != nil {
		return l, fmt.Errorf("the relay's root key: %w", err)
	}
	if len(root) != 32 || len(info.Catalogue) == 0 {
		return l, nil
	}
	signed, err := link.ParseSigned(info.Catalogue)
	if err != nil {
		return l, err
	}
	cat, err := link.OpenCatalogue(signed, ed25519.PublicKey(root))
	if err != nil {
		return l, err
	}
	l.Root, l.Capabilities = [32]byte(root), uint64(cat.Promises())
	newest := cat.Newest()
	l.NoisePublic, l.NoiseVersion = newest.Public, newest.Version
	return l, nil
}
