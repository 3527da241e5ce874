package message

import (
	"errors"
	"fmt"

	"github.com/blobseal/blobseal/kms/audit"
)

// Trail returns an error of an audit trail as a [Problem].
func Trail(name string, err error) error {
	if broken, ok := errors.AsType[*audit.ChainError](err); ok {
		return Problemf(err, broken.File, "%s", brokenWords(broken))
	}
	return about(name, err, func(err error) string {
		if IsDirectory(name) {
			return fmt.Sprintf("%v (for the trail of a key service give --kms %s)", ErrIsDirectory, name)
		}
		return trailWords(err)
	})
}

func trailWords(err error) string {
	if broken, ok := errors.AsType[*audit.ChainError](err); ok {
		return broken.File + ": " + brokenWords(broken)
	}
	if errors.Is(err, audit.ErrInUse) {
		return "another process has the audit trail open"
	}
	return Plain(err)
}

func brokenWords(e *audit.ChainError) string {
	return fmt.Sprintf("line %d: entry %d is %s: %s", e.Line, e.Seq, e.Kind, e.Detail)
}
