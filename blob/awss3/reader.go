package awss3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/blobseal/blobseal/sse"
)

const (
	firstWindow = 256 << 10
	lastWindow  = 4 << 20
)

// Reader reads one version of an object in any order: it is an [io.ReadSeeker], for
// net/http.ServeContent, and an [io.ReaderAt].
//
// It requests the object in windows and reads ahead. Sequential reads double the window from
// 256 KiB to 4 MiB: 4 MiB take seven requests, those of Open included, and 1 GiB takes about
// 260. A read elsewhere requests 256 KiB. A ReadAt of more than a window requests exactly its
// range. A Reader holds no response between calls.
//
// ReadAt is safe for concurrent use, also with the other methods. Only one goroutine may call
// Read and Seek.
type Reader struct {
	ctx    context.Context // of Open
	object *object
	pos    int64

	mu     sync.Mutex
	window *window // the last one that was read
	next   int64   // where the last request ended
	ahead  int64   // size of a window from there
}

// window is a part of the plaintext. It is immutable.
type window struct {
	off  int64
	data []byte
}

// Open opens the object in in for random access. It sends two requests and authenticates the
// object's size. ctx also bounds the Reader's requests. If another writer replaces the
// object, reads fail with [stored.ErrChanged].
func (c *Client) Open(ctx context.Context, in *s3.GetObjectInput, optFns ...func(*s3.Options)) (*Reader, error) {
	get := *in
	if get.Range != nil || get.PartNumber != nil {
		return nil, fmt.Errorf("%w: Open takes neither Range nor PartNumber", sse.ErrInvalid)
	}
	c, err := c.withCustomerKey(&get.SSECustomerAlgorithm, &get.SSECustomerKey, &get.SSECustomerKeyMD5)
	if err != nil {
		return nil, err
	}
	if _, err := c.identity(get.Bucket, get.Key); err != nil {
		return nil, err
	}
	o, err := retryChanged(func() (*object, error) {
		o, err := c.openObject(ctx, get, 0, optFns)
		if err != nil {
			return nil, err
		}
		return o, o.prove(ctx, o.size, 0)
	})
	if err != nil {
		return nil, err
	}
	return &Reader{ctx: ctx, object: o, ahead: firstWindow}, nil
}

// Size returns the size of the plaintext. It is authentic.
func (r *Reader) Size() int64 { return r.object.size }

// Output returns the output of GetObject without a body.
func (r *Reader) Output() *s3.GetObjectOutput {
	out := *r.object.out
	describeGet(&out)
	out.Body, out.ContentRange, out.ContentLength = nil, nil, &r.object.size
	return &out
}

// Read implements [io.Reader].
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if r.pos >= r.Size() {
		return 0, io.EOF
	}
	w, err := r.windowAt(r.pos)
	if err != nil {
		return 0, err
	}
	n := copy(p, w.data[r.pos-w.off:])
	r.pos += int64(n)
	return n, nil
}

// Seek implements [io.Seeker]. It sends no request.
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.Size()
	default:
		return 0, errors.New("awss3: Seek: invalid whence")
	}
	if offset < 0 {
		return 0, errors.New("awss3: Seek: negative position")
	}
	r.pos = offset
	return offset, nil
}

// ReadAt implements [io.ReaderAt].
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("awss3: ReadAt: negative offset")
	}
	read := 0
	for read < len(p) {
		at := off + int64(read)
		if at < 0 || at >= r.Size() {
			return read, io.EOF
		}
		w, size := r.plan(at)
		if rest := p[read:]; w == nil && int64(len(rest)) >= size {
			rest = rest[:min(int64(len(rest)), r.Size()-at)]
			if err := r.fill(rest, at); err != nil {
				return read, err
			}
			r.noteRequest(nil, at+int64(len(rest)), size)
			read += len(rest)
			continue
		}
		w, err := r.windowAt(at)
		if err != nil {
			return read, err
		}
		read += copy(p[read:], w.data[at-w.off:])
	}
	return read, nil
}

func (w *window) contains(at int64) bool {
	return w != nil && at >= w.off && at < w.off+int64(len(w.data))
}

// plan returns the window that holds the byte at an offset in the object, or the size of
// the one to request.
func (r *Reader) plan(at int64) (*window, int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.window.contains(at):
		return r.window, 0
	case at == r.next:
		return nil, r.ahead
	}
	return nil, firstWindow
}

// noteRequest notes a request for a window. w is nil if the request read into the caller's
// buffer.
func (r *Reader) noteRequest(w *window, next, size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w != nil {
		r.window = w
	}
	r.next, r.ahead = next, min(2*size, lastWindow)
}

// windowAt returns a window that holds the byte at an offset in the object.
func (r *Reader) windowAt(at int64) (*window, error) {
	w, size := r.plan(at)
	if w != nil {
		return w, nil
	}
	off := at / sse.ChunkSize * sse.ChunkSize
	w = &window{off: off, data: make([]byte, min(size, r.Size()-off))}
	if err := r.fill(w.data, off); err != nil {
		return nil, err
	}
	r.noteRequest(w, off+int64(len(w.data)), size)
	return w, nil
}

// fill reads the plaintext from off, with one request.
func (r *Reader) fill(p []byte, off int64) error {
	in, err := r.object.read(r.ctx, off, int64(len(p)))
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := io.ReadFull(in, p); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			err = fmt.Errorf("%w: the store sent less than it was asked for", sse.ErrTruncated)
		}
		return err
	}
	return nil
}
