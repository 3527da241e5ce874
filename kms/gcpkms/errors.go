package gcpkms

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/googleapis/gax-go/v2/apierror"
	"google.golang.org/grpc/codes"

	"github.com/blobseal/blobseal/internal/deadline"
	"github.com/blobseal/blobseal/kms"
)

// fail makes err, which Google's client returned for op, one of the errors of
// package kms.
func fail(ctx context.Context, op kms.Operation, err error) error {
	if ended := deadline.Ended(ctx); ended != nil {
		if errors.Is(err, ended) {
			return fmt.Errorf("gcpkms: %w", err)
		}
		return fmt.Errorf("gcpkms: %w: %v", ended, err)
	}
	kind := kindOf(op, err)
	switch {
	case kind == nil:
		return fmt.Errorf("gcpkms: %w", err)
	case timedOut(err):
		return fmt.Errorf("gcpkms: %w: %v", kind, err) // a limit of Google's client: ctx did not end, and must not seem to
	default:
		return fmt.Errorf("gcpkms: %w: %w", kind, err)
	}
}

func timedOut(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// kindOf returns the kind of an error, or nil for one that nothing is known about.
func kindOf(op kms.Operation, err error) error {
	answer, ok := apierror.ParseError(err, false)
	if !ok {
		if _, network := errors.AsType[net.Error](err); network || timedOut(err) {
			return kms.ErrUnavailable
		}
		return nil
	}
	switch code := answer.GRPCStatus().Code(); code {
	case codes.NotFound:
		return kms.ErrNotFound
	case codes.PermissionDenied:
		return kms.ErrDenied
	case codes.Unauthenticated:
		if strings.Contains(answer.Message(), "per-RPC creds failed") {
			return kms.ErrUnavailable // gRPC had no credentials to send: whoever issues them did not answer
		}
		return kms.ErrDenied
	case codes.FailedPrecondition, codes.InvalidArgument: // over REST both are one
		if kind := stateOf(answer); kind != nil {
			return kind
		}
		switch {
		case code == codes.FailedPrecondition:
			return nil
		case strings.Contains(answer.Message(), "_crc32c"):
			return kms.ErrUnavailable // the request was damaged on the way
		case op == kms.OpDecrypt:
			return kms.ErrCiphertext
		default:
			return kms.ErrInvalid
		}
	case codes.AlreadyExists, codes.OutOfRange:
		return nil
	default:
		return kms.ErrUnavailable // an outage, a limit, or no answer of Google's at all
	}
}

// stateOf returns the kind of an error that says which state a version of the key
// is in, or nil if it does not.
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
