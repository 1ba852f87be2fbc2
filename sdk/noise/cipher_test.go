package noise

import (
	"bytes"
	"errors"
	"testing"

	flynn "github.com/flynn/noise"
)

// reference is the same direction by flynn/noise, rekeyed by hand.
func reference(key [32]byte) *flynn.CipherState {
	suite := flynn.NewCipherSuite(curve{}, flynn.CipherChaChaPoly, flynn.HashBLAKE2s)
	return flynn.UnsafeNewCipherState(suite, key, 0)
}

// Over three intervals every record equals flynn/noise's, which is told to
// rekey after each 65,536.
func TestRekeySchedule(t *testing.T) {
	seal, open, want := NewCipher(fill32(7)), NewCipher(fill32(7)), reference(fill32(7))
	plain := []byte("r")
	var a, b []byte
	for i := uint64(0); i < 2*RekeyInterval+3; i++ {
		if i != 0 && i%RekeyInterval == 0 {
			want.Rekey()
		}
		var err error
		if a, err = seal.AppendSeal(a[:0], plain); err != nil {
			t.Fatal(err)
		}
		if b, err = want.Encrypt(b[:0], nil, plain); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Fatalf("record %d differs", i)
		}
		if got, err := open.Open(a[:0], a); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("record %d: %q, %v", i, got, err)
		}
	}
	if seal.Counter() != 2*RekeyInterval+3 || open.Counter() != seal.Counter() {
		t.Errorf("counters %d, %d: not reset, not skipped", seal.Counter(), open.Counter())
	}
}

// The key of an interval is gone after it: record 65,536 under the old key does
// not open, and a peer that never rekeys does not agree any more.
func TestRekeyBoundary(t *testing.T) {
	fixed, open := NewCipher(fill32(7)).WithoutRekey(), NewCipher(fill32(7))
	want := reference(fill32(7))
	for i := range RekeyInterval {
		c, err := fixed.AppendSeal(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := open.Open(nil, c); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
	}
	want.SetNonce(RekeyInterval)
	c, _ := fixed.AppendSeal(nil, nil)
	if w, _ := want.Encrypt(nil, nil, nil); !bytes.Equal(c, w) {
		t.Error("without rekey the key changes")
	}
	if _, err := open.Open(nil, c); !errors.Is(err, ErrDecrypt) {
		t.Errorf("record %d under the old key: %v", RekeyInterval, err)
	}
	if _, err := open.Open(nil, c); !errors.Is(err, ErrDecrypt) {
		t.Errorf("after a failure: %v", err)
	}
}

func TestCounterLimit(t *testing.T) {
	seal, open := NewCipher(fill32(3)), NewCipher(fill32(3))
	seal.counter, open.counter = MaxCounter-1, MaxCounter-1
	last, err := seal.AppendSeal(nil, []byte("last"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open.Open(nil, last); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.AppendSeal(nil, nil); !errors.Is(err, ErrRetired) {
		t.Errorf("seal: %v", err)
	}
	if _, err := open.Open(nil, last); !errors.Is(err, ErrRetired) {
		t.Errorf("open: %v", err)
	}
	if seal.Counter() != MaxCounter {
		t.Errorf("counter %d", seal.Counter())
	}
}

// A batch that would pass the limit is refused before its first record.
func TestBatchAtTheLimit(t *testing.T) {
	s := NewSealer(NewCipher(fill32(3)))
	s.cipher.counter = MaxCounter - 1
	dst := []byte("queued")
	out, err := s.AppendRecords(dst, make([]byte, 100), 50)
	if !errors.Is(err, ErrRetired) || !bytes.Equal(out, dst) || s.Counter() != MaxCounter-1 {
		t.Errorf("%q, %v, counter %d", out, err, s.Counter())
	}
	if _, err := s.AppendRecords(dst, make([]byte, 34), 50); err != nil {
		t.Errorf("one record: %v", err)
	}
}

func TestSealInPlace(t *testing.T) {
	text := []byte("in place")
	buf := make([]byte, len(text), len(text)+Overhead)
	copy(buf, text)
	sealed, err := NewCipher(fill32(1)).AppendSeal(buf[:0], buf)
	if err != nil || &sealed[0] != &buf[0] {
		t.Fatal("not in place", err)
	}
	plain, err := NewCipher(fill32(1)).Open(sealed[:0], sealed)
	if err != nil || &plain[0] != &buf[0] || !bytes.Equal(plain, text) {
		t.Errorf("%q, %v", plain, err)
	}
}
