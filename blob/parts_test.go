package blob_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/sse"
)

// huge is a store that says that it has one object, of which it has the head alone.
type huge struct {
	driver.Bucket // nil: nothing else is asked for

	size  int64
	head  []byte
	parts []int // sizes of parts that were asked for
}

var errHuge = errors.New("the rest is not there")

func (*huge) ErrorCode(error) gcerrors.ErrorCode { return gcerrors.Unknown }
func (*huge) As(any) bool                        { return false }
func (*huge) ErrorAs(error, any) bool            { return false }
func (*huge) Close() error                       { return nil }

func (h *huge) Attributes(context.Context, string) (*driver.Attributes, error) {
	return &driver.Attributes{Size: h.size, ETag: `"huge"`, ModTime: time.Unix(1, 0)}, nil
}

func (h *huge) ListPaged(context.Context, *driver.ListOptions) (*driver.ListPage, error) {
	return &driver.ListPage{Objects: []*driver.ListObject{{Key: "huge", Size: h.size}}}, nil
}

func (h *huge) NewRangeReader(_ context.Context, _ string, off, n int64, _ *driver.ReaderOptions) (driver.Reader, error) {
	rest := io.Reader(bytes.NewReader(h.head[off:]))
	if n >= 0 {
		rest = io.LimitReader(rest, n)
	}
	return hugeReader{rest, h.size}, nil
}

func (h *huge) NewTypedWriter(_ context.Context, _, _ string, opts *driver.WriterOptions) (driver.Writer, error) {
	h.parts = append(h.parts, opts.BufferSize)
	return nowhere{io.Discard}, nil
}

type hugeReader struct {
	io.Reader
	size int64
}

func (r hugeReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err == io.EOF {
		err = errHuge
	}
	return n, err
}

func (r hugeReader) Attributes() *driver.ReaderAttributes {
	return &driver.ReaderAttributes{Size: r.size, ModTime: time.Unix(1, 0)}
}
func (hugeReader) As(any) bool  { return false }
func (hugeReader) Close() error { return nil }

type nowhere struct{ io.Writer }

func (nowhere) Close() error { return nil }

// TestPartsOfLargeObjects: copies and rewraps of large objects ask for parts so large that
// S3's 10,000 parts suffice, and leave the part size alone otherwise.
func TestPartsOfLargeObjects(t *testing.T) {
	ctx := context.Background()
	for _, test := range []struct {
		name  string
		size  int64 // of the plaintext
		asked bool
	}{
		{"1 MiB", 1 << 20, false}, {"70 GiB", 70 << 30, false}, {"78 GiB", 78 << 30, true}, {"5 TiB", 5 << 40, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			cipher := ssetest.NewKMS(t, "key")
			enc, err := cipher.Encrypt(ctx, sse.Object{Bucket: "photos", Key: "huge"})
			require.NoError(t, err)
			env, err := enc.Envelope().WithSize(blob.DefaultEnvelopeSize)
			require.NoError(t, err)
			head, err := env.MarshalBinary()
			require.NoError(t, err)
			body, err := sse.CiphertextSize(test.size)
			require.NoError(t, err)
			h := &huge{size: int64(len(head)) + body, head: head}
			inner := gcblob.NewBucket(h)
			defer inner.Close()
			b := blobtest.NewBucketWith(t, inner, cipher, nil)

			require.ErrorIs(t, b.Copy(ctx, "copy", "huge", nil), errHuge)
			report, err := jobs.Rewrap(ctx, b, &jobs.RewrapOptions{Force: true})
			require.ErrorIs(t, err, jobs.ErrIncomplete)
			require.ErrorIs(t, report.Failures[0].Err, errHuge)
			require.Len(t, h.parts, 2)
			for _, part := range h.parts {
				if !test.asked {
					require.Zero(t, part)
					continue
				}
				require.GreaterOrEqual(t, int64(part)*10_000, h.size)
				require.Less(t, int64(part), int64(5<<30), "S3 takes no larger ones")
			}
		})
	}
}
