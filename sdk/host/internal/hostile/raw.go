//go:build linux

package main

import (
	"context"
	"strings"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
)

// documents that are answered in place of a true one.
var documents = map[string]string{
	"future":  `{"plugins":[{"kind":"transport","name":"hostile","version":"1","summary":"","protocols":[1000],"transport":{}}]}`,
	"liar":    `{"plugins":[{"kind":"transport","name":"../hostile","version":"1","summary":"","protocols":[1],"transport":{}}]}`,
	"garbage": `]` + strings.Repeat("\x00", 1000),
	"huge":    strings.Repeat(" ", 5<<20),
	"deaf":    `{"plugins":[{"kind":"ledger","name":"hostile","version":"1","summary":"","protocols":[1],"ledger":{}}]}`,
}

// control is a control service that does as the mode says.
type control struct {
	wirepb.UnimplementedControlServer
	mode string
}

func (c *control) Describe(context.Context, *wirepb.DescribeRequest) (*wirepb.DescribeReply, error) {
	return &wirepb.DescribeReply{Document: []byte(documents[c.mode])}, nil
}

func (c *control) Events(_ *wirepb.EventsRequest, out grpc.ServerStreamingServer[wirepb.Event]) error {
	select {}
}

// Drain, and everything else, never answers.
func (c *control) Drain(context.Context, *wirepb.DrainRequest) (*wirepb.DrainReply, error) {
	select {}
}

func (c *control) Ping(context.Context, *wirepb.PingRequest) (*wirepb.PingReply, error) {
	select {}
}

func (c *control) Open(context.Context, *wirepb.OpenRequest) (*wirepb.OpenReply, error) {
	return &wirepb.OpenReply{}, nil
}

func (c *control) Close(context.Context, *wirepb.Instance) (*wirepb.Done, error) {
	select {}
}

type service struct {
	goplugin.NetRPCUnsupportedPlugin
	mode string
}

func (s *service) GRPCServer(_ *goplugin.GRPCBroker, g *grpc.Server) error {
	wirepb.RegisterControlServer(g, &control{mode: s.mode})
	return nil
}

func (s *service) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, nil
}

func serveRaw(mode string) {
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{MagicCookieKey: wire.CookieKey, MagicCookieValue: wire.CookieValue},
		VersionedPlugins: map[int]goplugin.PluginSet{wire.Base: {wire.Service: &service{mode: mode}}},
		GRPCServer:       goplugin.DefaultGRPCServer,
	})
}
