package noise

import (
	"bytes"
	"io"
	"slices"
	"testing"
	"time"

	flynn "github.com/flynn/noise"
)

// BenchmarkFlynn holds our responder of XK against flynn/noise by itself: with the key
// agreement that it brings along, and with ours. They take turns, and what counts are
// the ratios of their medians, which depend little on what else runs on the machine.
func BenchmarkFlynn(b *testing.B) {
	run := []func() error{newXK(b), newFlynnXK(b, flynn.DH25519), newFlynnXK(b, curve{})}
	all := make([][]time.Duration, len(run))
	for b.Loop() {
		for i, f := range run {
			all[i] = append(all[i], timed(b, f))
		}
	}
	ours, theirs, mixed := median(all[0]), median(all[1]), median(all[2])
	b.ReportMetric(0, "ns/op") // of all together, which says nothing
	b.ReportMetric(ours.Seconds()*1e6, "ours-µs")
	b.ReportMetric(theirs.Seconds()*1e6, "flynn-µs")
	b.ReportMetric(ours.Seconds()/theirs.Seconds(), "of-flynn")
	b.ReportMetric(ours.Seconds()/mixed.Seconds(), "of-flynn-with-our-curve")
}

func timed(b *testing.B, f func() error) time.Duration {
	began := time.Now()
	if err := f(); err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// newXK answers a function that does the server's whole share of an XK handshake.
func newXK(b *testing.B) func() error {
	e2 := fill32(0x22)
	client, server := example(b, XK, false)
	m1, _ := client.WriteMessage(nil, nil)
	_, _ = server.ReadMessage(nil, m1)
	m2, _ := server.WriteMessage(nil, []byte("{}"))
	_, _ = client.ReadMessage(nil, m2)
	m3, _ := client.WriteMessage(nil, nil)
	static := KeyPairFrom(fill32(0x33))
	buf := make([]byte, 0, 256)
	return func() error {
		h, err := NewHandshake(Config{
			Pattern: XK, Prologue: []byte(DefaultPrologue), Static: static, Random: bytes.NewReader(e2[:]),
		})
		if err != nil {
			return err
		}
		if _, err := h.ReadMessage(buf, m1); err != nil {
			return err
		}
		if _, err := h.WriteMessage(buf, []byte("{}")); err != nil {
			return err
		}
		if _, err := h.ReadMessage(buf, m3); err != nil {
			return err
		}
		_, _, err = h.Split()
		return err
	}
}

// newFlynnXK is newXK by flynn/noise alone.
func newFlynnXK(b *testing.B, dh flynn.DHFunc) func() error {
	suite := flynn.NewCipherSuite(dh, flynn.CipherChaChaPoly, flynn.HashBLAKE2s)
	static, peer := KeyPairFrom(fill32(0x33)).flynn(), KeyPairFrom(fill32(0x11)).flynn()
	e1, e2 := fill32(0x44), fill32(0x22)
	start := func(initiator bool, key flynn.DHKey, random io.Reader) (*flynn.HandshakeState, error) {
		c := flynn.Config{
			CipherSuite: suite, Random: random, Pattern: flynn.HandshakeXK, Initiator: initiator,
			Prologue: []byte(DefaultPrologue), StaticKeypair: key,
		}
		if initiator {
			c.PeerStatic = static.Public
		}
		return flynn.NewHandshakeState(c)
	}
	buf := make([]byte, 0, 256)
	respond := func(m1 []byte, m3 func(m2 []byte) ([]byte, error)) error {
		h, err := start(false, static, bytes.NewReader(e2[:]))
		if err != nil {
			return err
		}
		if _, _, _, err := h.ReadMessage(buf, m1); err != nil {
			return err
		}
		m2, _, _, err := h.WriteMessage(buf, []byte("{}"))
		if err != nil {
			return err
		}
		last, err := m3(m2)
		if err != nil {
			return err
		}
		_, _, _, err = h.ReadMessage(buf, last)
		return err
	}
	client, err := start(true, peer, bytes.NewReader(e1[:]))
	if err != nil {
		b.Fatal(err)
	}
	m1, _, _, err := client.WriteMessage(nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	var m3 []byte
	err = respond(m1, func(m2 []byte) (_ []byte, err error) {
		if _, _, _, err := client.ReadMessage(nil, m2); err != nil {
			return nil, err
		}
		m3, _, _, err = client.WriteMessage(nil, nil)
		return m3, err
	})
	if err != nil {
		b.Fatal(err)
	}
	return func() error { return respond(m1, func([]byte) ([]byte, error) { return m3, nil }) }
}
