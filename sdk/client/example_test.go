package client_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/commucat/commucat/sdk/client"
	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/transport"
)

// offline is a transport that reaches nobody; programs link real ones
// (transports/…).
type offline struct{}

func (offline) Name() string { return "http2" }

func (offline) Dial(context.Context, transport.Endpoint, transport.Dial) (net.Conn, error) {
	return nil, errors.New("no network")
}

// invitation stands for a link that a relay's operator hands out.
func invitation() link.Link {
	_, root, _ := ed25519.GenerateKey(rand.Reader)
	return link.Link{
		Kind: link.Invite, Root: [32]byte(root.Public().(ed25519.PublicKey)), NoisePublic: [32]byte{9}, Domain: "relay.example",
		Secret: [16]byte{1}, Endpoints: []link.Endpoint{{Transport: "http2", Host: "relay.example", Port: 443}},
	}
}

// A message that is sent without a network waits in the outbox, over restarts of
// the program, until the relay has acknowledged it.
func Example() {
	dir, err := os.MkdirTemp("", "profile")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	profile, err := client.NewProfile(invitation(), "ada", rand.Reader)
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := profile.Save(dir); err != nil {
		fmt.Println(err)
		return
	}
	for range 2 {
		store, err := client.OpenStore(dir)
		if err != nil {
			fmt.Println(err)
			return
		}
		c, err := client.New(client.Options{
			Profile: profile, Store: store, Dialers: []transport.Dialer{offline{}},
			Handle: func(m client.Message) error {
				fmt.Printf("%s: %s\n", m.User, m.Body)
				return nil // shown: never again
			},
		})
		if err != nil {
			fmt.Println(err)
			return
		}
		// go c.Run(ctx) connects; ticket.Wait(ctx) waits for the acknowledgement.
		if _, err := c.Send(client.Draft{To: []string{"grace"}, Body: []byte("hello")}); err != nil {
			fmt.Println(err)
		}
		fmt.Println(c.Pending(), "pending")
		c.Close()
		store.Close()
	}
	// Output:
	// 1 pending
	// 2 pending
}

// Errors say what the user can do, and have a kind for the program.
func ExampleLoadProfile() {
	_, err := client.LoadProfile("/nonexistent")
	var e *client.Error
	if errors.As(err, &e) && e.Kind == client.Invalid {
		fmt.Println(e.Text)
	}
	// Output:
	// no profile in /nonexistent: make one with 'commucat client register'
}

func ExampleNewProfile() {
	p, err := client.NewProfile(invitation(), "", rand.Reader)
	fmt.Println(p != nil, err)
	// Output:
	// false an invitation needs a handle for the new account
}
