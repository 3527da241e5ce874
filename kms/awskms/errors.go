package awskms

import (
	"context"
	"errors"
	"net"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/blobseal/blobseal/kms"
)

// kinds are the kinds of AWS's error codes: those of AWS KMS, those that all of AWS
// shares, and those with which the token service refuses credentials. The SDK has
// its own lists of codes for throttling and for faults of AWS, see isUnavailable.
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

// callError returns err as a [*kms.KeyError] with its kind.
func callError(ctx context.Context, op kms.Operation, keyID string, err error) error {
	if response, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		kms.ReportFrom(ctx).RequestID = response.ServiceRequestID()
	}
	return kms.CallError(ctx, op, keyID, kindOf(err), err)
}

// kindOf returns the kind of an error of the SDK. It returns nil for other errors,
// and for codes that nothing is known about.
func kindOf(err error) error {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		if kind := kinds[api.ErrorCode()]; kind != nil {
			return kind
		}
	}
	if isUnavailable(err) {
		return kms.ErrUnavailable
	}
	return nil
}

// isUnavailable reports whether the service did not answer, gave a nonsensical answer
// or asked to slow down: what the SDK retries, and whatever is no answer of AWS KMS.
func isUnavailable(err error) bool {
	if retry.IsErrorRetryables(retry.DefaultRetryables).IsErrorRetryable(err) == aws.TrueTernary {
		return true
	}
	if response, ok := errors.AsType[*smithyhttp.ResponseError](err); ok && response.HTTPStatusCode() >= http.StatusInternalServerError {
		return true
	}
	_, unread := errors.AsType[*smithy.DeserializationError](err)
	_, network := errors.AsType[net.Error](err) // also on the way to credentials
	return unread || network
}
