//go:build !linux

package agent

import "os/exec"

// bequeath has no means here.
func bequeath(*exec.Cmd) {}
