package signedurl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
)

// copySize is the length in bytes of a buffer through which an object is sent, and
// which each slow client has for as long as it takes. It is what an encrypted bucket
// opens in one go, without a second core. Measured: with two or four times as much,
// two cores open an object in 0.84 and 0.74 of the time, but one that is sent at the
// same time, to a client on the same machine, takes 1.12 and 1.01 of it.
const copySize = 256 << 10

// copyBuffers holds buffers of copySize bytes.
var copyBuffers = sync.Pool{New: func() any { return new([copySize]byte) }}

// content is an object as the seeker that [http.ServeContent] wants. It opens a
// reader for exactly the range that is asked for when that is first read, and
// hands out the last byte of a range only once the reader has confirmed its end.
//
// ServeContent reads several ranges in a goroutine that may outlive it a little, so
// everything is under a lock.
type content struct {
	ctx         context.Context // of the request: a seeker's methods take none
	bucket      *gcblob.Bucket
	key         string
	attrs       *gcblob.Attributes
	rangeHeader string

	released atomic.Bool // some of it has been read

	mu   sync.Mutex
	pos  int64
	r    *gcblob.Reader // at pos; nil until it is needed
	left int64          // bytes that r still has to give
	err  error          // the first one; it stays
}

// Seek implements [io.Seeker] as far as ServeContent goes.
func (c *content) Seek(offset int64, whence int) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch whence {
	case io.SeekCurrent:
		offset += c.pos
	case io.SeekEnd:
		offset += c.attrs.Size
	}
	if offset < 0 {
		return 0, errors.New("signedurl: seek before the object")
	}
	c.closeReader() // even at the same place: the next range ends elsewhere
	c.pos = offset
	return offset, nil
}

// Read implements [io.Reader], for one of several ranges.
func (c *content) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pos >= c.attrs.Size {
		return 0, io.EOF
	}
	if c.r == nil {
		c.open(rangeLength(c.rangeHeader, c.pos, c.attrs.Size))
	}
	return c.read(p)
}

// copyN copies the next n bytes to w, with reads as large as can be. Errors of w are
// returned alone and those of the object are kept too.
func (c *content) copyN(w io.Writer, n int64) (written int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n == 0 {
		return 0, nil
	}
	pooled := copyBuffers.Get().(*[copySize]byte)
	defer func() {
		clear(pooled[:min(n, copySize)]) // no plaintext lies about in the pool
		copyBuffers.Put(pooled)
	}()
	c.closeReader()
	c.open(n)
	for written < n {
		k, err := c.read(pooled[:])
		if err != nil {
			return written, err
		}
		if _, err := w.Write(pooled[:k]); err != nil {
			return written, err
		}
		written += int64(k)
	}
	return written, nil
}

// prove opens an empty object and confirms that it is: nothing else would read it.
func (c *content) prove() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open(0)
	c.end()
	return c.err
}

// open opens a reader of n bytes from pos. Its error is kept.
func (c *content) open(n int64) {
	if c.err != nil {
		return
	}
	length := n
	if c.pos == 0 && n == c.attrs.Size {
		length = -1 // no range: one plain request
	}
	r, err := c.bucket.NewRangeReader(c.ctx, c.key, c.pos, length, nil)
	if errors.Is(err, io.EOF) { // which would look like an end
		err = fmt.Errorf("signedurl: open %q: %v: %w", c.key, err, io.ErrUnexpectedEOF)
	}
	if err != nil {
		c.err = err
		return
	}
	c.r, c.left = r, n
	switch {
	case r.Size() < 0:
		c.err = fmt.Errorf("signedurl: store decompresses object: %q (remove its Content-Encoding)", c.key)
	// Services keep times more or less precisely, in one call and the other.
	case r.Size() != c.attrs.Size || r.ModTime().Unix() != c.attrs.ModTime.Unix():
		c.err = fmt.Errorf("%w: %q", blob.ErrChanged, c.key)
	}
}

// read reads from r, and confirms its end together with the last byte. It returns
// bytes or an error, never both.
func (c *content) read(p []byte) (int, error) {
	for c.err == nil && c.left > 0 && len(p) > 0 {
		n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
		c.pos += int64(n)
		c.left -= int64(n)
		switch {
		case err != nil && err != io.EOF:
			c.err = err
		case err == io.EOF && c.left > 0:
			c.err = fmt.Errorf("signedurl: %q ends %d bytes too early: %w", c.key, c.left, io.ErrUnexpectedEOF)
		case err == nil && c.left == 0:
			c.end()
		}
		if c.err == nil && n > 0 {
			c.released.Store(true)
			return n, nil
		}
	}
	if c.err == nil && c.left == 0 {
		return 0, io.EOF
	}
	return 0, c.err
}

// end confirms that r ends here, which is when an encrypted body has proved to be
// whole. What it finds instead is kept as the error.
func (c *content) end() {
	if c.err != nil {
		return
	}
	var one [1]byte
	switch _, err := io.ReadFull(c.r, one[:]); err {
	case io.EOF:
	case nil:
		c.err = fmt.Errorf("signedurl: %q does not end where it should", c.key)
	default:
		c.err = err
	}
}

// firstErr returns the object's first error, or nil.
func (c *content) firstErr() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *content) closeReader() {
	if c.r != nil {
		_ = c.r.Close() // what it gave was complete, or is an error already
		c.r = nil
	}
}

// close ends it; later reads fail.
func (c *content) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeReader()
	if c.err == nil {
		c.err = errors.New("signedurl: object is closed")
	}
}

// rangeLength returns how long the range from off on is that a Range header, which
// ServeContent has accepted, asks of an object of size bytes: the longest of those.
func rangeLength(header string, off, size int64) int64 {
	longest := int64(0)
	for spec := range strings.SplitSeq(strings.TrimPrefix(header, "bytes="), ",") {
		from, to, _ := strings.Cut(strings.TrimSpace(spec), "-")
		first, err := strconv.ParseInt(strings.TrimSpace(from), 10, 64)
		last, errLast := strconv.ParseInt(strings.TrimSpace(to), 10, 64)
		if err != nil { // the last so many bytes
			first, last = max(size-last, 0), size-1
		}
		if errLast != nil || last >= size {
			last = size - 1
		}
		if first == off {
			longest = max(longest, last-first+1)
		}
	}
	if longest == 0 {
		return size - off
	}
	return longest
}

// response is the ResponseWriter that ServeContent gets. It holds back the status,
// the headers, and what ServeContent writes on its own, until the object has
// released its first bytes: until then an error can still have its own status.
type response struct {
	w       http.ResponseWriter
	header  http.Header
	content *content

	status    int
	held      []byte
	committed bool
	err       error // of writing to the client
}

func (r *response) Header() http.Header { return r.header }

func (r *response) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *response) Write(p []byte) (int, error) {
	if !r.content.released.Load() {
		r.held = append(r.held, p...)
		return len(p), nil
	}
	r.commit()
	return r.write(p)
}

func (r *response) write(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.w.Write(p)
	r.err = err
	return n, err
}

// ReadFrom implements [io.ReaderFrom], so as to learn how much of the object is
// wanted.
func (r *response) ReadFrom(src io.Reader) (int64, error) {
	limited, ok := src.(*io.LimitedReader)
	if !ok || limited.R != io.Reader(r.content) {
		return io.Copy(struct{ io.Writer }{r}, src)
	}
	n, err := r.content.copyN(r, limited.N)
	limited.N -= n
	return n, err
}

// commit sends the status, the headers and what was held.
func (r *response) commit() {
	if r.committed {
		return
	}
	r.committed = true
	if r.status == 0 {
		r.status = http.StatusOK
	}
	header := r.w.Header()
	clear(header)
	for name, values := range r.header {
		header[name] = values
	}
	if r.status == http.StatusOK { // which ServeContent leaves out if there is a Content-Encoding
		header.Set("Content-Length", strconv.FormatInt(r.content.attrs.Size, 10))
	}
	r.w.WriteHeader(r.status)
	if len(r.held) > 0 {
		_, _ = r.write(r.held) // the error is kept
	}
}

// finish ends the answer, and reports what went wrong: after some of it was sent,
// as [http.ErrAbortHandler].
func (r *response) finish(method string) error {
	if method == http.MethodGet && r.status == http.StatusOK && r.content.attrs.Size == 0 {
		_ = r.content.prove() // the error is kept
	}
	err := r.err
	if err == nil { // else a read may be under way that only the end of its ctx ends
		err = r.content.firstErr()
	}
	if err == nil {
		r.commit()
		err = r.err
	}
	if err != nil && r.committed {
		return fmt.Errorf("%w: %w", http.ErrAbortHandler, err)
	}
	return err
}
