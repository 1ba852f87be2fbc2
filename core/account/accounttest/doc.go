// Package accounttest holds a storage.Directory in memory for tests: it can be
// dumped, to prove that an operation changed nothing, made to fail, and asked to
// lose races.
package accounttest
