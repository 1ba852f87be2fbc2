package main

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/commucat/commucat/sdk/client"
	"github.com/commucat/commucat/sdk/link"
)

func (a *app) clientLinkCommand() *cobra.Command {
	return group("link", "Ways to the relay", a.clientLinkAddCommand())
}

func (a *app) clientLinkAddCommand() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "add LINK --profile DIR",
		Short: "Take ways to the relay from a newer link of it (- reads it from standard input)",
		Long: "Take ways to the relay from a newer link of it, for a device that is registered already: those that\n" +
			"the profile does not know, such as a transport that was enabled since, and other parameters for those\n" +
			"that it does. The device keeps its account and keys, nothing is dialled, and the invitation is not spent.\n\n" +
			"A link in the arguments shows in the list of processes: where others use this machine, - reads it.",
		Args: exactly(1, "one link of the device's relay"),
		RunE: func(_ *cobra.Command, args []string) error {
			if dir == "" {
				return usageError{errors.New("which device? Name its folder with --profile")}
			}
			text, err := a.linkText(args[0])
			if err != nil {
				return err
			}
			l, err := link.Parse(text)
			if err != nil {
				return usageError{err}
			}
			if l.Expired(time.Now()) {
				return &client.Error{Kind: client.Refused, Code: "invite_invalid", Text: "this link has expired; ask for a new one"}
			}
			added, changed, err := addLink(dir, l)
			if err != nil {
				return err
			}
			return a.printWays(l, added, changed)
		},
	}
	c.Flags().StringVar(&dir, "profile", "", "folder of the device's profile")
	return c
}

// addLink changes the profile in a folder that no other program uses meanwhile.
func addLink(dir string, l link.Link) (added, changed []client.Endpoint, err error) {
	p, store, err := client.OpenProfile(dir)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if added, changed, err = p.AddLink(l); err != nil {
		return nil, nil, err
	}
	return added, changed, p.Save(dir)
}

func (a *app) printWays(l link.Link, added, changed []client.Endpoint) error {
	type way struct {
		Transport string `json:"transport"`
		Host      string `json:"host"`
		Port      uint16 `json:"port"`
	}
	lists := [2][]way{{}, {}}
	var text strings.Builder
	for i, ends := range [2][]client.Endpoint{added, changed} {
		for _, e := range ends {
			lists[i] = append(lists[i], way{e.Transport, e.Host, e.Port})
			fmt.Fprintf(&text, "%-7s  %s %s\n", [2]string{"new", "changed"}[i], e.Transport, net.JoinHostPort(e.Host, fmt.Sprint(e.Port)))
		}
	}
	if a.json {
		return a.emit(map[string]any{"added": lists[0], "changed": lists[1]})
	}
	if text.Len() == 0 {
		var all []string
		for _, e := range l.Endpoints {
			all = append(all, e.Transport)
		}
		slices.Sort(all)
		fmt.Fprintf(&text, "nothing new: the link names %s, and the profile knows these ways\n", strings.Join(slices.Compact(all), ", "))
	}
	_, err := a.out.Write([]byte(text.String()))
	return err
}
