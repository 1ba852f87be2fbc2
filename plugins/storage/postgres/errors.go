package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// hints say what to do about errors of the server, by SQLSTATE.
var hints = map[string]string{
	"08P01": "the server, or a pooler before it, does not take the settings of the connection; connect to PostgreSQL itself",
	"28P01": "the server refused the password of the role",
	"28000": "the server refused the role; see pg_hba.conf",
	"3D000": "there is no such database: CREATE DATABASE commucat OWNER commucat",
	"42501": "the role may not do this: make it the owner of the schema and of all that is in it; where the schema is still to be made it needs CREATE on the database",
	"42703": notOurs,
	"42P01": notOurs,
	"53100": "the server's disk is full",
	"53300": "the server has too many connections; lower storage.connections or raise max_connections",
	"57P03": "the server is starting up",
}

const notOurs = "the tables are not as the relay left them: restore the whole schema from its dump"

// plain turns an error of the driver into one of the contract. Everything that may
// be different the next time is Unavailable, and so is a COMMIT whose answer was
// lost: nothing is known of it.
func plain(op string, err error) error {
	if err == nil {
		return nil
	}
	var known *storage.Error
	var conflict *storage.ConflictError
	// Without what the driver puts around an error of connecting.
	if errors.As(err, &known) {
		return known
	}
	if errors.As(err, &conflict) {
		return conflict
	}
	// Of several servers one may refuse while another is silent.
	var p *pgconn.PgError
	if errors.As(err, &p) && (kindOf(p.Code) == sdk.Denied || kindOf(p.Code) == sdk.NotFound) {
		return said(op, p)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return &storage.Error{Kind: sdk.Unavailable, Op: "postgres: " + op, Text: "no answer in time", Err: contextError(err)}
	}
	if errors.Is(err, errPassed) {
		return &storage.Error{Kind: sdk.Unavailable, Op: "postgres: " + op, Err: errPassed}
	}
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		return &storage.Error{Kind: sdk.Denied, Op: "postgres: " + op, Text: "the server's certificate is not accepted; the key ca names who may sign it", Err: untrusted.Err}
	}
	if p != nil {
		return said(op, p)
	}
	if strings.Contains(err.Error(), "closed pool") {
		return storage.ErrClosed
	}
	return &storage.Error{Kind: sdk.Unavailable, Op: "postgres: " + op, Text: "the connection to the server failed", Err: cause(err)}
}

func said(op string, p *pgconn.PgError) error {
	return &storage.Error{Kind: kindOf(p.Code), Op: "postgres: " + op, Text: hints[p.Code], Err: &serverError{p.Code, p.Message}}
}

// contextError keeps what errors.Is asks for and drops the rest.
func contextError(err error) error {
	if errors.Is(err, context.Canceled) {
		return context.Canceled
	}
	return context.DeadlineExceeded
}

// cause is the innermost error: the driver's texts around it repeat the connection
// settings.
func cause(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// serverError is what the server said, without the statement and its values.
type serverError struct{ code, message string }

func (e *serverError) Error() string { return e.message + " (SQLSTATE " + e.code + ")" }

// kindOf sorts SQLSTATEs (PostgreSQL documentation, appendix A).
func kindOf(code string) sdk.ErrorKind {
	switch {
	case code == "28P01", code == "28000":
		return sdk.Denied
	case code == "3D000":
		return sdk.NotFound
	case strings.HasPrefix(code, "XX"):
		return sdk.Corrupt
	case code == "42501", code == "42703", code == "42P01":
		return sdk.Unavailable // somebody changed the tables, and may change them back
	case strings.HasPrefix(code, "22"), strings.HasPrefix(code, "42"):
		return sdk.Other // a mistake of ours, which repeating does not mend
	}
	// Connections (08), rollbacks by deadlock and serialization (40), resources
	// (53), intervention (57), a read-only standby (25) …
	return sdk.Unavailable
}

// opening says of what a storage cannot be opened by that it stays so: repeating would
// only hide it. A relay that runs waits until it is mended.
func opening(err error) error {
	var known *storage.Error
	var server *serverError
	var unsafe unsafeError
	var misfit misfitError
	if !errors.As(err, &known) {
		return err
	}
	kind := known.Kind
	switch {
	case errors.As(err, &unsafe), errors.As(err, &misfit):
		kind = sdk.Invalid
	case !errors.As(err, &server):
	case server.code == "42501":
		kind = sdk.Denied
	case strings.HasPrefix(server.code, "42"):
		kind = sdk.Invalid
	}
	return &storage.Error{Kind: kind, Op: known.Op, Text: known.Text, Err: known.Err}
}
