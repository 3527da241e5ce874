package jobs_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/sse"
)

// newer is an object of a release with the next envelope version: nothing behind the
// version need be what this release knows.
const newer = "\x89SSE\r\n\x1a\n\x03 and what nobody knows yet"

// TestNewerObject: reads, copies and jobs of this release reject the version of an
// object that a newer one wrote, and leave the object as it is.
func TestNewerObject(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	inner := w.Inner()
	w.put(t, "a", 10, nil)
	for _, md := range []map[string]string{nil, {"blobseal-mode": "SSE-S3"}} {
		require.NoError(t, inner.WriteAll(ctx, "newer", []byte(newer), metadata(md)))
		_, err := w.ReadAll(ctx, "newer")
		require.ErrorIs(t, err, sse.ErrVersion)
		require.ErrorIs(t, w.Copy(ctx, "copy", "newer", nil), sse.ErrVersion)
		exists, err := inner.Exists(ctx, "copy")
		require.NoError(t, err)
		require.False(t, exists)

		for name, run := range map[string]func() error{
			"rewrap": func() error { _, err := jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{To: w.kms}); return err },
			"forced rewrap": func() error {
				_, err := jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{To: w.kms, Force: true})
				return err
			},
			"encrypt existing": func() error {
				_, err := jobs.EncryptExisting(ctx, w.Bucket, &jobs.EncryptOptions{To: w.kms})
				return err
			},
		} {
			require.ErrorIs(t, run(), sse.ErrVersion, name)
			require.Equal(t, newer, string(blobtest.ReadAll(t, inner, "newer")), name)
		}
	}
}
