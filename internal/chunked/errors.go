package chunked

import (
	"fmt"
	"io"
)

// truncated makes ErrTruncated a kind of ErrCorrupt and of io.ErrUnexpectedEOF.
type truncated struct{}

func (truncated) Error() string   { return "sse: object is truncated" }
func (truncated) Unwrap() []error { return []error{ErrCorrupt, io.ErrUnexpectedEOF} }

// ErrTruncated: the body ends where no body can end. It is a kind of
// [ErrCorrupt] and of [io.ErrUnexpectedEOF].
var ErrTruncated error = truncated{}

// ChunkError names the first chunk that is not authentic. It is [ErrCorrupt].
// A last chunk that was cut short cannot be told from a damaged one, and is
// reported so too.
type ChunkError struct {
	Chunk int64 // counted from zero; chunk k begins at plaintext offset k*16384
}

func (e *ChunkError) Error() string {
	return fmt.Sprintf("%v: chunk %d is not authentic", ErrCorrupt, e.Chunk)
}

func (e *ChunkError) Unwrap() error { return ErrCorrupt }
