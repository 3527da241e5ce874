// Package deadline tells whether a context has ended, for clients of a network.
package deadline

import (
	"context"
	"time"
)

// Ended returns ctx's error if it has one, or is to have one at this moment: a
// network, or a server that was told of ctx's deadline, can meet it a little
// earlier than ctx itself does.
func Ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}
