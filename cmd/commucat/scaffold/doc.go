// Package scaffold writes the module of a new plugin: it compiles and passes its
// conformance suite as it is, and is meant to be changed from there.
package scaffold
