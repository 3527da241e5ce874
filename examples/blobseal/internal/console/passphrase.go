package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/trustelem/zxcvbn"
	"golang.org/x/term"

	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// Passphrase asks for a passphrase on the terminal, which does not show it.
func (c *Console) Passphrase(ctx context.Context, question string) ([]byte, error) {
	tty, ok := c.Stdin.(*os.File)
	if !ok || !c.IsTerminal(c.Stdin) {
		return nil, message.Usagef("--passphrase-prompt: standard input is no terminal (give --passphrase-file or --passphrase-env)")
	}
	fd := int(tty.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return nil, message.About("terminal", err)
	}
	fmt.Fprint(c.Stderr, question)
	text, err := Abandon(ctx, func() ([]byte, error) { return term.ReadPassword(fd) })
	if err != nil {
		_ = term.Restore(fd, state) // the abandoned read turned the echo off
	}
	fmt.Fprintln(c.Stderr)
	switch {
	case errors.Is(err, io.EOF) || err == nil && len(text) == 0:
		return nil, message.Problemf(nil, "", "the passphrase is empty")
	case err != nil:
		return nil, message.About("terminal", err)
	}
	return text, nil
}

// leastScore is the strength that a new passphrase needs, on zxcvbn's scale from 0 to 4:
// to guess it takes more than 10^10 attempts.
const leastScore = 4

// NewPassphrase asks twice for a passphrase that is not easy to guess.
func (c *Console) NewPassphrase(ctx context.Context) ([]byte, error) {
	text, err := c.Passphrase(ctx, "New passphrase: ")
	if err != nil {
		return nil, err
	}
	if len(text) < 12 || zxcvbn.PasswordStrength(string(text), nil).Score < leastScore {
		clear(text)
		return nil, message.Problemf(message.ErrRefused, "", "the passphrase is easy to guess (take five random words, or give --generate-root-key)")
	}
	again, err := c.Passphrase(ctx, "The same again: ")
	defer clear(again)
	if err == nil && !bytes.Equal(text, again) {
		err = message.Problemf(message.ErrRefused, "", "the passphrases differ")
	}
	if err != nil {
		clear(text)
		return nil, err
	}
	return text, nil
}
