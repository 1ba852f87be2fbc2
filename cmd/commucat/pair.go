package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/commucat/commucat/sdk/client"
	"github.com/commucat/commucat/sdk/link"
)

func (a *app) pairCommand() *cobra.Command {
	return group("pair", "Add a device to an account", a.pairCreateCommand(), a.pairClaimCommand())
}

// withDevice connects the profile's device, lets f work and disconnects.
func (a *app) withDevice(ctx context.Context, f profileFlags, work func(context.Context, *device) error) (err error) {
	ctx, cancel := f.bound(ctx)
	defer cancel()
	d, err := a.open(f, client.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if _, err := d.connect(ctx); err != nil {
		return err
	}
	return work(ctx, d)
}

func (a *app) pairCreateCommand() *cobra.Command {
	var (
		f   profileFlags
		ttl time.Duration
		qr  bool
	)
	c := &cobra.Command{
		Use:   "create --profile DIR",
		Short: "Make a link with which another device joins this account, once",
		Args:  exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if c.Flags().Changed("ttl") && ttl < time.Second {
				return usageError{errors.New("--ttl: the shortest life of a pairing link is one minute")}
			}
			return a.withDevice(c.Context(), f, func(ctx context.Context, d *device) error {
				var in struct {
					TTL *int64 `json:"ttl,omitempty"`
				}
				if ttl > 0 {
					s := int64(ttl / time.Second)
					in.TTL = &s
				}
				var out struct {
					Link    string    `json:"link"`
					ID      string    `json:"link_id,omitempty"`
					Expires time.Time `json:"expires_at"`
				}
				if err := d.Call(ctx, "POST", "/api/pair", in, &out); err != nil {
					return err
				}
				until := out.Expires.Local().Format(time.TimeOnly)
				link := fresh{"the pairing link", func(ctx context.Context) error {
					return d.Call(ctx, "POST", "/api/pair/revoke", map[string]string{"link_id": out.ID}, nil)
				}, until}
				if err := a.handOut(ctx, link, func() error { return a.showFresh(out, out.Link) }); err != nil || a.json {
					return err
				}
				a.say("good for one device until %s", until)
				if qr {
					return a.printQR(out.Link)
				}
				return nil
			})
		},
	}
	f.add(c, 30*time.Second)
	c.Flags().DurationVar(&ttl, "ttl", 0, "life of the link, one minute at least (default and most: the relay's pairing.ttl)")
	c.Flags().BoolVar(&qr, "qr", false, "print a QR code as well")
	return c
}

func (a *app) pairClaimCommand() *cobra.Command {
	var (
		f    profileFlags
		name string
	)
	c := &cobra.Command{
		Use:   "claim LINK --profile DIR",
		Short: "Make a device of this account from a pairing link (- reads it from standard input)",
		Args:  exactly(1, "one pairing link"),
		RunE: func(c *cobra.Command, args []string) error {
			if f.dir == "" {
				return usageError{errors.New("where shall the device be kept? Name a folder with --profile")}
			}
			text, err := a.linkText(args[0])
			if err != nil {
				return err
			}
			l, err := link.Parse(text)
			if err != nil {
				return usageError{err}
			}
			if l.Kind != link.Pairing {
				return usageError{errors.New("this is no pairing link: use 'commucat client register'")}
			}
			if l.Expired(time.Now()) {
				return &client.Error{Kind: client.Refused, Code: "pairing_invalid", Text: "this pairing link has expired; create a new one"}
			}
			ctx, cancel := f.bound(c.Context())
			defer cancel()
			p, err := client.NewProfile(l, "", rand.Reader)
			if err != nil {
				return err
			}
			p.Name = name
			if err := p.Check(); err != nil {
				return usageError{err}
			}
			return a.join(ctx, p, f)
		},
	}
	f.add(c, 30*time.Second)
	c.Flags().StringVar(&name, "name", "", "what this device is called in the account's list")
	return c
}

// accountDevice is one row of the account's device list.
type accountDevice struct {
	ID      string    `json:"device_id"`
	Status  string    `json:"status"`
	Created time.Time `json:"created_at"`
	Public  string    `json:"public_key"`
	Current bool      `json:"current"`
}

func (a *app) devicesCommand() *cobra.Command {
	var f profileFlags
	list := &cobra.Command{
		Use: "list --profile DIR", Short: "List the devices of this account", Args: exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withDevice(c.Context(), f, func(ctx context.Context, d *device) error {
				var out struct {
					Devices []accountDevice `json:"devices"`
				}
				if err := d.Call(ctx, "GET", "/api/devices", nil, &out); err != nil {
					return err
				}
				if a.json {
					return a.emit(out)
				}
				t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(t, "device\tstatus\tsince\t")
				for _, d := range out.Devices {
					mark := ""
					if d.Current {
						mark = "(this one)"
					}
					fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", d.ID, d.Status, d.Created.Local().Format(time.DateTime), mark)
				}
				return t.Flush()
			})
		},
	}
	revoke := &cobra.Command{
		Use: "revoke DEVICE --profile DIR", Short: "Cut a device of this account off, for ever", Args: exactly(1, "one device id"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withDevice(c.Context(), f, func(ctx context.Context, d *device) error {
				if err := d.Call(ctx, "POST", "/api/devices/revoke", map[string]string{"device_id": args[0]}, nil); err != nil {
					return err
				}
				if a.json {
					return a.emit(map[string]string{"device": args[0], "status": "revoked"})
				}
				_, err := fmt.Fprintf(a.out, "revoked %s\n", args[0])
				return err
			})
		},
	}
	f.add(list, 30*time.Second)
	f.add(revoke, 30*time.Second)
	return group("devices", "The devices of this account", list, revoke)
}
