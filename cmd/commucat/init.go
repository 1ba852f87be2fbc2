package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/commucat/commucat/core/config"
	"github.com/commucat/commucat/core/server"
)

func (a *app) initCommand() *cobra.Command {
	var domain, data string
	c := &cobra.Command{
		Use:   "init --domain NAME [--data DIR]",
		Short: "Prepare a relay: configuration, keys, unit file, first invitation",
		Args:  exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if domain == "" {
				return usageError{errors.New("under which name will clients reach the relay? Give it with --domain")}
			}
			if data == "" {
				var err error
				if data, err = server.DefaultData(os.Getenv); err != nil {
					return err
				}
			}
			var d config.Domain
			if err := d.UnmarshalText([]byte(domain)); err != nil {
				return usageError{fmt.Errorf("--domain: %w", err)}
			}
			return a.prepare(c.Context(), string(d), data)
		},
	}
	c.Flags().StringVar(&domain, "domain", "", "host name of the relay")
	c.Flags().StringVar(&data, "data", "", "data folder (default: the XDG state folder)")
	return c
}

func (a *app) prepare(ctx context.Context, domain, data string) error {
	data, err := filepath.Abs(data)
	if err != nil {
		return err
	}
	file, unit := filepath.Join(data, "commucat.toml"), filepath.Join(data, "commucat.service")
	if exists(file) {
		return usageError{fmt.Errorf("%s exists already and is not overwritten", file)}
	}
	text := strings.Replace(string(config.Sample()), `# domain = "localhost"`, fmt.Sprintf("domain = %q", domain), 1)
	env := config.Process(known()...)
	cfg, err := config.Parse(file, []byte(text), env)
	if err != nil {
		return configFailure{err}
	}
	if string(cfg.Server.Domain) != domain {
		return errors.New("the sample configuration has no line for the domain")
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	opt := a.relayOptions(cfg, env, data, slog.New(slog.DiscardHandler))
	opt.Prepare = true
	s, err := server.New(ctx, opt)
	if err != nil {
		return err
	}
	ready := s.Ready()
	if err := s.Close(ctx); err != nil {
		return err
	}
	// The configuration comes last: without it a second try goes on where one was cut off.
	self, err := os.Executable()
	if err != nil {
		return err
	}
	want := []byte(unitFile(self, data, owner(), os.Geteuid() == 0))
	switch have, err := os.ReadFile(unit); {
	case errors.Is(err, fs.ErrNotExist):
		if err := replaceFile(unit, want); err != nil {
			return err
		}
		if err := os.Chmod(unit, 0o644); err != nil { // nothing secret, and systemd reads it
			return err
		}
	case err != nil:
		return err
	case !bytes.Equal(have, want):
		a.say("%s is another one and stays as it is; to have a new one remove it and its configuration, and call this again", unit)
	}
	if err := replaceFile(file, []byte(text)); err != nil {
		return err
	}
	if a.json {
		return a.emit(struct {
			Config string `json:"config"`
			Unit   string `json:"unit"`
			Data   string `json:"data"`
			Invite string `json:"invite"`
		}{file, unit, data, ready.Invite})
	}
	a.say("configuration  %s\nunit file      %s\ndata and keys  %s\n\n%s:", file, unit, data, firstInvitation)
	fmt.Fprintln(a.out, ready.Invite)
	if ready.Invite == "" {
		return nil
	}
	return a.printQR(ready.Invite)
}

// owner is the user who owns what init makes, and whom the keys' folder lets in.
func owner() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return strconv.Itoa(os.Getuid())
}

// unitFile runs the relay as the data folder's owner with what systemd can take away. A
// start may take long where a storage brings big tables to its version.
func unitFile(program, data, owner string, root bool) string {
	keeps := "CAP_NET_BIND_SERVICE"
	if root {
		// Plugins get users and folders of their own there, and are ended.
		keeps += " CAP_CHOWN CAP_DAC_OVERRIDE CAP_SETUID CAP_SETGID CAP_KILL"
	}
	program, data = unitWord(program), unitWord(data)
	return fmt.Sprintf(`[Unit]
Description=Message relay
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
User=%s
ExecStart=%s serve --data %s
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=1
RestartPreventExitStatus=2 78
TimeoutStartSec=1h
TimeoutStopSec=60
LimitNOFILE=65536
AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=%s
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths=%s
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
LockPersonality=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
`, owner, program, data, keeps, data)
}

// unitWord quotes a word of a unit file (systemd.syntax(7)).
func unitWord(s string) string {
	s = strings.NewReplacer(`%`, `%%`, `\`, `\\`, `"`, `\"`).Replace(s)
	if strings.ContainsAny(s, " \t'\"") {
		return `"` + s + `"`
	}
	return s
}
