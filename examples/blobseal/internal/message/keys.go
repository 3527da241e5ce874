package message

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/blobseal/blobseal/kms/audit"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// Ring puts an error of a ring into words.
func Ring(path string, err error) error {
	says := func(format string, args ...any) error {
		return Problemf(err, "%s: %s", path, fmt.Sprintf(format, args...))
	}
	if text := Root("ring", err); text != "" {
		return says("%s", text)
	}
	switch {
	case errors.Is(err, keyring.ErrNotExist):
		return says("no such ring; make one with: blobseal ring create --ring %s", path)
	case errors.Is(err, keyring.ErrVersion):
		return says("the ring was written by another version of blobseal: %s", Plain(err))
	case errors.Is(err, keyring.ErrDamaged):
		return says("not a ring, or damaged: restore it from a backup (%s)", strings.TrimPrefix(Plain(err), "document is damaged: "))
	case errors.Is(err, keyring.ErrDestroyed):
		return says("the key was destroyed, which cannot be undone")
	case errors.Is(err, keyring.ErrPrimary):
		return says("the key is the newest one, which seals new files: rotate first")
	case errors.Is(err, keyring.ErrUnknownKey):
		return says("the ring has no such key; see: blobseal ring list")
	case errors.Is(err, keyring.ErrFull):
		return says("the ring is full: make another one and rewrap to it")
	case IsDirectory(path):
		return says("%v", ErrIsDirectory)
	}
	return About(path, err)
}

// Root is an error of a root, in words without its subject; it is empty if
// the error is not about the root of what.
func Root(what string, err error) string {
	switch {
	case errors.Is(err, context.Canceled):
		return ""
	case errors.Is(err, keyring.ErrRoot):
		why := "another key or passphrase than it was made with"
		if _, claim, found := strings.Cut(err.Error(), "it is under key "); found {
			claim, _, _ = strings.Cut(claim, ", the root is ")
			why = "it is under key " + claim
		}
		return fmt.Sprintf("the root does not open the %s: %s", what, why)
	case errors.Is(err, keyring.ErrRootUnavailable):
		text := Plain(err)
		if r := new(Refusal); errors.As(err, &r) {
			text = r.Text
		}
		return "its root cannot be used: " + text
	}
	return ""
}

// IsRing tells whether an error is one of a ring.
func IsRing(err error) bool {
	for _, kind := range []error{keyring.ErrStore, keyring.ErrRoot, keyring.ErrRootUnavailable, keyring.ErrDamaged, keyring.ErrVersion, keyring.ErrNotExist, keyring.ErrUnknownKey, keyring.ErrPrimary, keyring.ErrDestroyed, keyring.ErrConflict} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// RefusedByService tells whether an error is the key service's decision, or its
// failure.
func RefusedByService(err error) bool {
	for _, kind := range []error{audit.ErrNotRecorded, kms.ErrDenied, kms.ErrDisabled, kms.ErrPendingDeletion, kms.ErrUnavailable} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// WantMode says which flags a file of that mode needs.
func WantMode(m sse.Mode) string {
	switch m {
	case sse.ModeManaged:
		return "sealed under a ring's key (SSE-S3): give --ring and its root"
	case sse.ModeKMS:
		return "sealed under a key service's key (SSE-KMS): give --kms and its root"
	case sse.ModeCustomer:
		return "sealed under a customer key (SSE-C): give --customer-key-file"
	default:
		return fmt.Sprintf("sealed in a mode (%v) that this command does not open", m)
	}
}
