package console

import (
	"context"
	"fmt"

	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// ForEach calls f with each file or object, also after a failure, until ctx ends. It
// returns one error for all failures.
func ForEach[T any](ctx context.Context, all []T, f func(T) error) error {
	var first error
	var failures message.Failures
	failed := 0
	for _, one := range all {
		if err := ctx.Err(); err != nil {
			return message.About("", err)
		}
		if err := f(one); err != nil {
			failed++
			failures.Add(err)
			if first == nil {
				first = err
			}
		}
	}
	if failed > 1 {
		return message.Problemf(&failures, "", "%s (and %d more of %d files failed)", message.OneLine(first), failed-1, len(all))
	}
	return first
}

// Printf writes to standard output.
func (c *Console) Printf(format string, args ...any) error {
	_, err := fmt.Fprintf(c.Stdout, format, args...)
	return message.About("standard output", err)
}
