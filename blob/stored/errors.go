package stored

import (
	"errors"
	"fmt"

	"github.com/blobseal/blobseal/sse"
)

var (
	// ErrPlain means that the object is not encrypted. It is [sse.ErrFormat] too.
	ErrPlain error = plain{}

	// ErrDamaged means that the metadata calls the object encrypted, but the
	// object does not begin with an envelope. It is [sse.ErrFormat] too.
	ErrDamaged = fmt.Errorf("blob: metadata says encrypted, but there is no envelope: %w", sse.ErrFormat)

	// ErrChanged means that the object was replaced or deleted during the call.
	ErrChanged = errors.New("blob: object changed during the call (retry)")

	// ErrReserved means that the caller's metadata has a name that begins with
	// [ReservedPrefix].
	ErrReserved = errors.New("blob: metadata name is reserved")
)

type plain struct{}

func (plain) Error() string { return "blob: object is not encrypted" }
func (plain) Unwrap() error { return sse.ErrFormat }
