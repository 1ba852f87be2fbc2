//go:build !linux

package host

import (
	"context"
	"os"

	"github.com/commucat/commucat/sdk"
)

// errSystem answers everything on systems where plugins cannot be processes.
var errSystem error = &sdk.Error{Kind: sdk.Unsupported, Text: "plugin processes need Linux; elsewhere plugins are compiled in"}

// Process is a started plugin binary.
type Process struct{}

// Start needs Linux.
func Start(context.Context, Options) (*Process, error) { return nil, errSystem }

// Describe needs Linux.
func Describe(context.Context, *os.File) (Description, error) { return Description{}, errSystem }

// DescribeWith needs Linux.
func DescribeWith(context.Context, Options) (Description, error) { return Description{}, errSystem }

// Plugins are the plugins of the binary.
func (*Process) Plugins() []sdk.Plugin { return nil }

// Description is what the binary says of itself.
func (*Process) Description() Description { return Description{} }

// PID is the process's number.
func (*Process) PID() int { return 0 }

// Done is closed when the process has ended.
func (*Process) Done() <-chan struct{} { c := make(chan struct{}); close(c); return c }

// Err says why the process ended.
func (*Process) Err() error { return errSystem }

// Ping asks the process whether it still answers.
func (*Process) Ping(context.Context) error { return errSystem }

// Check asks what is wrong with a configuration.
func (*Process) Check(context.Context, sdk.Plugin, map[string]any) error { return errSystem }

// Drain ends the plugin's listeners and waits for its streams.
func (*Process) Drain(context.Context) error { return nil }

// Close ends the process.
func (*Process) Close() error { return nil }

// Stats counts.
func (*Process) Stats() Stats { return Stats{} }
