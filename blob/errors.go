package blob

import (
	"errors"

	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// Errors, for [errors.Is]. Those of sse, kms, keyring, of ctx and of the inner
// bucket stay visible beside them; the package's doc lists their gocloud codes.
var (
	// ErrPlain: the object is not encrypted, and the bucket does not allow that.
	// It is [sse.ErrFormat] too.
	ErrPlain = stored.ErrPlain

	// ErrPolicy: the bucket's policy does not allow what the request asks for.
	ErrPolicy = errors.New("blob: refused by the bucket's policy")

	// ErrReserved: the caller's metadata has a name that begins with
	// [ReservedPrefix].
	ErrReserved = stored.ErrReserved

	// ErrChanged: the object was replaced or deleted while it was worked on.
	ErrChanged = stored.ErrChanged

	// ErrNoSigner: a signed URL was asked for, and [Options] has no Signer. The
	// inner bucket's URL would serve ciphertext.
	ErrNoSigner = errors.New("blob: bucket has no URL signer")
)

// codes are gocloud's codes of our errors; the first that matches counts. None
// is NotFound, which would deny the object: that is said by the inner bucket
// alone. A key service that does not answer has no code in gocloud.
var codes = []struct {
	err  error
	code gcerrors.ErrorCode
}{
	{ErrNoSigner, gcerrors.Unimplemented},
	{ErrPolicy, gcerrors.PermissionDenied},
	{ErrReserved, gcerrors.InvalidArgument},
	{ErrChanged, gcerrors.FailedPrecondition},
	{ErrPlain, gcerrors.FailedPrecondition},
	{store.ErrUnpacked, gcerrors.FailedPrecondition},
	{kms.ErrDenied, gcerrors.PermissionDenied},
	{kms.ErrNotFound, gcerrors.FailedPrecondition},
	{kms.ErrDisabled, gcerrors.FailedPrecondition},
	{kms.ErrPendingDeletion, gcerrors.FailedPrecondition},
	{kms.ErrInvalid, gcerrors.InvalidArgument},
	{keyring.ErrDisabled, gcerrors.FailedPrecondition},
	{keyring.ErrDestroyed, gcerrors.FailedPrecondition},
	{keyring.ErrUnknownKey, gcerrors.FailedPrecondition},
	{sse.ErrKey, gcerrors.PermissionDenied},
	{sse.ErrMode, gcerrors.InvalidArgument},
	{sse.ErrInvalid, gcerrors.InvalidArgument},
	{sse.ErrTooLarge, gcerrors.InvalidArgument},
	{sse.ErrVersion, gcerrors.Unimplemented},
	{sse.ErrCorrupt, gcerrors.Internal},
	{sse.ErrFormat, gcerrors.Internal},
}

func errorCode(err error) gcerrors.ErrorCode {
	if code := gcerrors.Code(err); code != gcerrors.Unknown {
		return code
	}
	for _, known := range codes {
		if errors.Is(err, known.err) {
			return known.code
		}
	}
	return gcerrors.Unknown
}
