// Package metrics holds the relay's instruments: one Prometheus registry of its
// own, one Set of named instruments, and nothing global.
//
// Every method of *Set may be called on a nil receiver, which does nothing, so
// that packages and tests need no registry. All methods may be called
// concurrently and none allocates for a label value that was seen before.
//
// No instrument carries an address, a device, a user or a token. Labels come
// from small closed sets; a vector that grows past MaxLabels values counts the
// rest under "other", so that a hostile input cannot grow the registry.
package metrics
