// Commucat is the relay, its operator's commands and its client in one program.
//
// Results go to standard output, everything else to standard error. Exit codes:
// 0 done, 1 it did not work, 2 wrong usage, 3 refused by the other side, 4 timed
// out, 78 configuration error.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(start()) }

func start() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, streams{os.Stdin, os.Stdout, os.Stderr}, os.Args[1:])
}
