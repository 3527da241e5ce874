package chunked

import "fmt"

// truncated is a kind of ErrCorrupt. It is not io.ErrUnexpectedEOF: loops over
// [io.ReadFull] take that for a short last part.
type truncated struct{}

func (truncated) Error() string { return "sse: object is truncated" }
func (truncated) Unwrap() error { return ErrCorrupt }

// ErrTruncated: the body ends where no body can end. It is a kind of
// [ErrCorrupt].
var ErrTruncated error = truncated{}

// ChunkError names the first chunk that is not authentic. It is [ErrCorrupt].
// A last chunk that was cut short looks like a damaged one and is reported as
// one.
type ChunkError struct {
	Chunk int64 // counted from zero; chunk k begins at plaintext offset k*16384
}

func (e *ChunkError) Error() string {
	return fmt.Sprintf("%v: chunk %d is not authentic", ErrCorrupt, e.Chunk)
}

func (e *ChunkError) Unwrap() error { return ErrCorrupt }

// PartError names the part of a composite object that is not authentic. Package sse,
// which makes it, exports it beside [ChunkError].
type PartError struct {
	Number int
	Err    error // is ErrCorrupt
}

func (e *PartError) Error() string { return fmt.Sprintf("%v (part %d)", e.Err, e.Number) }

func (e *PartError) Unwrap() error { return e.Err }
