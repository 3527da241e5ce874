package console

import (
	"context"
	"io"
)

// Abandon calls f, which may block for ever, as reading a pipe may. When ctx ends,
// Abandon returns and leaves f running until the process ends.
func Abandon[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := f()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return *new(T), ctx.Err()
	}
}

// AbandoningReader reads from a source that may block for ever, until Ctx ends.
type AbandoningReader struct {
	Ctx context.Context
	Src io.Reader
	buf []byte
}

func (r *AbandoningReader) Read(p []byte) (int, error) {
	if len(p) > len(r.buf) {
		r.buf = make([]byte, len(p))
	}
	buf := r.buf[:len(p)] // p is the caller's again once we return
	n, err := Abandon(r.Ctx, func() (int, error) { return r.Src.Read(buf) })
	return copy(p, buf[:n]), err
}

// AbandoningWriter writes to a destination that may block for ever, until Ctx ends.
type AbandoningWriter struct {
	Ctx context.Context
	Dst io.Writer
	buf []byte
}

func (w *AbandoningWriter) Write(p []byte) (int, error) {
	if err := w.Ctx.Err(); err != nil {
		return 0, err
	}
	w.buf = append(w.buf[:0], p...)
	buf := w.buf
	return Abandon(w.Ctx, func() (int, error) { return w.Dst.Write(buf) })
}
