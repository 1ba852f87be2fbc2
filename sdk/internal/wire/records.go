package wire

import (
	"time"

	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
	"github.com/commucat/commucat/sdk/storage"
)

// FromKeys writes keys.
func FromKeys(in []storage.Key) *wirepb.Keys {
	out := &wirepb.Keys{Keys: make([]*wirepb.RecordKey, len(in))}
	for i, k := range in {
		out.Keys[i] = &wirepb.RecordKey{Kind: []byte(k.Kind), Id: []byte(k.ID)}
	}
	return out
}

// ToKeys appends keys to out.
func ToKeys(out []storage.Key, in *wirepb.Keys) []storage.Key {
	for _, k := range in.GetKeys() {
		out = append(out, storage.Key{Kind: string(k.GetKind()), ID: string(k.GetId())})
	}
	return out
}

// FromRecord writes a record.
func FromRecord(r *storage.Record) *wirepb.Record {
	return &wirepb.Record{Kind: []byte(r.Kind), Id: []byte(r.ID), Version: r.Version, Value: r.Value, Expires: FromTime(r.Expires)}
}

// ToRecord reads a record, checked against the contract's limits.
func ToRecord(r *wirepb.Record) (storage.Record, error) {
	if len(r.GetKind()) > storage.MaxKind || len(r.GetId()) > storage.MaxID || len(r.GetValue()) > storage.MaxValue {
		return storage.Record{}, corrupt("a record over a limit")
	}
	out := storage.Record{Key: storage.Key{Kind: string(r.Kind), ID: string(r.Id)}, Version: r.Version, Value: r.Value, Expires: ToTime(r.Expires)}
	switch {
	case out.Version == 0:
		out.Value, out.Expires = nil, time.Time{}
	case out.Value == nil:
		out.Value = []byte{}
	}
	return out, nil
}

// FromWrite writes a write.
func FromWrite(w *storage.Write) *wirepb.RecordWrite {
	return &wirepb.RecordWrite{
		Kind: []byte(w.Kind), Id: []byte(w.ID), Expect: w.Expect, Value: w.Value, Expires: FromTime(w.Expires), CheckOnly: w.CheckOnly,
	}
}

// ToWrite reads a write.
func ToWrite(w *wirepb.RecordWrite) storage.Write {
	return storage.Write{
		Key: storage.Key{Kind: string(w.Kind), ID: string(w.Id)}, Expect: w.Expect, Value: w.Value, Expires: ToTime(w.Expires), CheckOnly: w.CheckOnly,
	}
}

// Bytes writes texts, which may be any bytes.
func Bytes(in []string) [][]byte {
	out := make([][]byte, len(in))
	for i, s := range in {
		out[i] = []byte(s)
	}
	return out
}

// Texts appends texts to out.
func Texts(out []string, in [][]byte) []string {
	for _, b := range in {
		out = append(out, string(b))
	}
	return out
}

// FromValues writes byte strings of which nil is "absent".
func FromValues(in [][]byte) *wirepb.Values {
	out := &wirepb.Values{Values: make([]*wirepb.OptionalBytes, len(in))}
	for i, v := range in {
		out.Values[i] = &wirepb.OptionalBytes{Value: v}
	}
	return out
}

// ToValues appends byte strings to out.
func ToValues(out [][]byte, in *wirepb.Values) [][]byte {
	for _, v := range in.GetValues() {
		out = append(out, v.GetValue())
	}
	return out
}

// FromBeat writes a presence beat.
func FromBeat(b *storage.Beat) *wirepb.Beat {
	return &wirepb.Beat{Device: []byte(b.Device), State: []byte(b.State), User: b.User, Ttl: int64(b.TTL)}
}

// ToBeat reads a presence beat.
func ToBeat(b *wirepb.Beat) storage.Beat {
	return storage.Beat{Device: string(b.GetDevice()), State: string(b.GetState()), User: b.GetUser(), TTL: time.Duration(b.GetTtl())}
}
