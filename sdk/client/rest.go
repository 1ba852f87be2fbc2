package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"

	"github.com/commucat/commucat/sdk/entry"
	"github.com/commucat/commucat/sdk/transport"
)

// maxReply bounds a REST answer.
const maxReply = 1 << 20

// Call makes one request to the relay's REST interface with the present session's
// token: in is sent as JSON unless nil, the answer is read into out unless nil.
// A refusal is an *Error of kind Refused with the relay's stable code. It needs
// an established session and a dialer that implements transport.Caller.
func (c *Client) Call(ctx context.Context, method, path string, in, out any) error {
	if _, err := c.Connected(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	bearer, profile := c.bearer, *c.profile
	c.mu.Unlock()
	if bearer == "" {
		return broken("the session has no token", nil)
	}
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return invalid("the request cannot be written as JSON: %v", err)
		}
	}
	trip, err := c.caller(ctx, &profile)
	if err != nil {
		return err
	}
	defer trip.Close()
	r := &http.Request{
		Method: method, URL: &url.URL{Path: path}, ContentLength: int64(len(body)),
		Header: http.Header{"Authorization": {"Bearer " + bearer}, "Accept": {"application/json"}},
	}
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	resp, err := trip.RoundTrip(r.WithContext(ctx))
	if err != nil {
		return broken("the request failed", err)
	}
	defer resp.Body.Close()
	return readReply(resp, out)
}

func readReply(resp *http.Response, out any) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err != nil {
		return broken("the answer could not be read", err)
	}
	if len(b) > maxReply {
		return broken("the answer is too large", nil)
	}
	if resp.StatusCode/100 != 2 {
		var p struct {
			Code   string `json:"code"`
			Title  string `json:"title"`
			Detail string `json:"detail"`
		}
		if json.Unmarshal(b, &p) != nil || p.Code == "" {
			return broken("the relay did not answer the request; the session may have ended", nil)
		}
		text := p.Detail
		if text == "" {
			text = p.Title
		}
		return &Error{Kind: Refused, Code: p.Code, Text: "the relay refused: " + printable(text)}
	}
	if out == nil || len(b) == 0 {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return broken("the answer is malformed", err)
	}
	return nil
}

// caller connects by the first endpoint that a dialer can make requests to.
func (c *Client) caller(ctx context.Context, p *Profile) (transport.RoundTripCloser, error) {
	with := transport.Dial{Insecure: p.Relay.Insecure, DialTCP: c.opt.DialTCP}
	for _, pin := range p.Relay.Pins {
		with.Pins = append(with.Pins, pin)
	}
	if e, ok := p.Relay.entry(c.serverTime()); ok {
		cred := entry.Credential{ID: [8]byte(e.ID), Key: [16]byte(e.Key)}
		with.Token = func(method, path, st string) string {
			return cred.Token(method, path, st, c.serverTime(), c.opt.Rand)
		}
	}
	var errs []error
	for _, d := range c.opt.Dialers {
		caller, ok := d.(transport.Caller)
		if !ok {
			continue
		}
		for _, e := range p.Relay.Endpoints {
			if e.Transport != d.Name() {
				continue
			}
			with := with
			if bare(e) {
				with.Token = nil
			}
			trip, err := caller.Call(ctx, e.transport(), with)
			if err == nil {
				return trip, nil
			}
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		return nil, invalid("this program can make no requests to the relay: link the http2 transport")
	}
	return nil, &Error{Kind: Unreachable, Text: "the relay cannot be reached", Err: errors.Join(errs...)}
}
