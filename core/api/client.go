package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Client speaks to a running relay's socket, for the operator's commands.
type Client struct {
	http *http.Client
	path string
}

// NewClient makes a client of the socket at path; it connects with each request.
func NewClient(path string) *Client {
	return &Client{path: path, http: &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			},
			DisableKeepAlives: true,
		},
	}}
}

// ErrNotYours: the socket cannot be opened by this user; it is an fs.ErrPermission.
var ErrNotYours error = notYours{}

type notYours struct{}

func (notYours) Error() string        { return "the admin socket is for the relay's own user and root" }
func (notYours) Is(target error) bool { return target == fs.ErrPermission }

// ErrNotRunning: nobody answers on the socket.
var ErrNotRunning = errors.New("no relay answers on the admin socket")

// maxReply bounds an answer in bytes.
const maxReply = 8 << 20

// Do sends in as JSON (nil: no body) and decodes the answer into out (nil: drop
// it). A refusal is a *Problem.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, body)
	if err != nil {
		return err
	}
	res, err := c.http.Do(r)
	if err != nil {
		return c.dialError(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxReply))
	if err != nil {
		return err
	}
	if res.StatusCode/100 != 2 {
		p := &Problem{Status: res.StatusCode, Title: res.Status}
		_ = json.Unmarshal(b, p) // what is no problem object keeps its status
		return p
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// dialError says what a socket that cannot be reached means.
func (c *Client) dialError(err error) error {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "dial" {
		return err
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %s", ErrNotYours, c.path)
	}
	return fmt.Errorf("%w %s (%w); start the relay, or name its data folder with --data", ErrNotRunning, c.path, bareError(op))
}

// CreateLink makes an invitation or gives an address link.
func (c *Client) CreateLink(ctx context.Context, in LinkRequest) (out Link, err error) {
	err = c.Do(ctx, "POST", "/v1/links", in, &out)
	return out, err
}

// Links lists invitations after the id given.
func (c *Client) Links(ctx context.Context, after string, limit int) (out Page[Link], err error) {
	err = c.Do(ctx, "GET", "/v1/links"+pageQuery(after, limit), nil, &out)
	return out, err
}

// RevokeLink ends an invitation.
func (c *Client) RevokeLink(ctx context.Context, id string) error {
	return c.Do(ctx, "DELETE", "/v1/links/"+url.PathEscape(id), nil, nil)
}

// Users lists accounts after the id given.
func (c *Client) Users(ctx context.Context, after string, limit int) (out Page[User], err error) {
	err = c.Do(ctx, "GET", "/v1/users"+pageQuery(after, limit), nil, &out)
	return out, err
}

// User gives an account, by id or handle, with its devices.
func (c *Client) User(ctx context.Context, name string) (out User, err error) {
	err = c.Do(ctx, "GET", "/v1/users/"+url.PathEscape(name), nil, &out)
	return out, err
}

// PairUser makes a pairing link for an account.
func (c *Client) PairUser(ctx context.Context, name string, ttl time.Duration) (out Link, err error) {
	err = c.Do(ctx, "POST", "/v1/users/"+url.PathEscape(name)+"/pair", LinkRequest{TTLSeconds: seconds(ttl)}, &out)
	return out, err
}

// RevokePairing ends a pairing link.
func (c *Client) RevokePairing(ctx context.Context, id string) error {
	return c.Do(ctx, "DELETE", "/v1/pairings/"+url.PathEscape(id), nil, nil)
}

// Device gives one device.
func (c *Client) Device(ctx context.Context, id string) (out Device, err error) {
	err = c.Do(ctx, "GET", "/v1/devices/"+url.PathEscape(id), nil, &out)
	return out, err
}

// RevokeDevice ends a device for ever.
func (c *Client) RevokeDevice(ctx context.Context, id string) error {
	return c.Do(ctx, "POST", "/v1/devices/"+url.PathEscape(id)+"/revoke", nil, nil)
}

// SetTransportKey lets a further key of a device in at a transport, beside the device's
// own, and answers where it is good. One that was set before is good no more.
func (c *Client) SetTransportKey(ctx context.Context, device, transport string, public []byte) (out TransportEndpoint, err error) {
	path := "/v1/devices/" + url.PathEscape(device) + "/keys/" + url.PathEscape(transport)
	err = c.Do(ctx, "POST", path, TransportKeyRequest{public}, &out)
	return out, err
}

// Keys describes the keys, RotateKeys makes a new Noise key first.
func (c *Client) Keys(ctx context.Context) (out json.RawMessage, err error) {
	err = c.Do(ctx, "GET", "/v1/keys", nil, &out)
	return out, err
}

// RotateKeys makes a new Noise key and describes the keys.
func (c *Client) RotateKeys(ctx context.Context) (out json.RawMessage, err error) {
	err = c.Do(ctx, "POST", "/v1/keys/rotate", nil, &out)
	return out, err
}

// Reload has the relay read its configuration again.
func (c *Client) Reload(ctx context.Context) error { return c.Do(ctx, "POST", "/v1/reload", nil, nil) }

// Plugins lists the plugin processes, UpgradePlugin runs what lies in the catalog now.
func (c *Client) Plugins(ctx context.Context) (out struct {
	Items []json.RawMessage `json:"items"`
}, err error) {
	err = c.Do(ctx, "GET", "/v1/plugins", nil, &out)
	return out, err
}

// UpgradePlugin has a plugin's process replaced by one of the file that lies there.
func (c *Client) UpgradePlugin(ctx context.Context, name string) error {
	return c.Do(ctx, "POST", "/v1/plugins/"+url.PathEscape(name)+"/upgrade", nil, nil)
}

// ProbeTransport asks a plugin transport whether a client would get through.
func (c *Client) ProbeTransport(ctx context.Context, name string) error {
	return c.Do(ctx, "POST", "/v1/transports/"+url.PathEscape(name)+"/probe", nil, nil)
}

// Status is the relay's own view of itself.
func (c *Client) Status(ctx context.Context) (out json.RawMessage, err error) {
	err = c.Do(ctx, "GET", "/v1/status", nil, &out)
	return out, err
}

func pageQuery(after string, limit int) string {
	q := url.Values{}
	if after != "" {
		q.Set("after", after)
	}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	if len(q) == 0 {
		return ""
	}
	return "?" + q.Encode()
}
