package noise_test

import (
	"fmt"
	"log"

	"github.com/commucat/commucat/sdk/noise"
)

// A whole session: handshake, then records over a byte stream.
func Example() {
	check := func(err error) {
		if err != nil {
			log.Fatal(err)
		}
	}
	serverKey, err := noise.GenerateKeyPair(nil)
	check(err)
	clientKey, err := noise.GenerateKeyPair(nil)
	check(err)

	prologue := []byte(noise.DefaultPrologue)
	client, err := noise.NewHandshake(noise.Config{
		Pattern: noise.XK, Initiator: true, Prologue: prologue, Static: clientKey, Peer: serverKey.Public,
	})
	check(err)
	server, err := noise.NewHandshake(noise.Config{Pattern: noise.XK, Prologue: prologue, Static: serverKey})
	check(err)

	for from, to := client, server; !server.Finished() || !client.Finished(); from, to = to, from {
		message, err := from.WriteMessage(nil, nil)
		check(err)
		_, err = to.ReadMessage(nil, message)
		check(err)
	}
	fmt.Println("the server knows the client:", server.PeerStatic() == clientKey.Public)

	send, _, err := client.Split()
	check(err)
	_, recv, err := server.Split()
	check(err)
	stream, err := noise.NewSealer(send).AppendRecords(nil, []byte("hello"), 0)
	check(err)
	opener := noise.NewOpener(recv)
	_, _, err = opener.Next(stream[:7])
	fmt.Println(err)
	plain, n, err := opener.Next(stream)
	fmt.Printf("%s %d %v\n", plain, n, err)
	// Output:
	// the server knows the client: true
	// noise: incomplete record
	// hello 22 <nil>
}
