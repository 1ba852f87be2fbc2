package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/commucat/commucat/core/api"
	"github.com/commucat/commucat/core/config"
	"github.com/commucat/commucat/core/server"
	"github.com/commucat/commucat/sdk/link"
)

// operatorFlags find the running relay.
type operatorFlags struct{ relayFlags }

// client connects to the operator's socket of the relay on the data folder.
func (f *operatorFlags) client() (*api.Client, error) {
	cfg, _, data, err := f.load()
	if err != nil {
		return nil, err
	}
	return api.NewClient(adminSocket(cfg, data)), nil
}

// adminSocket is where the relay on a data folder is operated.
func adminSocket(cfg *config.Config, data string) string {
	if cfg.Admin.Socket != "" {
		return string(cfg.Admin.Socket)
	}
	return filepath.Join(data, "admin.sock")
}

// usualClient connects to where the socket is unless the configuration, which cannot
// be read, says otherwise.
func (f *operatorFlags) usualClient() (*api.Client, error) {
	data := f.data
	if data == "" {
		var err error
		if data, err = server.DefaultData(os.Getenv); err != nil {
			return nil, err
		}
	}
	return api.NewClient(filepath.Join(data, "admin.sock")), nil
}

// operator is a command that talks to the running relay.
func (a *app) operator(c *cobra.Command, work func(ctx context.Context, cl *api.Client, args []string) error) *cobra.Command {
	var f operatorFlags
	f.relayFlags.add(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		cl, err := f.client()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(c.Context(), 30*time.Second)
		defer cancel()
		err = work(ctx, cl, args)
		var no *api.Problem
		if errors.As(err, &no) && no.Code != "" {
			err = fmt.Errorf("%w (%s)", err, no.Code)
		}
		return err
	}
	return c
}

func (a *app) linkCommand() *cobra.Command {
	var (
		quota      int
		ttl        time.Duration
		qr         bool
		transports []string
	)
	create := a.operator(&cobra.Command{
		Use: "create", Short: "Make an invitation link", Args: exactly(0, ""),
	}, func(ctx context.Context, cl *api.Client, _ []string) error {
		switch {
		case quota < 1:
			return usageError{errors.New("--quota: a link is for one account or more")}
		case ttl < time.Second:
			return usageError{errors.New("--ttl: the shortest life of a link is one second")}
		}
		l, err := cl.CreateLink(ctx, api.LinkRequest{Kind: api.InviteLink, Quota: quota, TTLSeconds: int64(ttl / time.Second), Transports: transports})
		if err != nil {
			return err
		}
		err = a.handOut(ctx, invitation(cl, l.ID), func() error { return a.showFresh(l, l.Text) })
		if err != nil || a.json || !qr {
			return err
		}
		return a.printQR(l.Text)
	})
	create.Flags().IntVar(&quota, "quota", 1, "accounts that can be made with it")
	create.Flags().DurationVar(&ttl, "ttl", 7*24*time.Hour, "how long it is good for")
	create.Flags().StringSliceVar(&transports, "transports", nil, "transports that it names, at most 8 (default: all, as far as there is room)")
	create.Flags().BoolVar(&qr, "qr", false, "print a QR code as well")

	list := a.operator(&cobra.Command{
		Use: "list", Short: "List live invitations (their secrets are kept nowhere)", Args: exactly(0, ""),
	}, func(ctx context.Context, cl *api.Client, _ []string) error {
		items, err := pages(ctx, cl.Links)
		if err != nil {
			return err
		}
		if a.json {
			return a.emit(list[api.Link]{items})
		}
		t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "invitation\tused\tquota\tuntil\t")
		for _, l := range items {
			fmt.Fprintf(t, "%s\t%d\t%d\t%s\t\n", l.ID, l.Used, l.Quota, l.Expires.Local().Format(time.DateTime))
		}
		return t.Flush()
	})
	revoke := a.operator(&cobra.Command{
		Use: "revoke INVITATION", Short: "End an invitation", Args: exactly(1, "the id of one invitation (see 'link list')"),
	}, func(ctx context.Context, cl *api.Client, args []string) error {
		if err := cl.RevokeLink(ctx, args[0]); err != nil {
			return err
		}
		return a.revoked("invitation", args[0])
	})
	show := &cobra.Command{
		Use: "show LINK", Short: "Say what a link holds, without its secrets", Args: exactly(1, "one link"),
		RunE: func(_ *cobra.Command, args []string) error { return a.showLink(args[0]) },
	}
	code := &cobra.Command{
		Use: "qr LINK", Short: "Print a link as a QR code", Args: exactly(1, "one link"),
		RunE: func(_ *cobra.Command, args []string) error {
			if _, err := link.Parse(args[0]); err != nil {
				return usageError{err}
			}
			if a.json {
				rows, err := qrRows(args[0])
				if err != nil {
					return err
				}
				return a.emit(map[string]any{"link": args[0], "modules": rows})
			}
			return a.printQR(args[0])
		},
	}
	return group("link", "Invitation links", create, list, revoke, show, code)
}

// showFresh shows a link that was made just now, as JSON together with what is known of it.
func (a *app) showFresh(all any, text string) error {
	if a.json {
		return a.emit(all)
	}
	_, err := fmt.Fprintln(a.out, text)
	return err
}

// fresh is a link that nobody has seen yet.
type fresh struct {
	what   string // "the invitation 12ab"
	revoke func(context.Context) error
	// until says when it ends if it cannot be revoked.
	until string
}

func invitation(cl *api.Client, id string) fresh {
	return fresh{"the invitation " + id, func(ctx context.Context) error { return cl.RevokeLink(ctx, id) }, "'commucat link revoke " + id + "' ends it"}
}

// handOut shows a fresh link. One that nobody could read is revoked again.
func (a *app) handOut(ctx context.Context, f fresh, show func() error) error {
	closed := make(chan os.Signal, 1) // a closed pipe fails the write, and does not end the program
	signal.Notify(closed, syscall.SIGPIPE)
	defer signal.Stop(closed)
	err := show()
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if failed := f.revoke(ctx); failed != nil {
		return fmt.Errorf("%w; %s lives on until %s: %w", err, f.what, f.until, failed)
	}
	return fmt.Errorf("%w; %s is revoked again", err, f.what)
}

func (a *app) showLink(text string) error {
	l, err := link.Parse(text)
	if err != nil {
		return usageError{err}
	}
	type endpoint struct {
		Transport string `json:"transport"`
		Host      string `json:"host"`
		Port      uint16 `json:"port"`
	}
	out := struct {
		Kind      string     `json:"kind"`
		Domain    string     `json:"domain"`
		Root      string     `json:"root"`
		Noise     string     `json:"noise"`
		Version   uint32     `json:"noise_version"`
		Expires   *time.Time `json:"expires,omitempty"`
		Promises  []string   `json:"promises"`
		Pinned    bool       `json:"pinned"`
		Endpoints []endpoint `json:"endpoints"`
	}{
		Kind: l.Kind.String(), Domain: l.Domain, Root: fmt.Sprintf("%x", l.Root), Noise: fmt.Sprintf("%x", l.NoisePublic), Version: l.NoiseVersion,
		Promises: l.Promises().Names(), Pinned: len(l.Pins) > 0,
	}
	if !l.Expires.IsZero() {
		out.Expires = &l.Expires
	}
	for _, e := range l.Endpoints {
		out.Endpoints = append(out.Endpoints, endpoint{e.Transport, e.Host, e.Port})
	}
	if a.json {
		return a.emit(out)
	}
	fmt.Fprintf(a.out, "kind      %s\ndomain    %s\nroot      %s\nnoise     %s (version %d)\npinned    %v\npromises  %v\n",
		out.Kind, out.Domain, out.Root, out.Noise, out.Version, out.Pinned, out.Promises)
	if out.Expires != nil {
		over := ""
		if l.Expired(time.Now()) {
			over = " (expired)"
		}
		fmt.Fprintf(a.out, "until     %s%s\n", l.Expires.Local().Format(time.DateTime), over)
	}
	for _, e := range out.Endpoints {
		fmt.Fprintf(a.out, "endpoint  %s %s\n", e.Transport, net.JoinHostPort(e.Host, fmt.Sprint(e.Port)))
	}
	if len(out.Endpoints) == link.MaxEndpoints {
		fmt.Fprintf(a.out, "full      a link names %d endpoints at most: the relay may have more, which its log named when the link was made and devices learn when they connect\n", link.MaxEndpoints)
	}
	return nil
}

func (a *app) userCommand() *cobra.Command {
	list := a.operator(&cobra.Command{
		Use: "list", Short: "List accounts", Args: exactly(0, ""),
	}, func(ctx context.Context, cl *api.Client, _ []string) error {
		items, err := pages(ctx, cl.Users)
		if err != nil {
			return err
		}
		if a.json {
			return a.emit(list[api.User]{items})
		}
		t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "handle\taccount\t")
		for _, u := range items {
			fmt.Fprintf(t, "%s\t%s\t\n", u.Handle, u.ID)
		}
		return t.Flush()
	})
	show := a.operator(&cobra.Command{
		Use: "show HANDLE|ACCOUNT", Short: "Show an account and its devices", Args: exactly(1, "one account"),
	}, func(ctx context.Context, cl *api.Client, args []string) error {
		u, err := cl.User(ctx, args[0])
		if err != nil {
			return err
		}
		return a.object(u)
	})
	var (
		ttl time.Duration
		qr  bool
	)
	pair := a.operator(&cobra.Command{
		Use: "pair HANDLE|ACCOUNT", Short: "Make a pairing link for an account that has lost its devices", Args: exactly(1, "one account"),
	}, func(ctx context.Context, cl *api.Client, args []string) error {
		if ttl != 0 && ttl < time.Second {
			return usageError{errors.New("--ttl: the shortest life of a pairing link is one minute")}
		}
		l, err := cl.PairUser(ctx, args[0], ttl)
		if err != nil {
			return err
		}
		until := l.Expires.Local().Format(time.TimeOnly)
		link := fresh{"the pairing link", func(ctx context.Context) error { return cl.RevokePairing(ctx, l.ID) }, until}
		if err := a.handOut(ctx, link, func() error { return a.showFresh(l, l.Text) }); err != nil || a.json {
			return err
		}
		a.say("good for one device until %s; whoever has it becomes a device of this account", until)
		if qr {
			return a.printQR(l.Text)
		}
		return nil
	})
	pair.Flags().DurationVar(&ttl, "ttl", 0, "life of the link, one minute at least (default and most: pairing.ttl)")
	pair.Flags().BoolVar(&qr, "qr", false, "print a QR code as well")
	return group("user", "Accounts of the running relay", list, show, pair)
}

func (a *app) deviceCommand() *cobra.Command {
	all := a.operator(&cobra.Command{
		Use: "list [HANDLE|ACCOUNT]", Short: "List the devices of one account or of all", Args: cobra.ArbitraryArgs,
	}, a.listDevices)
	show := a.operator(&cobra.Command{
		Use: "show DEVICE", Short: "Show a device", Args: exactly(1, "one device id"),
	}, func(ctx context.Context, cl *api.Client, args []string) error {
		d, err := cl.Device(ctx, args[0])
		if err != nil {
			return err
		}
		return a.object(d)
	})
	revoke := a.operator(&cobra.Command{
		Use: "revoke DEVICE", Short: "Cut a device off, for ever", Args: exactly(1, "one device id"),
	}, func(ctx context.Context, cl *api.Client, args []string) error {
		if err := cl.RevokeDevice(ctx, args[0]); err != nil {
			return err
		}
		return a.revoked("device", args[0])
	})
	return group("device", "Devices of the running relay", all, show, revoke)
}

func (a *app) keysCommand() *cobra.Command {
	show := a.operator(&cobra.Command{
		Use: "show", Short: "Show the public halves of the relay's keys", Args: exactly(0, ""),
	}, func(ctx context.Context, cl *api.Client, _ []string) error {
		b, err := cl.Keys(ctx)
		if err != nil {
			return err
		}
		return a.object(b)
	})
	rotate := a.operator(&cobra.Command{
		Use: "rotate", Short: "Make a new Noise key now; the old one keeps its grace", Args: exactly(0, ""),
	}, func(ctx context.Context, cl *api.Client, _ []string) error {
		b, err := cl.RotateKeys(ctx)
		if err != nil {
			return err
		}
		return a.object(b)
	})
	return group("keys", "Keys of the running relay", show, rotate)
}

// object prints one JSON object: a line with --json, indented for people.
func (a *app) object(v any) error {
	if a.json {
		return a.emit(v)
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return errors.Join(errors.New("the answer cannot be shown"), err)
	}
	_, err = fmt.Fprintf(a.out, "%s\n", b)
	return err
}

// list is a whole list as JSON.
type list[T any] struct {
	Items []T `json:"items"`
}

// pages reads a list to its end.
func pages[T any](ctx context.Context, read func(ctx context.Context, after string, limit int) (api.Page[T], error)) ([]T, error) {
	out := []T{}
	for after := ""; ; {
		p, err := read(ctx, after, api.PageLimit)
		if err != nil {
			return nil, err
		}
		out = append(out, p.Items...)
		if after = p.Next; after == "" {
			return out, nil
		}
	}
}

func (a *app) listDevices(ctx context.Context, cl *api.Client, args []string) error {
	names := args
	if len(args) > 1 {
		return usageError{errors.New("expected one account, or none for all")}
	}
	if len(args) == 0 {
		users, err := pages(ctx, cl.Users)
		if err != nil {
			return err
		}
		for _, u := range users {
			names = append(names, u.ID)
		}
	}
	devices := []api.Device{}
	handles := map[string]string{}
	for _, name := range names {
		u, err := cl.User(ctx, name)
		if err != nil {
			return err
		}
		handles[u.ID] = u.Handle
		devices = append(devices, u.Devices...)
	}
	if a.json {
		return a.emit(list[api.Device]{devices})
	}
	t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "device\tof\tstatus\tsince\t")
	for _, d := range devices {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t\n", d.ID, handles[d.User], d.Status, d.Created.Local().Format(time.DateTime))
	}
	return t.Flush()
}

// revoked confirms.
func (a *app) revoked(what, id string) error {
	if a.json {
		return a.emit(map[string]string{what: id, "status": "revoked"})
	}
	_, err := fmt.Fprintf(a.out, "revoked %s\n", id)
	return err
}
