package s3wire_test

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/s3wire"
)

// TestFromError names the code of each error of the packages below, wrapped as
// callers meet it.
func TestFromError(t *testing.T) {
	keyError := func(kind error) error {
		return fmt.Errorf("sse: %w", &kms.KeyError{Op: kms.OpDecrypt, KeyID: "photos", Err: kind})
	}
	for _, c := range []struct {
		err    error
		code   string
		status int
	}{
		{keyError(kms.ErrDenied), "AccessDenied", 403},
		{keyError(kms.ErrNotFound), "KMS.NotFoundException", 400},
		{keyError(kms.ErrDisabled), "KMS.DisabledException", 400},
		{keyError(kms.ErrPendingDeletion), "KMS.KMSInvalidStateException", 400},
		{keyError(kms.ErrInvalid), "InvalidArgument", 400},
		{keyError(kms.ErrUnavailable), "ServiceUnavailable", 503},
		{keyError(context.DeadlineExceeded), "ServiceUnavailable", 503},
		{keyError(context.Canceled), "RequestTimeout", 400},
		{keyError(errors.New("what no kind fits")), "InternalError", 500},
		{audit.ErrNotRecorded, "ServiceUnavailable", 503},
		{fmt.Errorf("%w: %w", sse.ErrKey, keyError(kms.ErrNotFound)), "KMS.NotFoundException", 400},
		{fmt.Errorf("%w: %w", sse.ErrKey, keyError(kms.ErrCiphertext)), "AccessDenied", 403},

		{&keyring.VersionError{ID: "1", Err: keyring.ErrDisabled}, "AccessDenied", 403},
		{&keyring.VersionError{ID: "1", Err: keyring.ErrDestroyed}, "AccessDenied", 403},
		{fmt.Errorf("%w: %w", sse.ErrKey, keyring.ErrUnknownKey), "InternalError", 500},
		{fmt.Errorf("%w: %w", keyring.ErrUnknownKey, keyring.ErrStore), "ServiceUnavailable", 503},
		{keyring.ErrRootUnavailable, "ServiceUnavailable", 503},
		{keyring.ErrConflict, "ServiceUnavailable", 503},
		{keyring.ErrTooOld, "ServiceUnavailable", 503},
		{keyring.ErrRoot, "InternalError", 500},
		{keyring.ErrDamaged, "InternalError", 500},
		{keyring.ErrRollback, "InternalError", 500},

		{sse.ErrMode, "InvalidRequest", 400},
		{sse.ErrKey, "AccessDenied", 403},
		{sse.ErrReceipt, "InvalidPart", 400},
		{sse.ErrTooLarge, "EntityTooLarge", 400},
		{sse.ErrInvalid, "InvalidArgument", 400},
		{sse.ErrCorrupt, "InternalError", 500},
		{sse.ErrTruncated, "InternalError", 500},
		{sse.ErrFormat, "InternalError", 500},
		{sse.ErrVersion, "InternalError", 500},
		{sse.ErrComposite, "InternalError", 500},
		{sse.ErrUsed, "InternalError", 500},

		{coded("OperationAborted"), "OperationAborted", 409},
		{coded("no such code"), "InternalError", 500},
		{fmt.Errorf("%w: %w", coded("AccessDenied"), sse.ErrFormat), "AccessDenied", 403},
		{errors.New("secret: hunter2"), "InternalError", 500},
	} {
		t.Run(fmt.Sprint(c.err), func(t *testing.T) {
			for _, err := range []error{c.err, fmt.Errorf("blob: reading: %w", c.err), s3wire.FromError(c.err)} {
				e := s3wire.FromError(err)
				require.Equal(t, c.code, e.Code)
				require.Equal(t, c.status, e.Status())
				require.ErrorIs(t, e, c.err)
				require.Contains(t, e.Error(), c.err.Error(), "the log has the cause")
				require.NotContains(t, e.ClientMessage(), c.err.Error(), "the client has not")
				require.NotContains(t, string(e.XML("/b/k", "7")), c.err.Error())
			}
		})
	}
	require.Nil(t, s3wire.FromError(nil))
	require.Equal(t, 500, (&s3wire.Error{Code: "unknown"}).Status())
}

// TestErrorXML: values are escaped.
func TestErrorXML(t *testing.T) {
	body := (&s3wire.Error{Code: "InvalidArgument", Message: "a < b"}).XML("/b/<k>&\x00\xff", "1")
	var parsed struct {
		XMLName                 xml.Name `xml:"Error"`
		Code, Message, Resource string
		RequestID               string `xml:"RequestId"`
	}
	require.NoError(t, xml.Unmarshal(body, &parsed))
	require.Equal(t, "InvalidArgument", parsed.Code)
	require.Equal(t, "a < b", parsed.Message)
	require.Equal(t, "/b/<k>&\ufffd\ufffd", parsed.Resource)
	require.Equal(t, "1", parsed.RequestID)
}
