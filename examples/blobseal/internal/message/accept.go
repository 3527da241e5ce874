package message

import (
	"fmt"
	"strings"

	"github.com/blobseal/blobseal/sse"
)

// KeyNotAcceptedError is the error of an object under a key of a key service that no
// flag accepts.
type KeyNotAcceptedError struct {
	KeyID    string
	Accepted []string // may be empty
}

func (e *KeyNotAcceptedError) Error() string { return e.words().String() }

func (e *KeyNotAcceptedError) words() Words {
	but := "which no flag accepts"
	if len(e.Accepted) > 0 {
		but = "not under " + strings.Join(e.Accepted, " or ")
	}
	return Words{
		Text:   fmt.Sprintf("sealed under key %s, %s", e.KeyID, but),
		Advice: fmt.Sprintf("if you trust that key, give --kms-key %s; --any-kms-key accepts every key of the service", ShortKey(e.KeyID)),
	}
}

func (e *KeyNotAcceptedError) Unwrap() error { return sse.ErrKey }
