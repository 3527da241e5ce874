package keyring

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/internal/chunked"
	"github.com/blobseal/blobseal/internal/document"
	"github.com/blobseal/blobseal/internal/secret"
)

// Root encrypts a ring's document. Any [tink.AEADWithContext] will do. This package
// has [NewKeyRoot], [NewPassphraseRoot] and [NewKMSRoot]. A Tink AEAD of a key service
// needs aead.NewKMSEnvelopeAEADWithContext around it, because many services encrypt at
// most 4 KiB, which is about 35 versions.
//
// If a root returns a network error, or an error that wraps [ErrRootUnavailable], the root
// could not be asked; any other error of decrypting means [ErrRoot].
type Root = tink.AEADWithContext

// keyRootLabel begins the context of a key root's messages.
const keyRootLabel = "github.com/blobseal/blobseal/v1 key root\x00"

// keyRoot is a root that is a key. Its ciphertext is one Cobblestone-256
// message, whose context is the label, a zero byte and the associated data.
type keyRoot struct{ key secret.Key }

// NewKeyRoot returns a root that is a key of 32 random bytes, which it copies. Other
// lengths and 32 zeros are [ErrInvalid]. [ParseKey] reads a key from a file or a variable.
//
// The root's ciphertext is one Cobblestone-256 message. A wrong key and wrong associated
// data are [ErrRoot]; a message edited after its head is [ErrDamaged]. The root is safe for
// concurrent use and does not print its key.
func NewKeyRoot(key []byte) (Root, error) {
	k, err := secret.Import(key)
	if err != nil {
		return nil, invalid("root %v", err)
	}
	return &keyRoot{key: k}, nil
}

// CheckNew implements [document.NewRootChecker].
func (r *keyRoot) CheckNew() error {
	if isPrintable(r.key.Bytes()) {
		return invalid("root key is printable text (generate 32 random bytes)")
	}
	return nil
}

var (
	_ document.NewRootChecker = (*keyRoot)(nil)
	_ document.NewRootChecker = (*passphraseRoot)(nil)
)

func isPrintable(key []byte) bool {
	return !bytes.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' })
}

func (r *keyRoot) EncryptWithContext(ctx context.Context, plaintext, associatedData []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return sealRootMessage(r.key, keyRootLabel, nil, associatedData, plaintext)
}

func (r *keyRoot) DecryptWithContext(ctx context.Context, ciphertext, associatedData []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return openRootMessage(r.key, keyRootLabel, nil, associatedData, ciphertext)
}

// sealRootMessage returns a root's ciphertext: the header, and one message under key whose
// context is label, header and associated data.
func sealRootMessage(key secret.Key, label string, header, associatedData, plaintext []byte) ([]byte, error) {
	message, err := chunked.Seal(key.Bytes(), slices.Concat([]byte(label), header, associatedData), plaintext)
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	return append(header, message...), nil
}

// openRootMessage opens the message behind the header of a root's ciphertext, with the
// errors of this package.
func openRootMessage(key secret.Key, label string, header, associatedData, message []byte) ([]byte, error) {
	if len(message) < chunked.HeadSize {
		return nil, fmt.Errorf("%w: ciphertext is %d bytes", ErrRoot, len(message))
	}
	plaintext, err := chunked.OpenMessage(key.Bytes(), slices.Concat([]byte(label), header, associatedData), message)
	switch {
	case err == nil:
		return plaintext, nil
	case errors.Is(err, chunked.ErrKey):
		return nil, ErrRoot
	default: // the commitment matches, so the root is right
		return nil, fmt.Errorf("%w: encrypted keyset is not authentic", ErrDamaged)
	}
}

// ParseKey reads a root key from the content of a file or a variable: exactly 32 bytes, or
// 32 bytes in hexadecimal or in standard base64 with padding, with or without a line end.
// Anything else is [ErrInvalid]; the error does not show it. The result shares no memory
// with text.
//
// ParseKey also rejects 32 zeros, and 32 bytes that are all printable characters. The latter
// are some other text, such as the hexadecimal form of 16 bytes, and too easy to guess.
func ParseKey(text []byte) ([]byte, error) {
	key, err := decodeKey(text)
	if err != nil {
		return nil, err
	}
	if _, err := secret.Import(key); err != nil {
		return nil, invalid("root %v", err)
	}
	return key, nil
}

func decodeKey(text []byte) ([]byte, error) {
	if len(text) == secret.KeySize {
		if isPrintable(text) {
			return nil, invalid("root key is text of %d characters, not %d random bytes", len(text), len(text))
		}
		return bytes.Clone(text), nil
	}
	line := trimLineEnd(text)
	key := make([]byte, secret.KeySize)
	switch len(line) {
	case hex.EncodedLen(len(key)):
		if _, err := hex.Decode(key, line); err == nil {
			return key, nil
		}
	case base64.StdEncoding.EncodedLen(len(key)):
		decoded, err := base64.StdEncoding.Strict().AppendDecode(nil, line)
		if err == nil && len(decoded) == len(key) {
			return decoded, nil
		}
	}
	return nil, invalid("root key is neither %d bytes nor their hexadecimal or base64 form (%d bytes given)", len(key), len(text))
}

// ParsePassphrase reads a passphrase from the content of a file or a variable, without the
// line end at its end, if it has one. An empty passphrase is [ErrInvalid]. The result
// shares no memory with text.
func ParsePassphrase(text []byte) ([]byte, error) {
	line := trimLineEnd(text)
	if len(line) == 0 {
		return nil, invalid("empty passphrase")
	}
	return bytes.Clone(line), nil
}

// trimLineEnd returns text without one line end.
func trimLineEnd(text []byte) []byte {
	if line, found := bytes.CutSuffix(text, []byte("\n")); found {
		return bytes.TrimSuffix(line, []byte("\r"))
	}
	return text
}

// recorder is a root for one call. It records the root's own error, which Tink replaces by
// a text.
type recorder struct {
	root Root
	err  error
}

func (r *recorder) EncryptWithContext(ctx context.Context, plaintext, associatedData []byte) (ciphertext []byte, err error) {
	ciphertext, r.err = r.root.EncryptWithContext(ctx, plaintext, associatedData)
	return ciphertext, r.err
}

func (r *recorder) DecryptWithContext(ctx context.Context, ciphertext, associatedData []byte) (plaintext []byte, err error) {
	plaintext, r.err = r.root.DecryptWithContext(ctx, ciphertext, associatedData)
	return plaintext, r.err
}
