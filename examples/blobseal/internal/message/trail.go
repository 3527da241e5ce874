package message

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/blobseal/blobseal/kms/audit"
)

// Trail puts an error of an audit trail into words.
func Trail(name string, err error) error {
	if errors.Is(err, context.Canceled) {
		return About(name, err)
	}
	if broken := new(audit.ChainError); errors.As(err, &broken) {
		return Problemf(err, "%s", TrailText(err))
	}
	if IsDirectory(name) {
		return Problemf(err, "%s: %v; for that of a key service give --kms %[1]s", name, ErrIsDirectory)
	}
	return Problemf(err, "%s: %s", name, TrailText(err))
}

// TrailText is an error of an audit trail in words.
func TrailText(err error) string {
	var broken *audit.ChainError
	switch {
	case errors.As(err, &broken):
		return fmt.Sprintf("%s: line %d: entry %d is %s: %s", broken.File, broken.Line, broken.Seq, broken.Kind, broken.Detail)
	case errors.Is(err, audit.ErrInUse):
		return "another process holds the audit trail"
	}
	text := strings.TrimPrefix(err.Error(), audit.ErrNotRecorded.Error()+": ")
	if text == err.Error() {
		text = Plain(err)
	}
	return strings.TrimPrefix(strings.TrimPrefix(text, "audit: "), "file: ")
}
