package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/commucat/commucat/core/pluginhost/sandbox"
)

func main() { os.Exit(start()) }

func start() int {
	if sandbox.Requested(os.Args) { // not a command: the relay starts its plugins through it
		return sandbox.Main(os.Args, os.Stderr)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, streams{os.Stdin, os.Stdout, os.Stderr}, os.Args[1:])
}
