package identity

import (
	"testing"

	"lukechampine.com/blake3"
)

func BenchmarkVerifyConfirm(b *testing.B) {
	d := device(b, 1)
	public, static, h := d.Public(), [32]byte{9}, make([]byte, 32)
	proof := SignConfirm(d, "relay.example", "dev-a", static, h)
	b.ReportAllocs()
	for b.Loop() {
		if err := VerifyConfirm(public, "relay.example", "dev-a", static, h, proof[:]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyStatic(b *testing.B) {
	d := device(b, 1)
	public, static := d.Public(), [32]byte{9}
	p, _ := ProveStatic(d, "relay.example", "dev-a", static, nil)
	b.ReportAllocs()
	for b.Loop() {
		if err := VerifyStatic(public, "relay.example", "dev-a", static, p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckPublic(b *testing.B) {
	public := device(b, 1).Public()
	b.ReportAllocs()
	for b.Loop() {
		if err := CheckPublic(public); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseCertificate(b *testing.B) {
	c, _ := authority(b).Issue("user-1", "device-1", device(b, 1).Public(), issued, 0, nil)
	wire, _ := c.MarshalJSON()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseCertificate(wire); err != nil {
			b.Fatal(err)
		}
	}
}

// The inputs here are seeds of 64 bytes and contexts of about 250.
func BenchmarkBLAKE3(b *testing.B) {
	in := make([]byte, 250)
	for b.Loop() {
		blake3.Sum256(in)
	}
}
