package keys

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/file"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/keyring"
)

// GenerateKey creates a key file, or none if it fails.
func GenerateKey(ctx context.Context, c *console.Console, name string) error {
	if name == "-" {
		return message.Usagef("a key goes to a file, not to standard output")
	}
	out, err := file.Create(ctx, c, name, 0o600, false)
	if err != nil {
		return err
	}
	defer out.Discard()
	if !out.Atomic() {
		return message.Problemf(nil, name, "not a regular file")
	}
	key := make([]byte, keySize)
	rand.Read(key)
	if _, err := out.Write(key); err != nil {
		return err
	}
	return out.Commit()
}

// readSmall reads a file that holds one key or passphrase.
func readSmall(ctx context.Context, name string) ([]byte, error) {
	const limit = 4096
	text, err := console.Abandon(ctx, func() ([]byte, error) {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, limit+1))
	})
	if err != nil {
		return nil, message.About(name, err)
	}
	if len(text) > limit {
		return nil, message.Problemf(nil, name, "more than %d bytes, too long for a key or a passphrase", limit)
	}
	return text, nil
}

// ReadKey reads a key file.
func ReadKey(ctx context.Context, name string) ([]byte, error) {
	text, err := readSmall(ctx, name)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	key, err := keyring.ParseKey(text)
	switch {
	case err == nil:
		return key, nil
	case len(text) == keySize:
		return nil, message.Advise(err, name, message.Words{
			Text: fmt.Sprintf("not a key: its %d bytes are text", keySize), Does: "create one", Advice: "blobseal keygen FILE"})
	}
	return nil, message.Problemf(err, name, "not a key: it has %d bytes, want %d, raw or in hex or base64", len(text), keySize)
}

const keySize = 32
