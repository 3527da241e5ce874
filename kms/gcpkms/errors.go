package gcpkms

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/googleapis/gax-go/v2/apierror"
	"google.golang.org/grpc/codes"

	"github.com/blobseal/blobseal/kms"
)

// kinds are the kinds of Google's codes. Two codes need a look at the answer:
// FailedPrecondition and InvalidArgument, which are one code over REST.
var kinds = map[codes.Code]error{
	codes.NotFound:         kms.ErrNotFound,
	codes.PermissionDenied: kms.ErrDenied,
	codes.Unauthenticated:  kms.ErrDenied,

	codes.AlreadyExists:      nil,
	codes.OutOfRange:         nil,
	codes.FailedPrecondition: nil,
	codes.InvalidArgument:    nil,
	// All others mean an outage, a limit, or an answer that is not Google's.
}

// callError returns err as a [*kms.KeyError] with its kind.
func callError(ctx context.Context, op kms.Operation, keyID string, err error) error {
	return kms.CallError(ctx, op, keyID, kindOf(op, err), err)
}

// kindOf returns the kind of an error of Google's client. It returns nil for other
// errors, and for codes that nothing is known about.
func kindOf(op kms.Operation, err error) error {
	answer, ok := apierror.ParseError(err, false)
	if !ok {
		if _, network := errors.AsType[net.Error](err); network {
			return kms.ErrUnavailable
		}
		return nil
	}
	code, text := answer.GRPCStatus().Code(), answer.Message()
	switch {
	case code == codes.Unauthenticated && strings.Contains(text, "per-RPC creds failed"):
		return kms.ErrUnavailable // gRPC had no credentials to send: their issuer did not answer
	case code == codes.FailedPrecondition || code == codes.InvalidArgument:
		if kind := stateOf(answer); kind != nil {
			return kind
		}
	}
	switch {
	case code == codes.InvalidArgument && strings.Contains(text, "_crc32c"):
		return kms.ErrUnavailable // the request was damaged on the way
	case code == codes.InvalidArgument && op == kms.OpDecrypt:
		return kms.ErrCiphertext
	case code == codes.InvalidArgument:
		return kms.ErrInvalid
	}
	if kind, known := kinds[code]; known {
		return kind
	}
	return kms.ErrUnavailable
}

// stateOf returns the kind of an error that says which state a version of the key
// is in, or nil if the error does not say it.
func stateOf(answer *apierror.APIError) error {
	for _, violation := range answer.Details().PreconditionFailure.GetViolations() {
		if violation.GetType() == "KEY_DISABLED" {
			return kms.ErrDisabled
		}
	}
	_, state, ok := strings.Cut(answer.Message(), "current state is: ")
	switch {
	case !ok:
		return nil
	case strings.HasPrefix(state, "DISABLED"):
		return kms.ErrDisabled
	default:
		return kms.ErrPendingDeletion
	}
}
