package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/commucat/commucat/core/pluginhost/sandbox"
	"github.com/commucat/commucat/sdk/plugin"
)

// TestMain lets the test binary be the program: scripts and tests start it as
// "commucat".
func TestMain(m *testing.M) {
	if raceDetector && os.Getenv("GORACE") == "" {
		// The race detector makes every process wait for a second when it ends.
		os.Setenv("GORACE", "atexit_sleep_ms=10")
	}
	if sandbox.Requested(os.Args) {
		os.Exit(start())
	}
	if os.Getenv("COMMUCAT_PLUGIN") != "" { // it is a plugin as well
		plugin.Serve(plainTransport(), prisoner())
	}
	testscript.Main(m, map[string]func(){"commucat": func() { os.Exit(start()) }})
}
