package chunked_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/chunked"
)

// readings are all the ways to read a whole body. Each returns what came out,
// and the error that ended it (nil for a clean end).
var readings = []struct {
	name string
	read func(c *chunked.Cipher, body []byte) ([]byte, error)
}{
	{"Read small", func(c *chunked.Cipher, body []byte) ([]byte, error) {
		return drain(iotest.OneByteReader(c.Reader(bytes.NewReader(body))))
	}},
	{"Read 1000", func(c *chunked.Cipher, body []byte) ([]byte, error) {
		return drainBy(c.Reader(iotest.HalfReader(bytes.NewReader(body))), 1000)
	}},
	{"Read large, one core", func(c *chunked.Cipher, body []byte) ([]byte, error) {
		return drainBy(c.Reader(bytes.NewReader(body)).OnProcs(1), len(body)+1)
	}},
	{"Read large, four cores", func(c *chunked.Cipher, body []byte) ([]byte, error) {
		return drainBy(c.Reader(bytes.NewReader(body)).OnProcs(4), len(body)+1)
	}},
	{"WriteTo, one core", func(c *chunked.Cipher, body []byte) ([]byte, error) {
		return writeTo(c.Reader(bytes.NewReader(body)).OnProcs(1))
	}},
	{"WriteTo, four cores", func(c *chunked.Cipher, body []byte) ([]byte, error) {
		return writeTo(c.Reader(bytes.NewReader(body)).OnProcs(4))
	}},
	{"WriteTo, data with EOF", func(c *chunked.Cipher, body []byte) ([]byte, error) {
		return writeTo(c.Reader(iotest.DataErrReader(bytes.NewReader(body))))
	}},
	{"ranges of 10000", func(c *chunked.Cipher, body []byte) (got []byte, err error) {
		const step = 10000
		for off := int64(0); ; off += step {
			from, _, err := chunked.CiphertextRange(off, step)
			if err != nil {
				return got, err
			}
			src := bytes.NewReader(body[min(from, int64(len(body))):])
			part, err := drain(c.RangeReader(src, off, step))
			got = append(got, part...)
			if err != nil || len(part) < step {
				return got, err
			}
		}
	}},
	{"open range from 0", func(c *chunked.Cipher, body []byte) ([]byte, error) {
		return drain(c.RangeReader(bytes.NewReader(body), 0, -1))
	}},
	{"ReaderAt, whole", func(c *chunked.Cipher, body []byte) ([]byte, error) {
		r, err := c.ReaderAt(bytes.NewReader(body), int64(len(body)))
		if err != nil {
			return nil, err
		}
		p := make([]byte, r.Size()+1)
		n, err := chunked.OnProcs(3, r).ReadAt(p, 0)
		return p[:n], clean(err)
	}},
	{"ReaderAt, 5000 at a time", func(c *chunked.Cipher, body []byte) ([]byte, error) {
		r, err := c.ReaderAt(bytes.NewReader(body), int64(len(body)))
		if err != nil {
			return nil, err
		}
		return drainBy(r, 5000)
	}},
}

func clean(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

func drain(r io.Reader) ([]byte, error) { return drainBy(r, 512) }

// drainBy reads with a buffer of one size until an error, and then checks that
// the error stays.
func drainBy(r io.Reader, size int) (got []byte, err error) {
	p := make([]byte, size)
	for {
		n, err := r.Read(p)
		got = append(got, p[:n]...)
		if err != nil {
			for range 3 {
				if n, again := r.Read(p); n != 0 || again == nil || again.Error() != err.Error() {
					return got, fmt.Errorf("error %q did not stay: then %d, %v", err, n, again)
				}
			}
			return got, clean(err)
		}
	}
}

func writeTo(r *chunked.Reader) ([]byte, error) {
	var got bytes.Buffer
	_, err := r.WriteTo(&got)
	if n, again := r.WriteTo(&got); n != 0 || again != err {
		return nil, fmt.Errorf("error %v did not stay: then %d, %v", err, n, again)
	}
	return got.Bytes(), err
}

func encrypt(t *testing.T, c *chunked.Cipher, plaintext []byte, procs int) []byte {
	t.Helper()
	var body bytes.Buffer
	w := c.WriterFrom(&body, 0, procs)
	n, err := w.Write(plaintext)
	require.NoError(t, err)
	require.Equal(t, len(plaintext), n)
	require.NoError(t, w.Close())
	return body.Bytes()
}
