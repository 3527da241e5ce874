package console

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// ForEach calls f with each name, also after a failure, until ctx ends. It returns one
// error for all failures.
func ForEach(ctx context.Context, names []string, f func(name string) error) error {
	var first error
	var failures message.Failures
	failed := 0
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return message.About(name, err)
		}
		if err := f(name); err != nil {
			failed++
			failures.Add(err)
			if first == nil {
				first = err
			}
		}
	}
	if failed > 1 {
		return message.Problemf(&failures, "", "%s (and %d more of %d files failed)", message.OneLine(first), failed-1, len(names))
	}
	return first
}

// Printf writes to standard output.
func (c *Console) Printf(format string, args ...any) error {
	_, err := fmt.Fprintf(c.Stdout, format, args...)
	return message.About("standard output", err)
}

// Confirm asks a question on the terminal, and fails unless the answer is yes.
func (c *Console) Confirm(ctx context.Context, question string) error {
	fmt.Fprint(c.Stderr, question)
	answer, err := bufio.NewReader(&AbandoningReader{Ctx: ctx, Src: c.Stdin}).ReadString('\n')
	if err != nil {
		fmt.Fprintln(c.Stderr)
		if !errors.Is(err, io.EOF) {
			return message.About("standard input", err)
		}
	}
	if strings.TrimSpace(answer) != "yes" {
		return message.Problemf(message.ErrRefused, "", "not confirmed: nothing was changed")
	}
	return nil
}
