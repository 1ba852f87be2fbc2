package reference

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/sdk/storage"
)

// bytea is a byte string as PostgreSQL writes it in JSON: \x and hex digits.
type bytea []byte

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *bytea) UnmarshalText(t []byte) error {
	digits, ok := bytes.CutPrefix(t, []byte(`\x`))
	if !ok {
		return errors.New("no byte string")
	}
	out := make([]byte, hex.DecodedLen(len(digits)))
	_, err := hex.Decode(out, digits)
	*b = out
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (b bytea) MarshalText() ([]byte, error) { return hex.AppendEncode([]byte(`\x`), b), nil }

// key is the byte string as a key, or why it is none.
func (b bytea) key() (k [32]byte, why string) {
	if copy(k[:], b); len(b) != len(k) {
		why = "its key has not 32 bytes"
	}
	return k, why
}

// stamp is a time as PostgreSQL writes it; one that is infinite, or that RFC 3339 cannot
// say, is zero.
type stamp struct{ at time.Time }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *stamp) UnmarshalText(t []byte) error {
	at, err := time.Parse(time.RFC3339Nano, string(t))
	if err == nil && at.Year() >= 1970 {
		s.at = at.UTC().Truncate(time.Microsecond)
	}
	return nil
}

type userRow struct {
	Handle  string `json:"handle"`
	Display string `json:"display_name"`
	Avatar  string `json:"avatar_url"`
	Domain  string `json:"domain"`
	Created stamp  `json:"created_at"`
}

type deviceRow struct {
	Public  bytea  `json:"pubkey"`
	Status  string `json:"status"`
	Created stamp  `json:"created_at"`
}

type eventRow struct {
	Public   bytea `json:"public_key"`
	Recorded stamp `json:"recorded_at"`
}

type rotationRow struct {
	Old     bytea `json:"old_public_key"`
	Applied stamp `json:"applied_at"`
}

type groupRow struct {
	Owner string `json:"owner_device"`
}

type memberRow struct {
	Role   string `json:"role"`
	Joined stamp  `json:"joined_at"`
}

type blobRow struct {
	Payload string `json:"payload"`
}

type requestRow struct {
	Status string `json:"status"`
}

type countRow struct {
	Rows uint64 `json:"rows"`
}

// Reasons for which a row itself is left out.
const (
	whyTooLong = "it is longer than a megabyte"
	whyBroken  = "it cannot be read"
)

// row reads a record of the source.
func row[T any](r *storage.Record) (v T, why string) {
	var long struct {
		TooLong int `json:"too_long"`
	}
	if !utf8.Valid(r.Value) || !utf8.ValidString(r.ID) || json.Unmarshal(r.Value, &long) != nil {
		return v, whyBroken
	}
	if long.TooLong > 0 {
		return v, whyTooLong
	}
	if json.Unmarshal(r.Value, &v) != nil {
		return v, whyBroken
	}
	return v, ""
}

// split takes a key of two columns apart.
func split(id string) (first, second string) {
	first, second, _ = strings.Cut(id, "\x00")
	return first, second
}

// friends reads a friend list: an array of objects with "user_id", or "id" in older ones,
// and "alias". What else is in them is ignored; entries without an id are kept as they
// are, and fall to the account's rules.
func friends(payload string) ([]account.Friend, bool) {
	var list []struct {
		User  string  `json:"user_id"`
		Old   string  `json:"id"`
		Alias *string `json:"alias"`
	}
	if json.Unmarshal([]byte(payload), &list) != nil {
		return nil, false
	}
	out := make([]account.Friend, len(list))
	for i, f := range list {
		if out[i].User = f.User; f.User == "" {
			out[i].User = f.Old
		}
		if f.Alias != nil {
			out[i].Alias = strings.TrimSpace(*f.Alias)
		}
	}
	return out, true
}

// message is a row of the queue: what the source writes before the frame, and the frame.
type message struct {
	ID      string `json:"envelope_id"`
	Due     *int64 `json:"deliver_after"` // unix µs; nil: infinite
	Expires *int64 `json:"expires_at"`
	Length  int    `json:"length"`
	frame   []byte
}

// maxHead bounds what stands before the frame, in bytes.
const maxHead = 2048

func parseMessage(payload []byte) (m message, ok bool) {
	head, _, ok := bytes.Cut(payload[:min(len(payload), maxHead)], []byte("\n"))
	if !ok || json.Unmarshal(head, &m) != nil {
		return m, false
	}
	m.frame = payload[len(head)+1:]
	return m, true
}
