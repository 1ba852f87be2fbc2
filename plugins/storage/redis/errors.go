package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// plain turns an error of the driver into one of the contract.
func plain(op string, err error) error {
	var known *storage.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case errors.Is(err, redis.ErrClosed):
		return storage.ErrClosed
	case errors.Is(err, context.Canceled):
		return &storage.Error{Kind: sdk.Unavailable, Op: "redis: " + op, Err: context.Canceled}
	}
	e := &storage.Error{Kind: sdk.Unavailable, Op: "redis: " + op, Err: err}
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		e.Kind, e.Text = sdk.Denied, "the server's certificate is not accepted; the key ca names who may sign it"
		return e
	}
	var said redis.Error
	if errors.As(err, &said) {
		word, _, _ := strings.Cut(said.Error(), " ")
		switch word {
		case "WRONGPASS", "NOAUTH":
			e.Kind, e.Text = sdk.Denied, "the server refused the user or the password"
		case "NOPERM":
			e.Kind, e.Text = sdk.Denied, "the user may not do this; it needs the commands of the handbook's ACL line"
		case "OOM":
			e.Kind, e.Text = sdk.Unavailable, "the server's memory is full; raise maxmemory"
		case "READONLY":
			e.Text = "the server is a replica"
		}
	}
	return e
}
