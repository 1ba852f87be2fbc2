package client

import (
	"context"
	"encoding/json"

	"github.com/commucat/commucat/sdk/ccp"
)

// request sends a control frame on the present connection and waits for the
// relay's Ack. Requests are not kept over reconnects: the caller repeats them.
func (c *Client) request(ctx context.Context, t ccp.Type, channel uint32, body any) (json.RawMessage, error) {
	payload, err := json.Marshal(body)
	if err != nil {
		return nil, invalid("the request cannot be written as JSON: %v", err)
	}
	if len(payload) > ccp.MaxControl {
		return nil, invalid("the request is larger than %d bytes", ccp.MaxControl)
	}
	s, err := c.connected(ctx)
	if err != nil {
		return nil, err
	}
	return s.call(ctx, t, channel, payload)
}

// Join declares who this device exchanges messages with on a channel; the
// relay keeps the declaration. members are device ids.
func (c *Client) Join(ctx context.Context, channel uint32, members ...string) error {
	if channel == 0 {
		return invalid("channel 0 is for named recipients and cannot be joined")
	}
	_, err := c.request(ctx, ccp.TypeJoin, channel, struct {
		Members []string `json:"members"`
		Relay   bool     `json:"relay"`
	}{members, true})
	return err
}

// JoinGroup opens a group's channel on this device.
func (c *Client) JoinGroup(ctx context.Context, channel uint32, group string) error {
	_, err := c.request(ctx, ccp.TypeJoin, channel, struct {
		Group string `json:"group_id"`
		Relay bool   `json:"relay"`
	}{group, true})
	return err
}

// Leave removes the channel from this device's table.
func (c *Client) Leave(ctx context.Context, channel uint32) error {
	_, err := c.request(ctx, ccp.TypeLeave, channel, struct{}{})
	return err
}

// CreateGroup makes a group with this device as its owner on channel; roles maps
// device ids to "admin" or "member". It returns the group's id.
func (c *Client) CreateGroup(ctx context.Context, channel uint32, group string, members []string, roles map[string]string) (string, error) {
	ack, err := c.request(ctx, ccp.TypeGroupCreate, channel, struct {
		Group   string            `json:"group_id,omitempty"`
		Members []string          `json:"members"`
		Roles   map[string]string `json:"roles,omitempty"`
		Relay   bool              `json:"relay"`
	}{group, members, roles, true})
	if err != nil {
		return "", err
	}
	var a struct {
		Group string `json:"group_id"`
	}
	if err := json.Unmarshal(ack, &a); err != nil {
		return "", broken("the relay's answer is malformed", err)
	}
	return a.Group, nil
}

// Invite adds a device to a group with the role "admin" or "member".
func (c *Client) Invite(ctx context.Context, channel uint32, group, device, role string) error {
	_, err := c.request(ctx, ccp.TypeGroupInvite, channel, struct {
		Group  string `json:"group_id"`
		Device string `json:"device"`
		Role   string `json:"role,omitempty"`
	}{group, device, role})
	return err
}

// SetPresence publishes a state; it is not acknowledged.
func (c *Client) SetPresence(state string) error {
	payload, err := json.Marshal(struct {
		State string `json:"state"`
	}{state})
	if err != nil {
		return err
	}
	s := c.current()
	if s == nil {
		return broken("not connected", nil)
	}
	return s.queue(pending{t: ccp.TypePresence, payload: payload})
}
