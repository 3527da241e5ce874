package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/sse"
)

// usageError is a command line that cannot be right, whatever the files say.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return usageError{fmt.Sprintf(format, args...)} }

// problem is an error that was put into words for an operator. It names its
// subject, and stays the outermost one that is shown.
type problem struct {
	text string
	err  error
}

func (p *problem) Error() string { return p.text }
func (p *problem) Unwrap() error { return p.err }

func problemf(err error, format string, args ...any) error {
	return &problem{text: fmt.Sprintf(format, args...), err: err}
}

// about puts an error of a file or a stream into words; nil stays nil.
func about(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.As(err, new(*problem)), errors.As(err, new(usageError)):
		return err
	case errors.Is(err, context.Canceled):
		return &problem{"interrupted", err}
	}
	if name == "" { // as of a variable of the shell that is not set
		name = `""`
	}
	return problemf(err, "%s: %s", name, plain(err))
}

var errIsDirectory = errors.New("is a directory")

func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// plain is what the system says, without the operation and the path.
func plain(err error) string {
	var path *fs.PathError
	var link *os.LinkError
	var call *os.SyscallError
	switch {
	case errors.As(err, &path):
		err = path.Err
	case errors.As(err, &link):
		err = link.Err
	case errors.As(err, &call):
		err = call.Err
	}
	text := err.Error()
	for _, prefix := range []string{"sse: ", "kms: ", "audit: ", "keyring: ", "store failed: ", "load: ", "swap: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return text
}

// aboutRing puts an error of a ring into words.
func aboutRing(path string, err error) error {
	says := func(format string, args ...any) error {
		return problemf(err, "%s: %s", path, fmt.Sprintf(format, args...))
	}
	if text := aboutRoot("ring", err); text != "" {
		return says("%s", text)
	}
	switch {
	case errors.Is(err, keyring.ErrNotExist):
		return says("no such ring; make one with: blobseal ring create --ring %s", path)
	case errors.Is(err, keyring.ErrVersion):
		return says("the ring was written by another version of blobseal: %s", plain(err))
	case errors.Is(err, keyring.ErrDamaged):
		return says("not a ring, or damaged: restore it from a backup (%s)", strings.TrimPrefix(plain(err), "document is damaged: "))
	case errors.Is(err, keyring.ErrDestroyed):
		return says("the key was destroyed, which cannot be undone")
	case errors.Is(err, keyring.ErrPrimary):
		return says("the key is the newest one, which seals new files: rotate first")
	case errors.Is(err, keyring.ErrUnknownKey):
		return says("the ring has no such key; see: blobseal ring list")
	case errors.Is(err, keyring.ErrFull):
		return says("the ring is full: make another one and rewrap to it")
	case isDirectory(path):
		return says("%v", errIsDirectory)
	}
	return about(path, err)
}

// aboutObject puts an error of a sealed file into words. It may know the file's
// envelope and the keys that were tried, or not.
func aboutObject(o *object, k *keys, err error) error {
	says := func(format string, args ...any) error {
		return problemf(err, "%s: %s", o.name, fmt.Sprintf(format, args...))
	}
	var chunk *sse.ChunkError
	switch {
	case err == nil:
		return nil
	case errors.As(err, new(*problem)), errors.As(err, new(usageError)), errors.Is(err, context.Canceled):
		return about(o.name, err)
	}
	if o.env != nil {
		if text := aboutKey(k, o.env.Mode(), o.env.KeyID(), err); text != "" {
			return says("%s", text)
		}
	}
	switch {
	case errors.Is(err, sse.ErrVersion):
		return says("sealed by another version of blobseal: %s", plain(err))
	case errors.Is(err, sse.ErrFormat) && errors.Is(err, io.ErrUnexpectedEOF):
		return says("not a sealed file, or cut short within its envelope")
	case errors.Is(err, sse.ErrFormat):
		return says("not a sealed file, or its envelope is damaged: %s", strings.TrimPrefix(plain(err), "not an envelope: "))
	case errors.Is(err, sse.ErrKey):
		return says("wrong key, object or context, or edited envelope")
	case errors.Is(err, sse.ErrTruncated):
		return says("truncated: it ends where no sealed file can end")
	case errors.As(err, &chunk):
		return says("%s", o.badChunk(chunk.Chunk))
	}
	return about(o.name, err)
}

// aboutKey is an error of a key that should have opened something, in words; it is
// empty if the error is not about the key. k may be nil.
func aboutKey(k *keys, mode sse.Mode, keyID string, err error) string {
	switch {
	case k != nil && k.service != nil && errors.Is(err, kms.ErrNotFound):
		return fmt.Sprintf("%s has no key %q, under which it is sealed", k.service.dir, keyID)
	case k != nil && k.service != nil && refusedByService(err):
		return k.service.says(kms.OpDecrypt, keyID, err)
	case errors.Is(err, sse.ErrMode) && mode != 0:
		return wantMode(mode)
	case errors.Is(err, keyring.ErrDisabled):
		return fmt.Sprintf("sealed under key %s, which is disabled; enable it with: blobseal ring enable %[1]s", keyID)
	case errors.Is(err, keyring.ErrDestroyed):
		return fmt.Sprintf("sealed under key %s, which was destroyed: nothing opens it any more", keyID)
	case errors.Is(err, keyring.ErrRootUnavailable) && k != nil && k.ring != nil:
		return fmt.Sprintf("sealed under key %s, which ring %s may hold since it was opened: %s", keyID, k.ringPath, aboutRoot("ring", err))
	case errors.Is(err, keyring.ErrStore):
		return plain(err)
	case errors.Is(err, keyring.ErrUnknownKey) && k != nil && k.ring != nil:
		if !strings.HasPrefix(keyID, k.ring.ID()+".") {
			return fmt.Sprintf("sealed under key %s of another ring; %s is ring %s", keyID, k.ringPath, k.ring.ID())
		}
		return fmt.Sprintf("sealed under key %s, which ring %s does not hold: is the ring an old copy?", keyID, k.ringPath)
	}
	return ""
}

// refusedByService tells whether an error is the key service's decision, or its
// failure.
func refusedByService(err error) bool {
	for _, kind := range []error{audit.ErrNotRecorded, kms.ErrDenied, kms.ErrDisabled, kms.ErrPendingDeletion, kms.ErrUnavailable} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// wantMode says which flags a file of that mode needs.
func wantMode(m sse.Mode) string {
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
