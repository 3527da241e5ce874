// Package captured keeps the output of programs and loggers, for tests that read it while
// they write.
package captured

import (
	"bytes"
	"strings"
	"sync"
)

// Buffer is a buffer that may be read while it is written.
type Buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements [io.Writer].
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// String returns the output so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// Reset forgets the output so far.
func (b *Buffer) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Reset()
}

// Contains returns a function that reports whether the output contains text.
func (b *Buffer) Contains(text string) func() bool {
	return func() bool { return strings.Contains(b.String(), text) }
}
