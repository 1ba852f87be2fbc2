package transfer

import (
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/storage"
)

// What differs has another digest; what a backend may round has the same.
func TestDigest(t *testing.T) {
	at := time.Unix(1_800_000_000, 250_000_000)
	key := func(kind, id string) storage.Key { return storage.Key{Kind: kind, ID: id} }
	sums := map[[32]byte]string{}
	for name, f := range map[string]func(digest){
		"nothing":          func(digest) {},
		"record":           func(d digest) { d.record(&storage.Record{Key: key("ab", "c"), Value: []byte("v")}) },
		"split elsewhere":  func(d digest) { d.record(&storage.Record{Key: key("a", "bc"), Value: []byte("v")}) },
		"another value":    func(d digest) { d.record(&storage.Record{Key: key("ab", "c"), Value: []byte("w")}) },
		"one that expires": func(d digest) { d.record(&storage.Record{Key: key("ab", "c"), Value: []byte("v"), Expires: at}) },
		"mark":             func(d digest) { d.mark(&storage.Mark{Key: "abc", Value: []byte("v")}) },
		"message":          func(d digest) { d.message(&storage.Envelope{Payload: []byte("v"), Expires: at}) },
		"another second":   func(d digest) { d.message(&storage.Envelope{Payload: []byte("v"), Expires: at.Add(time.Second)}) },
		"another id":       func(d digest) { d.message(&storage.Envelope{ID: [16]byte{1}, Payload: []byte("v"), Expires: at}) },
		"queue":            func(d digest) { d.queue("q", 1, [32]byte{}) },
		"longer queue":     func(d digest) { d.queue("q", 2, [32]byte{}) },
	} {
		d := newDigest()
		f(d)
		s := d.sum()
		if other, ok := sums[s]; ok {
			t.Errorf("%s has the digest of %s", name, other)
		}
		sums[s] = name
	}
	message := func(expires time.Time) [32]byte {
		d := newDigest()
		d.message(&storage.Envelope{Position: uint64(expires.Nanosecond()), Payload: []byte("v"), Expires: expires})
		return d.sum()
	}
	if message(at) != message(at.Add(750*time.Millisecond)) {
		t.Error("positions and parts of a second count")
	}
}
