package blob

import (
	"context"
	"errors"
	"io"
	"reflect"

	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// Errors, for [errors.Is]. Those of sse, kms, keyring, of ctx and of the inner
// bucket stay visible beside them; the package's doc lists their gocloud codes.
var (
	// ErrPlain: the object is not encrypted, and the bucket does not allow that.
	// It is [sse.ErrFormat] too.
	ErrPlain error = plain{}

	// ErrPolicy: the bucket's policy does not allow what the request asks for.
	ErrPolicy = errors.New("blob: refused by the bucket's policy")

	// ErrReserved: the caller's metadata has a name that begins with
	// [ReservedPrefix].
	ErrReserved = errors.New("blob: metadata name is reserved")

	// ErrChanged: the object was replaced or deleted while it was worked on.
	ErrChanged = errors.New("blob: object changed meanwhile")

	// ErrNoSigner: a signed URL was asked for, and [Options] has no Signer. The
	// inner bucket's URL would serve ciphertext.
	ErrNoSigner = errors.New("blob: bucket has no URL signer")
)

// errUnpacked: the store unpacks an object on its way, by its Content-Encoding, as
// Google's does with gzip, so that what it has cannot be read as it is.
var errUnpacked = errors.New("blob: the store gives another content than it has, by its Content-Encoding")

type plain struct{}

func (plain) Error() string { return "blob: object is not encrypted" }
func (plain) Unwrap() error { return sse.ErrFormat }

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
	{errUnpacked, gcerrors.FailedPrecondition},
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

// opaque hides what a gocloud bucket would read into an error that is not for it:
// a code, since a key service that keeps its keys in a bucket must not make an
// object look deleted; and the end of a stream. Otherwise [errors.Is] and
// [errors.As] see through it.
type opaque struct{ err error }

func (o opaque) Error() string { return o.err.Error() }

func (o opaque) Is(target error) bool {
	return target != io.EOF && target != gcerrors.ErrNotFound && errors.Is(o.err, target)
}

func (o opaque) As(target any) bool {
	// gocloud's error type is internal to it; this method of xerrors shows it.
	_, coded := reflect.TypeOf(target).Elem().MethodByName("FormatError")
	return !coded && errors.As(o.err, target)
}

// keyError is what a key operation returned. It may be anything, as ciphers come
// from the caller.
func keyError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return opaque{err}
}

// openError is what a request of the inner bucket returned. None of it is the end
// of anything, although a store may say io.EOF when its own files end too early.
func openError(err error) error {
	if errors.Is(err, io.EOF) {
		return opaque{err}
	}
	return err
}
