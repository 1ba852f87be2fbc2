package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"os"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
	"github.com/commucat/commucat/sdk/storage"
	"github.com/commucat/commucat/sdk/transport"
)

// Limits of errors, in bytes and entries.
const (
	maxText     = 4 << 10
	maxMistakes = 256
)

var known = []struct {
	code wirepb.Known
	err  error
}{
	{wirepb.Known_KNOWN_CANCELED, context.Canceled},
	{wirepb.Known_KNOWN_DEADLINE, context.DeadlineExceeded},
	{wirepb.Known_KNOWN_NET_CLOSED, net.ErrClosed},
	{wirepb.Known_KNOWN_TIMEOUT, os.ErrDeadlineExceeded},
	{wirepb.Known_KNOWN_UNSUPPORTED, errors.ErrUnsupported},
	{wirepb.Known_KNOWN_REFUSED, transport.ErrRefused},
	{wirepb.Known_KNOWN_EOF, io.EOF},
}

// FromError writes an error; nil is nil.
func FromError(err error) *wirepb.Error {
	if err == nil {
		return nil
	}
	e := &wirepb.Error{Kind: uint32(sdk.KindOf(err)), Text: clean(err.Error(), maxText)}
	for _, k := range known {
		if errors.Is(err, k.err) {
			e.Known = k.code
			break
		}
	}
	var conflict *storage.ConflictError
	if errors.As(err, &conflict) {
		e.Conflict = &wirepb.Conflict{
			Kind: []byte(conflict.Kind), Id: []byte(conflict.ID), Index: int64(conflict.Index), Version: conflict.Version,
		}
	}
	for _, m := range mistakes(err) {
		if len(e.Mistakes) == maxMistakes {
			break
		}
		e.Mistakes = append(e.Mistakes, &wirepb.Mistake{
			Key: clean(m.Key, maxText), Place: fromPosition(m.Pos), Text: clean(m.Text, maxText), Suggestion: clean(m.Suggestion, maxText),
		})
	}
	return e
}

func mistakes(err error) sdk.ConfigErrors {
	var many sdk.ConfigErrors
	if errors.As(err, &many) {
		return many
	}
	var one *sdk.ConfigError
	if errors.As(err, &one) {
		return sdk.ConfigErrors{one}
	}
	return nil
}

// ToError reads an error. What callers compare with is found by errors.Is and
// errors.As again.
func ToError(e *wirepb.Error) error {
	if e == nil {
		return nil
	}
	kind := sdk.ErrorKind(0)
	if e.Kind <= uint32(sdk.Closed) {
		kind = sdk.ErrorKind(e.Kind)
	}
	text := clean(e.Text, maxText)
	if len(e.Mistakes) > 0 {
		return toMistakes(e.Mistakes)
	}
	if c := e.Conflict; c != nil && len(c.Kind) <= storage.MaxKind && len(c.Id) <= storage.MaxID {
		return &storage.ConflictError{Key: storage.Key{Kind: string(c.Kind), ID: string(c.Id)}, Index: int(c.Index), Version: c.Version}
	}
	switch {
	case kind == sdk.Full && text == storage.ErrFull.Error():
		return storage.ErrFull
	case kind == sdk.Closed && text == storage.ErrClosed.Error():
		return storage.ErrClosed
	}
	plain := &sdk.Error{Kind: kind, Text: text}
	for _, k := range known {
		if k.code == e.Known {
			return &sameError{plain, k.err}
		}
	}
	return plain
}

// sameError is an error of the other process that also is one of the known errors.
type sameError struct {
	err  *sdk.Error
	same error
}

func (e *sameError) Error() string   { return e.err.Error() }
func (e *sameError) Unwrap() []error { return []error{e.err, e.same} }

// Timeout makes a deadline a net.Error.
func (e *sameError) Timeout() bool {
	return e.same == os.ErrDeadlineExceeded || e.same == context.DeadlineExceeded
}

// Temporary implements net.Error.
func (e *sameError) Temporary() bool { return e.Timeout() }

func toMistakes(in []*wirepb.Mistake) error {
	out := make(sdk.ConfigErrors, 0, min(len(in), maxMistakes))
	for _, m := range in[:min(len(in), maxMistakes)] {
		out = append(out, &sdk.ConfigError{
			Key: clean(m.GetKey(), maxText), Pos: toPosition(m.GetPlace()), Text: clean(m.GetText(), maxText), Suggestion: clean(m.GetSuggestion(), maxText),
		})
	}
	return out
}

// CallError explains the error of a gRPC call: ctx's own error where it has ended,
// else why the process does not answer.
func CallError(ctx context.Context, err, gone error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if gone != nil {
		return &sdk.Error{Kind: sdk.Unavailable, Err: gone}
	}
	s, _ := status.FromError(err)
	switch s.Code() {
	case codes.Canceled:
		return context.Canceled
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	case codes.Unimplemented:
		return &sdk.Error{Kind: sdk.Unsupported, Text: "the plugin does not know this call"}
	case codes.ResourceExhausted:
		return &sdk.Error{Kind: sdk.Invalid, Text: "a message of the plugin is longer than is allowed"}
	}
	return &sdk.Error{Kind: sdk.Unavailable, Text: "the plugin does not answer: " + clean(s.Message(), 200)}
}
