package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/commucat/commucat/core/api"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/conf"
	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/transport"
)

// exporter writes what another program needs to carry a client's stream over an
// endpoint. key is the device's own, nil where the endpoint holds one.
type exporter struct {
	write  func(to transport.Endpoint, key []byte) ([]byte, error)
	newKey func() (private, public []byte, err error)
}

// exporters are those that this build has, by plugin and format.
func exporters() map[string]map[string]exporter {
	return map[string]map[string]exporter{conf.Name: {"conf": {conf.File, conf.NewKey}}}
}

func (a *app) transportExportCommand() *cobra.Command {
	var (
		format, text, device string
		ttl                  time.Duration
		f                    operatorFlags
	)
	c := &cobra.Command{
		Use: "export NAME", Short: "Write the file with which another program carries clients here",
		Long: "Write the file with which another program carries clients here: for amnesiawg the one that\nAmneziaWG's apps import. The file holds a private key.\n\n" +
			"Without --link a new invitation for one account is made, and its link is printed on stderr:\nwho gets the file needs it to register. Give each file to one device.\n\n" +
			"With --device the file holds a fresh key that the running relay knows as that device's, beside the\ndevice's own: it ends when the device is revoked, or when another file is written for it.",
		Args: exactly(1, "the name of one transport, or NAME=PLUGIN"),
		RunE: func(c *cobra.Command, args []string) error {
			name, write, err := exporterOf(args[0], format)
			if err != nil {
				return err
			}
			if device != "" {
				if text != "" || c.Flags().Changed("ttl") {
					return usageError{errors.New("--device: the key lives as long as the device; leave --link and --ttl out")}
				}
				return a.exportDevice(c.Context(), &f, device, name, format, write)
			}
			made := api.Link{Text: text}
			show := func() error {
				file, err := exportOf(made.Text, name, write)
				if err != nil {
					return err
				}
				if a.json {
					return a.emit(map[string]any{"transport": name, "format": format, "file": string(file), "link": made.Text, "invitation": made.ID})
				}
				if made.ID != "" {
					fmt.Fprintf(a.err, "invitation %s, for who gets the file:\n%s\n", made.ID, made.Text)
				}
				_, err = a.out.Write(file)
				return err
			}
			if text != "" {
				return show()
			}
			if ttl < time.Second {
				return usageError{errors.New("--ttl: the shortest life of a link is one second")}
			}
			cl, err := f.client()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), 30*time.Second)
			defer cancel()
			made, err = cl.CreateLink(ctx, api.LinkRequest{Kind: api.InviteLink, Quota: 1, TTLSeconds: int64(ttl / time.Second)})
			if err != nil {
				return err
			}
			return a.handOut(ctx, invitation(cl, made.ID), show)
		},
	}
	f.add(c)
	c.Flags().StringVar(&format, "format", "conf", "format of the file")
	c.Flags().StringVar(&text, "link", "", "the invitation `link` to write it for; no relay need run")
	c.Flags().StringVar(&device, "device", "", "the `id` of a registered device that the file is for")
	c.Flags().DurationVar(&ttl, "ttl", 7*24*time.Hour, "how long a new invitation is good for, and the file with it")
	return c
}

// exportDevice writes the file for a key of its own that the relay learns as a
// registered device's.
func (a *app) exportDevice(ctx context.Context, f *operatorFlags, device, name, format string, e exporter) error {
	cl, err := f.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	private, public, err := e.newKey()
	if err != nil {
		return err
	}
	at, err := cl.SetTransportKey(ctx, device, name, public)
	if err != nil {
		return err
	}
	file, err := e.write(transport.Endpoint{Transport: at.Transport, Host: at.Host, Port: at.Port, Params: at.Params}, private)
	if err != nil {
		return err
	}
	if a.json {
		return a.emit(map[string]any{"transport": name, "format": format, "file": string(file), "device": device})
	}
	_, err = a.out.Write(file)
	return err
}

// exporterOf reads NAME or NAME=PLUGIN.
func exporterOf(text, format string) (name string, write exporter, err error) {
	name, plugin, renamed := strings.Cut(text, "=")
	if !renamed {
		plugin = name
	}
	all := exporters()
	formats, ok := all[plugin]
	if !ok {
		return "", exporter{}, usageError{fmt.Errorf("nothing can be exported for %q; there is something for %s (NAME=PLUGIN where the relay calls it otherwise)", plugin, strings.Join(slices.Sorted(maps.Keys(all)), ", "))}
	}
	if write = formats[format]; write.write == nil {
		return "", exporter{}, usageError{fmt.Errorf("--format: %s has %s", plugin, strings.Join(slices.Sorted(maps.Keys(formats)), ", "))}
	}
	return name, write, nil
}

// exportOf writes the file for the first endpoint of a link by that transport.
func exportOf(text, name string, write exporter) ([]byte, error) {
	l, err := link.Parse(text)
	if err != nil {
		return nil, usageError{err}
	}
	i := slices.IndexFunc(l.Endpoints, func(e link.Endpoint) bool { return e.Transport == name })
	if i < 0 {
		return nil, fmt.Errorf("the link names no endpoint for %s: was it enabled and ready when the link was made? See 'commucat plugin list'", name)
	}
	e := l.Endpoints[i]
	return write.write(transport.Endpoint{Transport: e.Transport, Host: e.Host, Port: e.Port, Params: e.Values()}, nil)
}
