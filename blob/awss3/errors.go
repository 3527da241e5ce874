package awss3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"github.com/blobseal/blobseal/sse"
)

var (
	// ErrPresign means that the caller asked for a presigned URL. The store would serve
	// ciphertext. Use the signer and the handler of package signedurl.
	ErrPresign = errors.New("awss3: a presigned URL would bypass encryption (use the signer and handler of package blob/signedurl)")

	// ErrCustomerKey means that a write is in SSE-C, which Options.AllowCustomerKeys
	// does not allow.
	ErrCustomerKey = errors.New("awss3: customer keys are not allowed (set Options.AllowCustomerKeys)")
)

var errNotEncrypted = fmt.Errorf("%w: the request has a key or a context, but the object is not encrypted", sse.ErrMode)

// opaque hides errors of S3 from errors.As. A caller would take them for answers about the
// object: a key service that keeps its keys in S3 must not make an object look deleted.
type opaque struct{ err error }

func (o opaque) Error() string        { return o.err.Error() }
func (o opaque) Is(target error) bool { return target != io.EOF && errors.Is(o.err, target) }

func (o opaque) As(target any) bool {
	kind := reflect.TypeOf(target).Elem()
	pkg := kind.PkgPath()
	if kind.Kind() == reflect.Pointer {
		pkg = kind.Elem().PkgPath()
	}
	return !strings.HasPrefix(pkg, "github.com/aws/") && errors.As(o.err, target)
}

// keyError wraps the error of a key operation, which may be any error, since ciphers
// come from the caller.
func keyError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return opaque{err}
}

// hasCode reports whether an error is an answer of S3 with one of these codes. An
// answer to a HEAD request has the HTTP status's text as its code.
func hasCode(err error, codes ...string) bool {
	answer, ok := errors.AsType[smithy.APIError](err)
	return ok && slices.Contains(codes, answer.ErrorCode())
}

// invalidRange is S3's answer to a range behind the end of an object.
func invalidRange(spec string, size int64) error {
	return &smithy.GenericAPIError{
		Code: "InvalidRange", Fault: smithy.FaultClient,
		Message: fmt.Sprintf("range %q of an object of %d bytes", spec, size),
	}
}

// PresignGetObject returns [ErrPresign].
func (c *Client) PresignGetObject(context.Context, *s3.GetObjectInput, ...func(*s3.PresignOptions)) (*v4.PresignedHTTPRequest, error) {
	return nil, ErrPresign
}

// PresignPutObject returns [ErrPresign].
func (c *Client) PresignPutObject(context.Context, *s3.PutObjectInput, ...func(*s3.PresignOptions)) (*v4.PresignedHTTPRequest, error) {
	return nil, ErrPresign
}

// PresignHeadObject returns [ErrPresign].
func (c *Client) PresignHeadObject(context.Context, *s3.HeadObjectInput, ...func(*s3.PresignOptions)) (*v4.PresignedHTTPRequest, error) {
	return nil, ErrPresign
}
