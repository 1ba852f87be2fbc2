package identity

// ErrorKind says what was refused.
type ErrorKind uint8

// The kinds of Error.
const (
	KindSeed        ErrorKind = iota + 1 // a seed shorter than 32 bytes
	KindPublic                           // a public key that is not canonical, not on the curve or of small order
	KindSignature                        // a signature that does not verify
	KindProof                            // a static proof that is malformed or does not verify
	KindCertificate                      // a certificate that is malformed
	KindIssuer                           // a certificate of another CA
	KindValidity                         // a certificate outside its dates
	KindRandom                           // the source of randomness failed
)

// Error is the typed error of this package. Two of them match under errors.Is
// when their kinds are equal. No error holds a secret.
type Error struct {
	Kind   ErrorKind
	Detail string
	Err    error // the cause, may be nil
}

// Error names the input at fault.
func (e *Error) Error() string {
	if e.Err != nil {
		return "identity: " + e.Detail + ": " + e.Err.Error()
	}
	return "identity: " + e.Detail
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is an Error of the same kind.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Kind == e.Kind
}

// One error of each kind that callers decide on, for errors.Is.
var (
	// ErrSeed: a seed shorter than 32 bytes.
	ErrSeed = &Error{Kind: KindSeed, Detail: "seed is shorter than 32 bytes"}
	// ErrPublic: a public key that must not be used.
	ErrPublic = &Error{Kind: KindPublic, Detail: "public key is not canonical or of small order"}
	// ErrSignature: a signature that does not verify.
	ErrSignature = &Error{Kind: KindSignature, Detail: "signature does not verify"}
	// ErrProof: a static proof that does not verify.
	ErrProof = &Error{Kind: KindProof, Detail: "proof does not verify"}
	// ErrCertificate: a malformed certificate.
	ErrCertificate = &Error{Kind: KindCertificate, Detail: "malformed certificate"}
	// ErrIssuer: a certificate of another CA.
	ErrIssuer = &Error{Kind: KindIssuer, Detail: "certificate of another issuer"}
	// ErrValidity: a certificate outside its dates.
	ErrValidity = &Error{Kind: KindValidity, Detail: "certificate is not valid now"}
)
