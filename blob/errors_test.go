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
		code string
	}{
		{blob.ErrPlain, "AccessDenied"},
		{blob.ErrPolicy, "AccessDenied"},
		{stored.ErrReserved, "InvalidArgument"},
		{blob.ErrChanged, "OperationAborted"},
		{blob.ErrNoSigner, "NotImplemented"},
		{stored.ErrDamaged, "InternalError"},
	} {
		t.Run(c.err.Error(), func(t *testing.T) {
			e := s3wire.FromError(fmt.Errorf("%w: %q", c.err, "k"))
			require.Equal(t, c.code, e.Code)
			require.ErrorIs(t, e, c.err)
		})
	}
	require.ErrorIs(t, blob.ErrPlain, sse.ErrFormat)
}
