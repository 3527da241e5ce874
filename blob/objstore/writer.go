package objstore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"

	thanos "github.com/thanos-io/objstore"
	"gocloud.dev/blob/driver"
)

// maxInMemory is how much of a write stays in memory, in bytes.
const maxInMemory = 1 << 20

// NewTypedWriter implements [driver.Bucket].
func (d *bucketDriver) NewTypedWriter(ctx context.Context, key, contentType string, opts *driver.WriterOptions) (driver.Writer, error) {
	if err := errors.Join(checkName(key), checkOptions(opts)); err != nil {
		return nil, err
	}
	if opts.BeforeWrite != nil {
		if err := opts.BeforeWrite(asNothing); err != nil {
			return nil, err
		}
	}
	return &writer{ctx: ctx, d: d, key: key, contentType: contentType}, nil
}

// writer collects an object and uploads it in Close. objstore's providers need an object's
// size before they upload it: without the size, the one for S3 takes half a GiB of memory.
// Nor can they abort an upload.
type writer struct {
	ctx         context.Context // of the write, as gocloud's drivers have it
	d           *bucketDriver
	key         string
	contentType string

	memory  bytes.Buffer
	file    *os.File // with all of it, once memory is full
	removed bool     // file has no name any more
	err     error    // the first one stays
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (n int, err error) {
	if w.err != nil {
		return 0, w.err
	}
	defer func() { w.err = err }()
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	if w.file == nil {
		if w.memory.Len()+len(p) <= maxInMemory {
			return w.memory.Write(p)
		}
		if err := w.spill(); err != nil {
			return 0, err
		}
	}
	return w.file.Write(p)
}

// spill moves the content from memory to a file. Where the system allows it, spill removes
// the file's name at once, so that a killed process leaves no file.
func (w *writer) spill() (err error) {
	if w.file, err = os.CreateTemp("", "blobseal-upload-"); err != nil {
		return err
	}
	w.removed = os.Remove(w.file.Name()) == nil
	_, err = w.memory.WriteTo(w.file)
	w.memory = bytes.Buffer{}
	return err
}

// discard drops the content.
func (w *writer) discard() {
	if w.file == nil {
		return
	}
	w.file.Close()
	if !w.removed {
		os.Remove(w.file.Name())
	}
	w.file = nil
}

// Close implements io.Closer. It uploads the object, unless the write failed or its
// ctx has ended.
func (w *writer) Close() error {
	defer w.discard()
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if w.err != nil {
		return w.err
	}
	var body io.Reader = bytes.NewReader(w.memory.Bytes())
	if w.file != nil {
		if _, err := w.file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		body = w.file
	}
	var opts []thanos.ObjectUploadOption
	if w.contentType != "" {
		opts = append(opts, thanos.WithContentType(w.contentType))
	}
	return w.d.inner.Upload(w.ctx, w.key, body, opts...)
}
