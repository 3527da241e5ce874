package stored

import (
	"fmt"

	"github.com/blobseal/blobseal/sse"
)

var (
	// ErrPlain means that the object is not encrypted. It is [sse.ErrFormat] too.
	ErrPlain error = &s3Error{"blob: object is not encrypted", "AccessDenied", sse.ErrFormat}

	// ErrDamaged means that the metadata calls the object encrypted, but the
	// object does not begin with an envelope. It is [sse.ErrFormat] too.
	ErrDamaged = fmt.Errorf("blob: metadata says encrypted, but there is no envelope: %w", sse.ErrFormat)

	// ErrChanged means that the object was replaced or deleted during the call.
	ErrChanged error = &s3Error{"blob: object changed during the call (retry)", "OperationAborted", nil}

	// ErrReserved means that the caller's metadata has a name that begins with
	// [ReservedPrefix].
	ErrReserved error = &s3Error{"blob: metadata name is reserved", "InvalidArgument", nil}
)

// s3Error is an error with the code that sse/s3wire answers with.
type s3Error struct {
	text, code string
	cause      error
}

func (e *s3Error) Error() string  { return e.text }
func (e *s3Error) S3Code() string { return e.code }
func (e *s3Error) Unwrap() error  { return e.cause }
