// Package plugintest holds the conformance suites of the three plugin kinds: what the
// relay relies on, as tests that an author runs against a plugin with one call.
package plugintest
