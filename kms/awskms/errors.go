package awskms

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/blobseal/blobseal/internal/deadline"
	"github.com/blobseal/blobseal/kms"
)

// kinds are the error codes of AWS KMS, those common to all of AWS, and those with
// which its token service refuses credentials. Codes of throttling and of faults
// on AWS's side are left to the SDK's own lists.
var kinds = map[string]error{
	"NotFoundException": kms.ErrNotFound,

	"DisabledException": kms.ErrDisabled,

	"KMSInvalidStateException": kms.ErrPendingDeletion,

	"InvalidCiphertextException": kms.ErrCiphertext,
	"IncorrectKeyException":      kms.ErrCiphertext,

	"AccessDenied":                        kms.ErrDenied,
	"AccessDeniedException":               kms.ErrDenied,
	"ExpiredToken":                        kms.ErrDenied,
	"ExpiredTokenException":               kms.ErrDenied,
	"IncompleteSignature":                 kms.ErrDenied,
	"IncompleteSignatureException":        kms.ErrDenied,
	"InvalidClientTokenId":                kms.ErrDenied,
	"InvalidSignatureException":           kms.ErrDenied,
	"MissingAuthenticationToken":          kms.ErrDenied,
	"MissingAuthenticationTokenException": kms.ErrDenied,
	"NotAuthorized":                       kms.ErrDenied,
	"OptInRequired":                       kms.ErrDenied,
	"SignatureDoesNotMatch":               kms.ErrDenied,
	"UnrecognizedClientException":         kms.ErrDenied,

	"InvalidArnException":           kms.ErrInvalid,
	"InvalidGrantTokenException":    kms.ErrInvalid,
	"InvalidKeyUsageException":      kms.ErrInvalid,
	"SerializationException":        kms.ErrInvalid,
	"UnsupportedOperationException": kms.ErrInvalid,
	"ValidationError":               kms.ErrInvalid,
	"ValidationException":           kms.ErrInvalid,

	"DependencyTimeoutException": kms.ErrUnavailable,
	"KMSInternalException":       kms.ErrUnavailable,
	"KeyUnavailableException":    kms.ErrUnavailable,
}

// fail makes err, which the SDK returned, one of the errors of package kms.
func fail(ctx context.Context, err error) error {
	if response, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		kms.ReportFrom(ctx).RequestID = response.ServiceRequestID()
	}
	if ended := deadline.Ended(ctx); ended != nil {
		if errors.Is(err, ended) {
			return fmt.Errorf("awskms: %w", err)
		}
		return fmt.Errorf("awskms: %w: %v", ended, err)
	}
	kind := kindOf(err)
	switch {
	case kind == nil:
		return fmt.Errorf("awskms: %w", err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("awskms: %w: %v", kind, err) // a limit of the SDK's client: ctx did not end, and must not seem to
	default:
		return fmt.Errorf("awskms: %w: %w", kind, err)
	}
}

// kindOf returns the kind of an error, or nil for one that nothing is known about.
func kindOf(err error) error {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		if kind := kinds[api.ErrorCode()]; kind != nil {
			return kind
		}
	}
	if unavailable(err) {
		return kms.ErrUnavailable
	}
	return nil
}

// unavailable reports whether the service did not answer, or with nonsense, or asked
// to wait: what the SDK tries again, and more that is no answer of AWS KMS.
func unavailable(err error) bool {
	if retry.IsErrorRetryables(retry.DefaultRetryables).IsErrorRetryable(err) == aws.TrueTernary {
		return true
	}
	if response, ok := errors.AsType[*smithyhttp.ResponseError](err); ok && response.HTTPStatusCode() >= http.StatusInternalServerError {
		return true
	}
	_, unread := errors.AsType[*smithy.DeserializationError](err)
	_, network := errors.AsType[net.Error](err)                  // also on the way to credentials
	return unread || network || errors.Is(err, context.Canceled) // not by ctx
}
