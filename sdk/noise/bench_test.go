package noise

import (
	"bytes"
	"fmt"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
)

// BenchmarkRawAEAD is the floor that the records are measured against.
func BenchmarkRawAEAD(b *testing.B) {
	for _, size := range []int{256, 1024, 16 << 10} {
		key := fill32(1)
		aead, err := chacha20poly1305.New(key[:])
		if err != nil {
			b.Fatal(err)
		}
		nonce := make([]byte, chacha20poly1305.NonceSize)
		plain := make([]byte, size)
		buf := make([]byte, 0, size+Overhead)
		b.Run(fmt.Sprintf("seal/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				buf = aead.Seal(buf[:0], nonce, plain, nil)
			}
		})
		sealed := aead.Seal(nil, nonce, plain, nil)
		work := make([]byte, len(sealed))
		b.Run(fmt.Sprintf("open/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				copy(work, sealed)
				if _, err := aead.Open(work[:0], nonce, work, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRecord(b *testing.B) {
	for _, size := range []int{256, 1024, 16 << 10} {
		plain := make([]byte, size)
		b.Run(fmt.Sprintf("seal/%d", size), func(b *testing.B) {
			s := NewSealer(NewCipher(fill32(1)))
			buf := make([]byte, 0, SealedSize(size, MaxRecord))
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				out, err := s.AppendRecords(buf[:0], plain, MaxRecord)
				if err != nil {
					b.Fatal(err)
				}
				buf = out
			}
		})
		b.Run(fmt.Sprintf("open/%d", size), func(b *testing.B) {
			record, err := NewSealer(NewCipher(fill32(1))).AppendRecord(nil, plain)
			if err != nil {
				b.Fatal(err)
			}
			o := NewOpener(NewCipher(fill32(1)))
			work := make([]byte, len(record))
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				copy(work, record)
				o.cipher.counter = 0 // the same record again
				if _, _, err := o.Next(work); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkResponder is the server's whole share of a handshake: the state, all
// messages, both record ciphers.
func BenchmarkResponder(b *testing.B) {
	for _, test := range []struct {
		name    string
		pattern Pattern
		pq      bool
	}{{"XK", XK, false}, {"IK", IK, false}, {"XKpsk3", XK, true}, {"IKpsk2", IK, true}} {
		b.Run(test.name, func(b *testing.B) {
			psk, e2 := fill32(5), fill32(0x22)
			client, server := example(b, test.pattern, test.pq)
			if test.pq {
				_, _ = client.SetPSK(psk), server.SetPSK(psk)
			}
			m1, _ := client.WriteMessage(nil, nil)
			_, _ = server.ReadMessage(nil, m1)
			m2, _ := server.WriteMessage(nil, []byte("{}"))
			_, _ = client.ReadMessage(nil, m2)
			var m3 []byte
			if test.pattern == XK {
				m3, _ = client.WriteMessage(nil, nil)
			}
			static := KeyPairFrom(fill32(0x33))
			buf := make([]byte, 0, 256)
			b.ReportAllocs()
			for b.Loop() {
				h, err := NewHandshake(Config{
					Pattern: test.pattern, PQ: test.pq, Prologue: []byte(DefaultPrologue), Static: static, Random: bytes.NewReader(e2[:]),
				})
				if err != nil {
					b.Fatal(err)
				}
				if test.pq {
					_ = h.SetPSK(psk)
				}
				if _, err := h.ReadMessage(buf, m1); err != nil {
					b.Fatal(err)
				}
				if _, err := h.WriteMessage(buf, []byte("{}")); err != nil {
					b.Fatal(err)
				}
				if m3 != nil {
					if _, err := h.ReadMessage(buf, m3); err != nil {
						b.Fatal(err)
					}
				}
				if _, _, err := h.Split(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPQServer(b *testing.B) {
	ek, _, _ := PQClient(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := PQServer(ek, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkX25519 is the curve alone, to hold Responder against: XK takes one key pair
// and three shared secrets.
func BenchmarkX25519(b *testing.B) {
	pair := KeyPairFrom(fill32(2))
	b.Run("pair", func(b *testing.B) {
		for b.Loop() {
			pair = KeyPairFrom(pair.Private)
		}
	})
	b.Run("shared", func(b *testing.B) {
		for b.Loop() {
			if _, err := DH(pair.Private, pair.Public); err != nil {
				b.Fatal(err)
			}
		}
	})
}
