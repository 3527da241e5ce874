package blob_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/s3wire"
)

// TestS3Codes: an S3 server over a bucket answers with these codes.
func TestS3Codes(t *testing.T) {
	for _, c := range []struct {
		err  error
		code s3wire.Code
	}{
		{blob.ErrPlain, s3wire.CodeAccessDenied},
		{blob.ErrPolicy, s3wire.CodeAccessDenied},
		{stored.ErrReserved, s3wire.CodeInvalidArgument},
		{blob.ErrChanged, s3wire.CodeOperationAborted},
		{blob.ErrNoSigner, s3wire.CodeNotImplemented},
		{stored.ErrDamaged, s3wire.CodeInternalError},
	} {
		t.Run(c.err.Error(), func(t *testing.T) {
			e := s3wire.FromError(fmt.Errorf("%w: %q", c.err, "k"))
			require.Equal(t, c.code, e.Code)
			require.ErrorIs(t, e, c.err)
		})
	}
	require.ErrorIs(t, blob.ErrPlain, sse.ErrFormat)
}
