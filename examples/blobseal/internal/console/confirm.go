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

// ConfirmFlag belongs to commands that cannot be undone.
type ConfirmFlag struct {
	Yes bool `help:"Do not ask."`
}

// CheckConfirm refuses to go on if nobody can be asked. deed is what cannot be undone.
func (f ConfirmFlag) CheckConfirm(c *Console, deed string) error {
	if f.Yes || c.IsTerminal(c.Stdin) {
		return nil
	}
	return message.Usagef("%s cannot be undone: give --yes, or run it on a terminal", deed)
}

// Confirm asks a question on the terminal, and fails unless the answer is yes.
func (f ConfirmFlag) Confirm(ctx context.Context, c *Console, format string, args ...any) error {
	if f.Yes {
		return nil
	}
	fmt.Fprintf(c.Stderr, format, args...)
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
