// Package syslog is the ledger that sends the audit chain to a syslog collector: one
// RFC 5424 message a record, over TLS as RFC 5425 frames it. It keeps nothing itself;
// a relay has a ledger that does beside it.
//
// Syslog has no acknowledgement, so a connection that dies takes what was on its way.
// The newest records are therefore sent again on a new connection; a collector
// recognises repetitions by the record's number and hash, which stand in the
// structured data of every message.
package syslog

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
)

// Config is the ledger's configuration, [ledger.syslog].
type Config struct {
	Address  string        `cfg:"address" required:"true" max:"300" doc:"collector, host:port; the port of syslog over TLS is 6514"`
	Name     string        `cfg:"server_name" max:"253" doc:"name in the collector's certificate, if it is not the host"`
	Roots    sdk.File      `cfg:"ca" doc:"certificates that may sign the collector's, PEM; when empty the system's"`
	Cert     sdk.File      `cfg:"cert" doc:"this relay's certificate for the collector, PEM"`
	Key      sdk.Secret    `cfg:"key" doc:"key of that certificate, PEM"`
	Hostname string        `cfg:"hostname" default:"-" min:"1" max:"255" doc:"name of this machine in the messages; - leaves it out"`
	App      string        `cfg:"app" default:"commucat" min:"1" max:"48" doc:"name of the program in the messages"`
	Facility string        `cfg:"facility" default:"authpriv" enum:"auth,authpriv,daemon,local0,local1,local2,local3,local4,local5,local6,local7" doc:"facility of the messages"`
	Timeout  time.Duration `cfg:"timeout" default:"10s" min:"1s" max:"2m" doc:"how long connecting and sending may take"`
}

// Check implements sdk.Checker.
func (c *Config) Check() error {
	if host, _, err := net.SplitHostPort(c.Address); err != nil || host == "" {
		return &sdk.ConfigError{Key: "address", Text: "write it as \"host:port\""}
	}
	for key, v := range map[string]string{"hostname": c.Hostname, "app": c.App} {
		if strings.ContainsFunc(v, func(r rune) bool { return r < 33 || r > 126 }) {
			return &sdk.ConfigError{Key: key, Text: "only printable ASCII without spaces is allowed"}
		}
	}
	if c.Cert.IsZero() != c.Key.IsZero() {
		return &sdk.ConfigError{Key: "cert", Text: "cert and key belong together"}
	}
	_, err := c.tls()
	return err
}

// tls is the client side of the connection.
func (c *Config) tls() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.Name}
	if t.ServerName == "" {
		t.ServerName, _, _ = net.SplitHostPort(c.Address)
	}
	if !c.Roots.IsZero() {
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(c.Roots.Bytes()) {
			return nil, &sdk.ConfigError{Key: "ca", Text: "there is no certificate in the file"}
		}
	}
	if !c.Cert.IsZero() {
		pair, err := tls.X509KeyPair(c.Cert.Bytes(), c.Key.Bytes())
		if err != nil {
			return nil, &sdk.ConfigError{Key: "cert", Text: "certificate and key do not work: " + strings.TrimPrefix(err.Error(), "tls: ")}
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// Plugin is the syslog ledger.
var Plugin = ledger.Define(ledger.Descriptor{
	Name: "syslog", Version: "1.0.0", Summary: "sends every record to a collector, RFC 5424 over TLS", Forgets: true,
}, open)

// open does not connect: a collector that is down must not keep a relay from
// starting; the core keeps the records until it is back.
func open(_ context.Context, env sdk.Env, c Config) (ledger.Ledger, error) {
	t, err := c.tls()
	if err != nil {
		return nil, err
	}
	return &collector{
		form:   form{priority: facilities[c.Facility]*8 + severityNotice, host: c.Hostname, app: c.App},
		dialer: &tls.Dialer{NetDialer: &net.Dialer{Timeout: c.Timeout, KeepAliveConfig: net.KeepAliveConfig{Enable: true}}, Config: t},
		addr:   c.Address, timeout: c.Timeout, env: env,
	}, nil
}
