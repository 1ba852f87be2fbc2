// Package sandboxtest tries what a confined process must not be able to do. A test
// starts it in the sandbox, and once outside to see that the attempts are real.
package sandboxtest
