// Bot is a chat bot in one file: it answers every message with a dice roll or with
// what it can do. It shows all that a program on sdk/client needs: a profile made
// from an invitation, an outbox and an inbox that survive restarts, and transports
// chosen by the program.
//
//	bot -profile DIR -link commucat://…    the first time
//	bot -profile DIR                       from then on
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/client"
	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/http2"
	"github.com/commucat/commucat/transports/websocket"
)

func main() {
	dir := flag.String("profile", "bot-profile", "folder of the bot's keys and messages")
	invitation := flag.String("link", "", "invitation link, needed the first time only")
	handle := flag.String("handle", "dice", "name of the bot's account")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *dir, *invitation, *handle); err != nil {
		fmt.Fprintln(os.Stderr, "bot:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir, invitation, handle string) (err error) {
	if err := join(dir, invitation, handle); err != nil {
		return err
	}
	profile, store, err := client.OpenProfile(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	var bot *client.Client
	bot, err = client.New(client.Options{
		Profile: profile,
		Store:   store,
		Dialers: []transport.Dialer{http2.NewDialer(), websocket.NewDialer()},
		// A message is shown once, whatever happens: if the bot dies before Handle
		// has returned, the next start shows it again.
		Handle: func(m client.Message) error {
			if m.Kind != ccp.TypeMsg || m.Own {
				return nil
			}
			// Send returns when the answer is in the outbox on disk. The
			// client brings it to the relay, now or after a restart.
			_, err := bot.Send(client.Draft{To: []string{m.Device}, Body: []byte(answer(string(m.Body)))})
			return err
		},
		OnEvent: func(e client.Event) {
			if e.Name == "connected" {
				fmt.Fprintf(os.Stderr, "%s is connected by %s\n", handle, e.Transport)
			}
		},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bot.Close()) }()
	return bot.Run(ctx)
}

// join makes the bot's device from an invitation, unless it is there.
func join(dir, invitation, handle string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) || invitation == "" {
		return nil
	}
	l, err := link.Parse(invitation)
	if err != nil {
		return err
	}
	p, err := client.NewProfile(l, handle, rand.Reader)
	if err != nil {
		return err
	}
	return p.Save(dir)
}

// answer is what the bot says.
func answer(text string) string {
	if strings.TrimSpace(text) != "roll" {
		return `write "roll" and I roll a die`
	}
	n, err := rand.Int(rand.Reader, big.NewInt(6))
	if err != nil {
		return "the die fell off the table"
	}
	return fmt.Sprintf("you rolled %d", n.Int64()+1)
}
