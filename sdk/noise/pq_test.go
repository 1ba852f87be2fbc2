package noise

import (
	"bytes"
	"crypto/mlkem"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// counting is the byte sequence 00 01 02 …
func counting(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// The worked example of section 10: ek of the seed 00…3f.
func TestWorkedPSK(t *testing.T) {
	ek, _, err := PQClient(bytes.NewReader(counting(64)))
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(ek)
	text := hex.EncodeToString(digest[:])
	if !strings.HasPrefix(text, "0b7934c8") || !strings.HasSuffix(text, "9f398cc9") || len(ek) != PQKeySize {
		t.Errorf("H(ek) = %s", text)
	}
	psk, err := derivePSK(ek, bytes.Repeat([]byte{0xc7}, PQCiphertextSize), fill32(0x5a))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "psk", psk[:], unhex(t, "145fed35232c98c53ebc41b5cdef258a26e523b831357c658f2dc5049b62af46"))
}

// Both halves agree with each other and with the standard library's ML-KEM.
func TestKEM(t *testing.T) {
	ek, secret, err := PQClient(bytes.NewReader(counting(64)))
	if err != nil {
		t.Fatal(err)
	}
	std, err := mlkem.NewDecapsulationKey768(counting(64))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "ek", ek, std.EncapsulationKey().Bytes())
	ct, psk, err := PQServer(ek, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := secret.PSK(ct)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "psk", got[:], psk[:])
	shared, err := std.Decapsulate(ct)
	if err != nil {
		t.Fatal(err)
	}
	want, err := derivePSK(ek, ct, [32]byte(shared))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "psk by crypto/mlkem", psk[:], want[:])

	ct[100] ^= 1
	if other, err := secret.PSK(ct); err != nil || other == psk {
		t.Errorf("a changed ct: %v, same key %v", err, other == psk)
	}
}

func TestKEMRefused(t *testing.T) {
	ek, secret, _ := PQClient(nil)
	high := bytes.Clone(ek)
	high[0], high[1] = 0xff, high[1]|0x0f // first coefficient 4,095, over q
	modulus := bytes.Clone(ek)
	modulus[0], modulus[1] = 0x01, modulus[1]&0xf0|0x0d // exactly q = 3,329
	for name, bad := range map[string][]byte{
		"nil": nil, "short": ek[:PQKeySize-1], "long": append(bytes.Clone(ek), 0), "over q": high, "q": modulus,
	} {
		if _, _, err := PQServer(bad, nil); !errors.Is(err, ErrKEM) {
			t.Errorf("ek %s: %v", name, err)
		}
	}
	for _, n := range []int{0, PQCiphertextSize - 1, PQCiphertextSize + 1} {
		if _, err := secret.PSK(make([]byte, n)); !errors.Is(err, ErrKEM) {
			t.Errorf("ct of %d bytes: %v", n, err)
		}
	}
	broken := iotest.ErrReader(io.ErrUnexpectedEOF)
	if _, _, err := PQClient(broken); !errors.Is(err, &Error{Kind: KindRandom}) {
		t.Errorf("client: %v", err)
	}
	if _, _, err := PQServer(ek, broken); !errors.Is(err, &Error{Kind: KindRandom}) {
		t.Errorf("server: %v", err)
	}
}

// The whole exchange, and that a changed ct ends it like any wrong message.
func TestHybridHandshake(t *testing.T) {
	for _, pattern := range []Pattern{XK, IK} {
		for _, tamper := range []bool{false, true} {
			ek, secret, _ := PQClient(nil)
			client, server := example(t, pattern, true)
			m1, err := client.WriteMessage(nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := server.ReadMessage(nil, m1); err != nil {
				t.Fatal(err)
			}
			ct, psk, err := PQServer(ek, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := server.SetPSK(psk); err != nil {
				t.Fatal(err)
			}
			m2, err := server.WriteMessage(nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if tamper {
				ct[0] ^= 1
			}
			if psk, err = secret.PSK(ct); err != nil {
				t.Fatal(err)
			}
			if err := client.SetPSK(psk); err != nil {
				t.Fatal(err)
			}
			_, err = client.ReadMessage(nil, m2)
			if pattern == XK && err == nil {
				var m3 []byte
				if m3, err = client.WriteMessage(nil, nil); err == nil {
					_, err = server.ReadMessage(nil, m3)
				}
			}
			if tamper != errors.Is(err, ErrDecrypt) || (err == nil) == tamper {
				t.Errorf("%s, tampered %v: %v", pattern, tamper, err)
			}
		}
	}
}

// The psk may come as late as the last message; without it nothing goes on, and
// flynn/noise's silent empty key is never used.
func TestMissingPSK(t *testing.T) {
	client, server := example(t, XK, true)
	m1, _ := client.WriteMessage(nil, nil)
	_, _ = server.ReadMessage(nil, m1)
	m2, _ := server.WriteMessage(nil, nil)
	if _, err := client.ReadMessage(nil, m2); err != nil {
		t.Fatal(err)
	}
	if _, err := client.WriteMessage(nil, nil); !errors.Is(err, ErrPSK) {
		t.Errorf("write: %v", err)
	}
	if err := client.SetPSK(fill32(9)); err != nil {
		t.Fatal(err)
	}
	m3, err := client.WriteMessage(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.ReadMessage(nil, m3); !errors.Is(err, ErrPSK) {
		t.Errorf("read: %v", err)
	}
	_ = server.SetPSK(fill32(9))
	if _, err := server.ReadMessage(nil, m3); err != nil {
		t.Error(err)
	}
	if err := server.SetPSK(fill32(9)); !errors.Is(err, ErrState) {
		t.Errorf("psk after the end: %v", err)
	}
}

// Handshakes of all four protocols run beside each other without sharing state.
func TestConcurrentHandshakes(t *testing.T) {
	for i := range 8 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			client, server := example(t, Pattern(i%2+1), i >= 4)
			if i >= 4 {
				if err := errors.Join(client.SetPSK(fill32(byte(i))), server.SetPSK(fill32(byte(i)))); err != nil {
					t.Fatal(err)
				}
			}
			run(t, client, server, []byte("{}"))
			same(t, "hash", client.Hash(), server.Hash())
		})
	}
}
