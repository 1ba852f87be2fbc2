package link_test

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"log"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/link"
)

func ExampleParse() {
	root := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{0x42}, ed25519.SeedSize))
	text, err := link.Link{
		Kind:         link.Address,
		NoiseVersion: 1,
		Domain:       "relay.example",
		Endpoints:    []link.Endpoint{{Transport: "sse", Host: "relay.example", Port: 443}},
		Capabilities: uint64(ccp.ProofBinding | ccp.Records | ccp.Ack),
	}.Sign(root)
	if err != nil {
		log.Fatal(err)
	}

	l, err := link.Parse(text)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(l.Kind, l.Domain, l.Endpoints[0].Transport, l.Promises().Names())
	// Output: address relay.example sse [proof-binding records ack]
}

func ExampleOpenCatalogue() {
	root := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{0x42}, ed25519.SeedSize))
	issued := time.Unix(1799990000, 0)
	signed, err := link.SignCatalogue(link.Catalogue{
		Domain: "relay.example", Serial: 7, Issued: issued, Expires: issued.Add(90 * 24 * time.Hour),
		Noise: []link.NoiseKey{{Version: 3, NotAfter: issued.Add(60 * 24 * time.Hour)}},
		CA:    [][32]byte{{1}},
	}, root)
	if err != nil {
		log.Fatal(err)
	}

	catalogue, err := link.OpenCatalogue(signed, root.Public().(ed25519.PublicKey))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(catalogue.Newest().Version)
	fmt.Println(catalogue.Check("relay.example", issued, 8))
	// Output:
	// 3
	// catalogue: older than one seen before
}
