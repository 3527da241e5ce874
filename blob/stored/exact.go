package stored

import (
	"fmt"
	"io"
)

// ExactReader returns a reader of src that fails with mismatch unless src has size
// bytes: it may have fewer after a cut that the store did not report.
func ExactReader(src io.Reader, size int64, mismatch error) io.Reader {
	return &exactReader{src: src, size: size, mismatch: mismatch}
}

type exactReader struct {
	src        io.Reader
	size, came int64
	mismatch   error
}

// Read asks for one byte more than src should have.
func (r *exactReader) Read(p []byte) (int, error) {
	n, err := r.src.Read(p[:min(int64(len(p)), max(0, r.size-r.came+1))])
	r.came += int64(n)
	return n, r.check(err)
}

// WriteTo implements [io.WriterTo], to use that of src.
func (r *exactReader) WriteTo(w io.Writer) (int64, error) {
	n, err := io.Copy(w, r.src)
	r.came += n
	if err == nil && r.came != r.size {
		err = r.check(io.EOF)
	}
	return n, err
}

// check returns the error of a read from src that returned err.
func (r *exactReader) check(err error) error {
	switch {
	case r.came > r.size:
		return fmt.Errorf("%w: more than %d bytes came", r.mismatch, r.size)
	case err == io.EOF && r.came < r.size:
		return fmt.Errorf("%w: %d of %d bytes came", r.mismatch, r.came, r.size)
	}
	return err
}
