package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the test binary be the program: scripts and tests start it as
// "commucat".
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"commucat": func() { os.Exit(start()) }})
}
