// Command release prepares releases and proves that they can be used.
//
//	go run ./internal/release prepare [-bom DIR] [-prove=false] VERSION
//	go run ./internal/release prove [-bom DIR] [-version VERSION]
//	go run ./internal/release api [-update VERSION]
//
// Prepare makes the commits and tags of a release in the repository of the current
// directory, and pushes nothing. Prove publishes the modules of HEAD to a module
// proxy in a temporary directory and uses them as a consumer would; with -bom, it
// also writes bills of materials. Neither changes the working tree before it has
// succeeded. Api compares the exported API with that of the last release, which
// prepare updates.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
)

// commands are the subcommands by name.
var commands = map[string]func(ctx context.Context, out io.Writer, args []string) error{
	"prepare": runPrepare,
	"prove":   runProve,
	"api":     runAPI,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, args []string) error {
	if len(args) == 0 || commands[args[0]] == nil {
		return errors.New("usage: release prepare|prove|api [flags]")
	}
	return commands[args[0]](ctx, out, args[1:])
}

// newFlags returns a flag set that reports errors instead of exiting.
func newFlags(name string) *flag.FlagSet {
	return flag.NewFlagSet("release "+name, flag.ContinueOnError)
}
