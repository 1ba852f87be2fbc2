package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/client"
)

func (a *app) sendCommand() *cobra.Command {
	var (
		f    profileFlags
		to   []string
		file string
		ttl  time.Duration
	)
	c := &cobra.Command{
		Use:   "send --profile DIR --to DEVICE|HANDLE [--file F] [TEXT]",
		Short: "Send a message; done when the relay has stored it",
		Long: "Send a message. The command ends with 0 only after the relay has acknowledged it: then it\n" +
			"is on stable storage for every recipient device. If the time runs out before, the message\n" +
			"stays in the profile's outbox and the next 'send' or 'listen' delivers it.",
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(to) == 0 {
				return usageError{errors.New("to whom? Name a device, account or handle with --to")}
			}
			body, err := a.body(file, args)
			if err != nil {
				return err
			}
			draft := client.Draft{To: to, Body: body, TTL: ttl}
			if err := draft.Check(); err != nil {
				return usageError{err}
			}
			ctx, cancel := f.bound(c.Context())
			defer cancel()
			return a.send(ctx, f, draft)
		},
	}
	f.add(c, 30*time.Second)
	c.Flags().StringArrayVar(&to, "to", nil, "recipient: device id, account id or handle (may be repeated)")
	c.Flags().StringVar(&file, "file", "", "send this file's content (- is standard input)")
	c.Flags().DurationVar(&ttl, "ttl", 0, "how long the relay keeps it for an absent device (0: its limit)")
	return c
}

// body is the text of the arguments or the content of a file.
func (a *app) body(file string, args []string) ([]byte, error) {
	switch {
	case file != "" && len(args) > 0:
		return nil, usageError{errors.New("give either a text or --file")}
	case file == "" && len(args) == 0:
		return nil, usageError{errors.New("what shall be sent? Give a text or --file")}
	case file == "":
		return []byte(strings.Join(args, " ")), nil
	}
	r := a.in
	if file != "-" {
		fh, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer fh.Close()
		r = fh
	}
	b, err := io.ReadAll(io.LimitReader(r, client.MaxBody+1))
	if err != nil {
		return nil, err
	}
	if len(b) > client.MaxBody {
		return nil, usageError{fmt.Errorf("%s is larger than a message can be (%d bytes)", file, client.MaxBody)}
	}
	return b, nil
}

func (a *app) send(ctx context.Context, f profileFlags, draft client.Draft) (err error) {
	began := time.Now()
	d, err := a.open(f, client.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	t, err := d.Send(draft)
	if err != nil {
		return err
	}
	by, err := d.connect(ctx)
	if err == nil {
		var res client.Result
		if res, err = t.Wait(ctx); err == nil {
			return a.sent(res, by, time.Since(began))
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		text := "the relay has not acknowledged the message in time; it stays in the outbox"
		if why := d.line.why(time.Now()); why != "" || !d.line.been() {
			text += ": " + d.unreached().Error()
		}
		return timeout{text}
	}
	return err
}

func (a *app) sent(res client.Result, by string, took time.Duration) error {
	if a.json {
		if err := a.emit(struct {
			ID        string           `json:"id"`
			Transport string           `json:"transport"`
			MS        float64          `json:"milliseconds"`
			Refused   []client.Refusal `json:"refused,omitempty"`
		}{res.ID.String(), by, float64(took) / 1e6, res.Refused}); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(a.out, "stored %s by %s in %.1f ms\n", res.ID, by, float64(took)/1e6)
	}
	for _, r := range res.Refused {
		a.say("refused for device %s: %s", r.Device, r.Code)
	}
	if len(res.Refused) > 0 {
		return silent{exitRefused}
	}
	return nil
}

// received is one line of listen --json.
type received struct {
	ID       string    `json:"id"`
	From     string    `json:"from"`
	User     string    `json:"user"`
	Channel  uint32    `json:"channel"`
	Kind     string    `json:"kind"`
	Own      bool      `json:"own,omitempty"`
	Text     *string   `json:"text,omitempty"`
	Base64   []byte    `json:"base64,omitempty"`
	Stored   time.Time `json:"stored_at"`
	Received time.Time `json:"received_at"`
}

func (a *app) listenCommand() *cobra.Command {
	var (
		f     profileFlags
		count int
	)
	c := &cobra.Command{
		Use:   "listen --profile DIR [--count N] [--timeout D]",
		Short: "Print messages as they arrive",
		Args:  exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, cancel := f.bound(c.Context())
			defer cancel()
			return a.listen(ctx, f, count)
		},
	}
	f.add(c, 0)
	c.Flags().IntVar(&count, "count", 0, "end after this many messages (0: never); what the relay tells of the account does not count")
	return c
}

// errEnough leaves further messages for the next listen.
var errEnough = errors.New("enough messages")

func (a *app) listen(ctx context.Context, f profileFlags, count int) (err error) {
	var (
		enough, done = context.WithCancel(context.WithoutCancel(ctx))
		seen         int
		failed       error
	)
	defer done()
	d, err := a.open(f, client.Options{
		Handle: func(m client.Message) error {
			if count > 0 && seen >= count {
				return errEnough
			}
			if failed = a.print(m); failed != nil {
				done()
				return failed
			}
			if m.Kind != ccp.TypeMsg {
				return nil // only messages count
			}
			if seen++; seen == count {
				done()
			}
			return nil
		},
		OnEvent: a.connection(),
	})
	if err != nil {
		return err
	}
	err = a.listening(ctx, enough, d, count > 0)
	return errors.Join(failed, err) // the handler has ended with the client
}

// connection tells of the connection on standard error: each state once.
func (a *app) connection() func(client.Event) {
	var (
		mu   sync.Mutex
		last string
	)
	return func(e client.Event) {
		mu.Lock()
		defer mu.Unlock()
		text := last
		switch e.Name {
		case "connected":
			text = "connected by " + e.Transport
		case "waiting":
			text = "not connected: " + oneLine(whyEnded(e))
		}
		if text == last {
			return
		}
		last = text
		if e.Name == "waiting" || !a.json {
			a.say("%s", text)
		}
	}
}

func (a *app) listening(ctx, enough context.Context, d *device, counted bool) error {
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	d.stop, d.ended = stop, make(chan error, 1)
	go func() { d.ended <- d.Run(run) }()
	var err error
	select {
	case <-enough.Done():
	case <-ctx.Done():
		switch {
		case errors.Is(ctx.Err(), context.Canceled):
		case !d.line.been():
			err = d.unreached()
		case counted:
			err = timeout{"not as many messages as asked for came in time"}
		}
	case err = <-d.ended:
		d.ended <- err
	}
	return errors.Join(err, d.close())
}

func (a *app) print(m client.Message) error {
	if a.json {
		r := received{
			ID: m.ID.String(), From: m.Device, User: m.User, Channel: m.Channel, Kind: m.Kind.String(), Own: m.Own,
			Stored: m.Stored, Received: m.Received.UTC(),
		}
		if utf8.Valid(m.Body) {
			text := string(m.Body)
			r.Text = &text
		} else {
			r.Base64 = m.Body
		}
		return a.emit(r)
	}
	if m.Kind != ccp.TypeMsg {
		from := m.Device
		if ofRelay(m) {
			from = "relay"
		}
		a.say("%s  %s  %s: %s", m.Stored.Local().Format(time.DateTime), from, m.Kind, printable(m.Body))
		return nil
	}
	_, err := fmt.Fprintf(a.out, "%s  %s  %s\n", m.Stored.Local().Format(time.DateTime), m.Device, printable(m.Body))
	return err
}

// ofRelay says that m is the relay's own word: such as that a device was added. A member
// can send the same text, but then the relay names the member's device.
func ofRelay(m client.Message) bool { return m.Device == "" }

// printable keeps a message from steering the terminal.
func printable(b []byte) string {
	if !utf8.Valid(b) {
		return fmt.Sprintf("(%d bytes, not text)", len(b))
	}
	// Further lines are indented: none can pass for another message.
	text := strings.ReplaceAll(strings.TrimRight(string(b), "\n"), "\n", "\n    ")
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' || r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069' {
			return '\ufffd'
		}
		return r
	}, text)
}
