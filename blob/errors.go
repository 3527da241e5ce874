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

// Errors for errors.Is, which also finds those of stored, sse, kms, keyring, of ctx and of
// the inner bucket. The package's comment lists their gocloud codes. Errors of this package have
// codes of S3, too, which package sse/s3wire finds.
var (
	// ErrPlain means that the object is not encrypted and the bucket does not
	// allow plain objects. It is [sse.ErrFormat] too.
	ErrPlain = stored.ErrPlain

	// ErrPolicy means that the bucket's policy does not allow the write.
	ErrPolicy error = s3Error{"blob: refused by the bucket's policy", "AccessDenied"}

	// ErrChanged means that the object was replaced or deleted during the call.
	// Retry it.
	ErrChanged = stored.ErrChanged
)

// errNoSigner: the inner bucket's own URL would serve ciphertext.
var errNoSigner error = s3Error{"blob: bucket has no URL signer (set Options.Signer)", "NotImplemented"}

// s3Error is an error with the code that sse/s3wire answers with.
type s3Error struct{ text, code string }

func (e s3Error) Error() string  { return e.text }
func (e s3Error) S3Code() string { return e.code }

// codes are gocloud's codes of our errors. The first match counts. None is NotFound: only
// the inner bucket knows that an object does not exist. gocloud has no code for a key
// service that does not answer.
var codes = []struct {
	err  error
	code gcerrors.ErrorCode
}{
	{errNoSigner, gcerrors.Unimplemented},
	{ErrPolicy, gcerrors.PermissionDenied},
	{stored.ErrReserved, gcerrors.InvalidArgument},
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

// errorCode returns gocloud's code of an error.
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
