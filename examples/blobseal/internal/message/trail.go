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
	return about(name, err, func(err error) Words {
		if IsDirectory(name) {
			return Words{Text: ErrIsDirectory.Error(), Advice: "for the trail of a key service give --kms " + name}
		}
		return trailWords(err)
	})
}

func trailWords(err error) Words {
	if broken, ok := errors.AsType[*audit.ChainError](err); ok {
		return say("%s: %s", broken.File, brokenWords(broken))
	}
	if errors.Is(err, audit.ErrInUse) {
		return say("another process has the audit trail open")
	}
	return say("%s", Plain(err))
}

func brokenWords(e *audit.ChainError) string {
	return fmt.Sprintf("line %d: entry %d is %s: %s", e.Line, e.Seq, e.Kind, e.Detail)
}
