package sse_test

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/httpget"
	"github.com/blobseal/blobseal/sse"
)

// cutObject is an object as a store returns it, cut or not, with the plaintext
// size that its stored size suggests.
type cutObject struct {
	d    *sse.Decryption
	body []byte
	size int64
}

func (o *cutObject) reader() io.Reader { return o.d.Reader(bytes.NewReader(o.body)) }

// section is nil, with an error, if the length does not authenticate.
func (o *cutObject) section() (*io.SectionReader, error) {
	return o.d.ReaderAt(bytes.NewReader(o.body), int64(len(o.body)))
}

// serve serves the object with [http.ServeContent].
func (o *cutObject) serve(w http.ResponseWriter, r *http.Request) {
	section, err := o.section()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	http.ServeContent(w, r, "object", time.Time{}, section)
}

// Open makes an object a file system of one file.
func (o *cutObject) Open(string) (fs.File, error) {
	r, err := o.section()
	if err != nil {
		return nil, err
	}
	return &objectFile{r}, nil
}

type objectFile struct{ *io.SectionReader }

func (f *objectFile) Stat() (fs.FileInfo, error) { return f, nil }
func (f *objectFile) Close() error               { return nil }
func (f *objectFile) Name() string               { return "object" }
func (f *objectFile) Mode() fs.FileMode          { return 0o444 }
func (f *objectFile) ModTime() time.Time         { return time.Time{} }
func (f *objectFile) IsDir() bool                { return false }
func (f *objectFile) Sys() any                   { return nil }

// endIdioms read a whole object as Go programs do. Most stop at the length they
// were told.
var endIdioms = map[string]func(o *cutObject) ([]byte, error){
	"ReadAll": func(o *cutObject) ([]byte, error) { return io.ReadAll(o.reader()) },
	"Copy": func(o *cutObject) ([]byte, error) {
		var dst bytes.Buffer
		_, err := io.Copy(&dst, o.reader())
		return dst.Bytes(), err
	},
	"Copy without WriterTo": func(o *cutObject) ([]byte, error) {
		var dst bytes.Buffer
		_, err := io.Copy(&dst, struct{ io.Reader }{o.reader()})
		return dst.Bytes(), err
	},
	"CopyN": func(o *cutObject) ([]byte, error) {
		var dst bytes.Buffer
		_, err := io.CopyN(&dst, o.reader(), o.size)
		return dst.Bytes(), err
	},
	"LimitReader": func(o *cutObject) ([]byte, error) {
		return io.ReadAll(io.LimitReader(o.reader(), o.size))
	},
	"ReadFull": func(o *cutObject) ([]byte, error) {
		p := make([]byte, o.size)
		n, err := io.ReadFull(o.reader(), p)
		return p[:n], err
	},
	"RangeReader": func(o *cutObject) ([]byte, error) {
		p := make([]byte, o.size)
		n, err := io.ReadFull(o.d.RangeReader(bytes.NewReader(o.body), 0, o.size), p)
		return p[:n], err
	},
	"RangeReader of the last kilobyte": func(o *cutObject) ([]byte, error) {
		off := max(0, o.size-1024)
		p, err := io.ReadAll(io.LimitReader(o.reader(), off))
		if err != nil || int64(len(p)) < off {
			return p, err
		}
		bodyOff, bodyLen, err := sse.CiphertextRange(off, o.size-off)
		if err != nil {
			return nil, err
		}
		src := io.NewSectionReader(bytes.NewReader(o.body), bodyOff, bodyLen)
		tail, err := io.ReadAll(o.d.RangeReader(src, off, o.size-off))
		return append(p, tail...), err
	},
	"ServeContent": func(o *cutObject) ([]byte, error) { return httpget.Get(o.serve, "") },
	"ServeContent of two ranges": func(o *cutObject) ([]byte, error) {
		first, err := httpget.Get(o.serve, "bytes=0-0")
		if err != nil || o.size == 1 {
			return first, err
		}
		rest, err := httpget.Get(o.serve, "bytes=1-")
		return append(first, rest...), err
	},
	"Content-Length and Copy": func(o *cutObject) ([]byte, error) {
		return httpget.Get(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.FormatInt(o.size, 10))
			if _, err := io.Copy(w, o.reader()); err != nil {
				panic(http.ErrAbortHandler)
			}
		}, "")
	},
	"fs.ReadFile":  func(o *cutObject) ([]byte, error) { return fs.ReadFile(o, "object") },
	"FileServerFS": func(o *cutObject) ([]byte, error) { return httpget.Get(http.FileServerFS(o).ServeHTTP, "") },
}

// TestTruncatedObjectInEveryIdiom cuts objects and reads them as Go programs
// do. No program gets as many bytes as the cut object's size suggests without
// an error. SPEC MSG-6 MSG-9
func TestTruncatedObjectInEveryIdiom(t *testing.T) {
	cipher := newCustomer(t, customerKey)
	const sealed = chunk + 16
	for _, size := range []int{1, chunk - 1, chunk, chunk + 1, 2 * chunk, 2*chunk + 5} {
		e, err := cipher.Encrypt(t.Context(), object)
		require.NoError(t, err)
		plaintext := pattern(size)
		body, err := io.ReadAll(e.Reader(bytes.NewReader(plaintext)))
		require.NoError(t, err)
		d, err := cipher.Decrypt(t.Context(), object, e.Envelope())
		require.NoError(t, err)

		cuts := map[int]bool{len(body): true, len(body) - 1: true, len(body) - 16: true, len(body) - sealed: true}
		for k := range len(body)/sealed + 1 {
			for _, more := range []int{-1, 0, 15, 16, 17} {
				cuts[k*sealed+more] = true
			}
		}
		for cut := range cuts {
			if cut < 0 || cut > len(body) {
				continue
			}
			o := &cutObject{d: d, body: body[:cut], size: int64(cut / sealed * chunk)}
			if size, err := sse.PlaintextSize(int64(cut)); err == nil {
				o.size = size
			}
			for name, read := range endIdioms {
				t.Run(fmt.Sprintf("%s/%d/cut to %d", name, size, cut), func(t *testing.T) {
					got, err := read(o)
					if cut == len(body) {
						require.NoError(t, err)
						require.True(t, bytes.Equal(plaintext, got))
						return
					}
					if o.size > 0 && err == nil { // ReadAll of a LimitReader gives no other sign
						require.Less(t, int64(len(got)), o.size)
					}
					if name == "ReadAll" || name == "Copy" {
						require.ErrorIs(t, err, sse.ErrCorrupt)
					}
				})
			}
		}
	}
}

// TestPartsOfATruncatedObject reads an object in parts, as uploaders do: a short
// part that io.ReadFull reports with io.ErrUnexpectedEOF is the last one.
func TestPartsOfATruncatedObject(t *testing.T) {
	cipher := newCustomer(t, customerKey)
	data := seal(t, cipher, object, pattern(5*chunk), nil)
	for _, cut := range []int{16, chunk, chunk + 16, 2*chunk + 32} {
		r, err := sse.NewReader(t.Context(), bytes.NewReader(data[:len(data)-cut]), cipher, object)
		require.NoError(t, err)
		part := make([]byte, 3*chunk)
		for err == nil {
			_, err = io.ReadFull(r, part)
		}
		require.ErrorIs(t, err, sse.ErrCorrupt, cut)
		require.NotErrorIs(t, err, io.ErrUnexpectedEOF, cut)
	}
	_, err := sse.PlaintextSize(15)
	require.ErrorIs(t, err, sse.ErrTruncated)
	require.NotErrorIs(t, err, io.ErrUnexpectedEOF)
}
