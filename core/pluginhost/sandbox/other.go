//go:build !linux

package sandbox

import (
	"errors"
	"fmt"
	"io"
)

// ErrSystem: the sandbox is Linux's.
var ErrSystem = errors.New("plugin processes need Linux")

// Main refuses.
func Main(_ []string, stderr io.Writer) int {
	fmt.Fprintf(stderr, "sandbox: %v\n", ErrSystem)
	return 126
}

// Probe finds nothing.
func Probe() Kernel { return Kernel{} }

// Inspect refuses.
func Inspect(int, Profile, Kernel) ([]Item, error) { return nil, ErrSystem }

// Confined finds none.
func Confined(int) bool { return false }

// Undumpable does nothing.
func Undumpable() error { return nil }
