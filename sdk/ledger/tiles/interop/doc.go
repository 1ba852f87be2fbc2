// Package interop verifies logs of sdk/ledger/tiles with a reader that follows the
// C2SP forms independently. It is a module of its own so that the reader's
// dependencies stay out of the project's.
package interop
