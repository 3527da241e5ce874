package stored_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob/stored"
)

// TestExactReader: neither a byte less nor a byte more passes, however it is read.
func TestExactReader(t *testing.T) {
	mismatch := errors.New("mismatch")
	for name, read := range map[string]func(io.Reader) ([]byte, error){
		"read":          io.ReadAll,
		"byte by byte":  func(r io.Reader) ([]byte, error) { return io.ReadAll(iotest.OneByteReader(r)) },
		"end with data": func(r io.Reader) ([]byte, error) { return io.ReadAll(iotest.DataErrReader(r)) },
		"write to": func(r io.Reader) ([]byte, error) {
			var dst strings.Builder
			_, err := r.(io.WriterTo).WriteTo(&dst)
			return []byte(dst.String()), err
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, content := range []string{"", "a", "content"} {
				size := int64(len(content))
				got, err := read(stored.ExactReader(strings.NewReader(content), size, mismatch))
				require.NoError(t, err)
				require.Equal(t, content, string(got))

				_, err = read(stored.ExactReader(strings.NewReader(content), size+1, mismatch))
				require.ErrorIs(t, err, mismatch)
				if size > 0 {
					_, err = read(stored.ExactReader(strings.NewReader(content), size-1, mismatch))
					require.ErrorIs(t, err, mismatch)
				}
				_, err = read(stored.ExactReader(iotest.ErrReader(io.ErrClosedPipe), size, mismatch))
				require.ErrorIs(t, err, io.ErrClosedPipe)
			}
		})
	}
}
