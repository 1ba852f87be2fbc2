package identity_test

import (
	"bytes"
	"fmt"
	"log"
	"time"

	"github.com/commucat/commucat/sdk/identity"
)

// A relay certifies a device; the device proves itself in a handshake.
func Example() {
	check := func(err error) {
		if err != nil {
			log.Fatal(err)
		}
	}
	ca, err := identity.NewCA(bytes.Repeat([]byte{1}, 32))
	check(err)
	device, err := identity.GenerateDevice(nil)
	check(err)
	now := time.Unix(1_760_000_000, 0)
	certificate, err := ca.Issue("user-1", "dev-a", device.Public(), now, 0, nil)
	check(err)
	wire, err := certificate.MarshalJSON()
	check(err)

	received, err := identity.ParseCertificate(wire)
	check(err)
	fmt.Println("signed by the ca:", received.Verify(ca.Public()) == nil)
	fmt.Println("valid for a year:", received.Valid(now.AddDate(1, 0, 0)) == nil)

	_, clientStatic := device.Static()
	h := make([]byte, 32) // the hash of the finished Noise handshake
	proof := identity.SignConfirm(device, "relay.example", "dev-a", clientStatic, h)
	err = identity.VerifyConfirm(device.Public(), "relay.example", "dev-a", clientStatic, h, proof[:])
	fmt.Println("holds its key:", err == nil)
	h[0]++
	err = identity.VerifyConfirm(device.Public(), "relay.example", "dev-a", clientStatic, h, proof[:])
	fmt.Println("in another handshake:", err)
	// Output:
	// signed by the ca: true
	// valid for a year: false
	// holds its key: true
	// in another handshake: identity: signature does not verify
}
