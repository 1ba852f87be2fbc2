package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/client"
)

func (a *app) chatCommand() *cobra.Command {
	var (
		f  profileFlags
		to string
	)
	c := &cobra.Command{
		Use:   "chat --profile DIR [--to DEVICE|HANDLE]",
		Short: "Write and read messages in the terminal",
		Long: "Write and read messages in the terminal. What was written and read is kept in the profile's\n" +
			"folder (chat.jsonl, 0600) and shown again at the next start.\n\n" +
			"A line is sent to the name after 'to'. /to NAME writes to somebody else, /reply to whoever wrote\n" +
			"last, /quit or ctrl-c ends. Marks: ✓ stored by the relay for every recipient device, ✗ refused,\n" +
			"… not yet, or chat ended before it was known; what waits in the outbox is sent all the same.",
		Args: exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if !isTerminal(a.in) || !isTerminal(a.stdout.w) {
				return usageError{errors.New("chat needs a terminal; 'client send' and 'client listen' are for scripts")}
			}
			return a.chat(c.Context(), f, to)
		},
	}
	f.addDevice(c)
	c.Flags().StringVar(&to, "to", "", "whom to write to at first: device id, account id or handle")
	return c
}

func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// chat runs the terminal interface until the user leaves, ctx ends, or the relay
// refuses the device.
func (a *app) chat(ctx context.Context, f profileFlags, to string) (err error) {
	var (
		log   *history
		tell  = make(chan any)
		over  = make(chan struct{})
		quiet = *a
	)
	send := func(v any) {
		select {
		case tell <- v:
		case <-over:
		}
	}
	quiet.streams.err = io.Discard // the screen is the program's alone
	d, err := quiet.open(f, client.Options{
		Handle: func(m client.Message) error {
			e := shown(m)
			if err := log.add(e); err != nil {
				return err // it stays in the store
			}
			send(e)
			return nil
		},
		OnEvent: func(e client.Event) {
			switch e.Name {
			case "connected":
				send(state("connected by " + e.Transport))
			case "waiting":
				send(state("not connected: " + printable([]byte(oneLine(whyEnded(e))))))
			}
		},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if log, err = openHistory(d.Profile().Dir()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.close()) }()
	s := &screen{device: d, log: log, to: to, status: "connecting", entries: log.entries, tell: send}

	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	d.stop, d.ended = stop, make(chan error, 1)
	go func() {
		err := d.Run(run)
		send(ended{err})
		d.ended <- err
	}()
	in, _ := a.in.(*os.File)
	err = s.run(ctx, in, a.stdout, tell)
	close(over)
	return err
}

// shown is a message as the screen shows it.
func shown(m client.Message) entry {
	e := entry{Key: m.ID.String(), Time: m.Stored, From: m.User, Text: string(m.Body)}
	if !utf8.Valid(m.Body) {
		e.Text = printable(m.Body)
	}
	switch {
	case m.Kind != ccp.TypeMsg:
		e.Text = m.Kind.String() + " " + e.Text
		if ofRelay(m) {
			e.From = "relay"
		}
	case m.Own:
		e.From, e.Mark = "", markStored
	}
	if len(e.Text) > maxShown {
		e.Text = strings.ToValidUTF8(e.Text[:maxShown], "") + fmt.Sprintf("… (%d bytes)", len(m.Body))
	}
	return e
}

// Messages to the screen beside entry.
type (
	state string
	ended struct{ err error }
	mark  struct{ key, mark, why string }
)

// send puts a line into the outbox and follows it.
func (s *screen) send(text string) {
	ticket, err := s.device.Send(client.Draft{To: []string{s.to}, Body: []byte(text)})
	if err != nil {
		s.note(err.Error())
		return
	}
	e := entry{Key: fmt.Sprint("o", time.Now().UnixNano()), Time: time.Now(), To: s.to, Text: text, Mark: markWaits}
	s.keep(e)
	go func() {
		res, err := ticket.Wait(context.Background()) // ends with the client at the latest
		switch {
		case errors.Is(err, client.ErrClosed):
		case err != nil:
			s.tell(mark{e.Key, markRefused, err.Error()})
		case len(res.Refused) > 0:
			s.tell(mark{e.Key, markRefused, fmt.Sprintf("refused for %d devices: %s", len(res.Refused), res.Refused[0].Code)})
		default:
			s.tell(mark{e.Key, markStored, ""})
		}
	}()
}
