package ccp_test

import (
	"errors"
	"fmt"
	"log"

	"github.com/commucat/commucat/sdk/ccp"
)

// A reader keeps what is incomplete and ends the connection on anything else.
func ExampleDecode() {
	stream, err := ccp.Append(nil, ccp.Frame{Type: ccp.TypeMsg, Channel: 9, Sequence: 1, Payload: []byte("one")})
	if err != nil {
		log.Fatal(err)
	}
	stream = append(stream, 9, 5) // a second frame has begun to arrive

	for {
		frame, n, err := ccp.Decode(stream)
		if errors.Is(err, ccp.ErrIncomplete) {
			fmt.Printf("%d bytes wait for more\n", len(stream))
			return
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%v on channel %d: %s\n", frame.Type, frame.Channel, frame.Payload)
		stream = stream[n:]
	}
	// Output:
	// msg on channel 9: one
	// 2 bytes wait for more
}

func ExampleAppendSend() {
	payload, err := ccp.AppendSend(nil, ccp.Send{
		Kind: ccp.TypeMsg,
		ID:   ccp.MessageID{Log: [8]byte{0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8}, Counter: 57},
		To:   [][]byte{[]byte("dev-b")},
		Body: []byte("hi"),
	})
	if err != nil {
		log.Fatal(err)
	}
	frame, err := ccp.Append(nil, ccp.Frame{Type: ccp.TypeSend, Sequence: 3, Payload: payload})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%x\n", frame)
	// Output: 232000031f05a1a2a3a4a5a6a7a800000000000000390001056465762d62000000006869
}

// The client checks that the server saw its Hello as it was sent.
func ExampleAnswer_Check() {
	offer := ccp.ProofBinding | ccp.Records | ccp.Ack
	hello := ccp.Hello{Pattern: ccp.PatternXK, Handshake: make([]byte, 48), Capabilities: offer.Names()}
	sent := hello.Marshal()

	received := sent // what arrived at the server
	server := ccp.AllCapabilities
	parsed, err := ccp.ParseHello(received)
	if err != nil {
		log.Fatal(err)
	}
	answer := ccp.NewAnswer(received, server, ccp.Negotiate(parsed.Offer(), server))

	accepted, err := answer.Check(sent, offer)
	fmt.Println(accepted.Names(), err)
	// Output: [proof-binding records ack] <nil>
}

func ExampleCanonicalJSON() {
	sorted, err := ccp.CanonicalJSON([]byte(`{ "b": 1e2, "a": "\u0041", "b": 18446744073709551615 }`))
	fmt.Printf("%s %v\n", sorted, err)
	// Output: {"a":"A","b":18446744073709551615} <nil>
}

func ExampleWindow() {
	var w ccp.Window
	for _, counter := range []uint64{1, 2, 4, 2} {
		fresh, err := w.Mark(counter)
		fmt.Println(counter, fresh, err)
	}
	fmt.Println(w.Ranges())
	// Output:
	// 1 true <nil>
	// 2 true <nil>
	// 4 true <nil>
	// 2 false <nil>
	// [[1 2] [4 4]]
}
