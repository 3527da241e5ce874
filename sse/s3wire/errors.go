package s3wire

import (
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/sse"
)

// S3's codes of errors about encryption.
const (
	codeAccessDenied       = "AccessDenied"
	codeEntityTooLarge     = "EntityTooLarge"
	codeInternalError      = "InternalError"
	codeInvalidArgument    = "InvalidArgument"
	codeInvalidPart        = "InvalidPart"
	codeInvalidRequest     = "InvalidRequest"
	codeKMSDisabled        = "KMS.DisabledException"
	codeKMSInvalidState    = "KMS.KMSInvalidStateException"
	codeKMSNotFound        = "KMS.NotFoundException"
	codeMalformedXML       = "MalformedXML"
	codeNoConfiguration    = "ServerSideEncryptionConfigurationNotFoundError"
	codeNotImplemented     = "NotImplemented"
	codeOperationAborted   = "OperationAborted"
	codeRequestTimeout     = "RequestTimeout"
	codeServiceUnavailable = "ServiceUnavailable"
)

// S3's messages that several functions use.
const (
	messageBucketKey      = "A bucket key needs the encryption method aws:kms."
	messageUnknownMethod  = "The encryption method specified is not supported."
	messageIncompatible   = "Server Side Encryption with Customer provided key is incompatible with the encryption method specified."
	messageNeedsKey       = "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to retrieve the object."
	messageNotApplicable  = "The encryption parameters are not applicable to this object."
	messagePartEncryption = "The multipart upload initiate requested encryption. Subsequent part requests must include the appropriate encryption parameters."
)

// codes has the HTTP status of each code, and the message of errors that have none.
var codes = map[string]struct {
	status  int
	message string
}{
	codeAccessDenied:       {403, "Access Denied"},
	codeEntityTooLarge:     {400, "Your proposed upload exceeds the maximum allowed object size."},
	codeInternalError:      {500, "We encountered an internal error. Please try again."},
	codeInvalidArgument:    {400, "Invalid Argument"},
	codeInvalidPart:        {400, "One or more of the specified parts could not be found."},
	codeInvalidRequest:     {400, "Invalid Request"},
	codeKMSDisabled:        {400, "The KMS key is disabled."},
	codeKMSInvalidState:    {400, "The KMS key is in a state in which it cannot be used, such as pending deletion."},
	codeKMSNotFound:        {400, "The KMS key does not exist."},
	codeMalformedXML:       {400, "The XML you provided was not well-formed or did not validate against our published schema."},
	codeNoConfiguration:    {404, "The server side encryption configuration was not found."},
	codeNotImplemented:     {501, "A header you provided implies functionality that is not implemented."},
	codeOperationAborted:   {409, "A conflicting conditional operation is currently in progress against this resource. Try again."},
	codeRequestTimeout:     {400, "Your socket connection to the server was not read from or written to within the timeout period."},
	codeServiceUnavailable: {503, "Service is unable to handle request."},
}

// Error is the answer to a request that failed. Code, Message and Status are for the
// client, and hold no secret. Error is for the log: it also has the cause.
type Error struct {
	Code    string // S3's, such as "AccessDenied"
	Message string // empty for the usual one of the code
	Err     error  // the cause, or nil
}

// coded is an error with a code of its own: see FromError.
type coded interface {
	error
	S3Code() string
}

// table has the codes of the errors of the packages below. The first match counts.
//
// Errors in which the service itself is at fault are InternalError: damage, objects
// of other releases, and wrong wiring. So is everything that is not here.
var table = []struct {
	err     error
	code    string
	message string // empty for the usual one
}{
	{kms.ErrDenied, codeAccessDenied, ""},
	{kms.ErrNotFound, codeKMSNotFound, ""},
	{kms.ErrDisabled, codeKMSDisabled, ""},
	{kms.ErrPendingDeletion, codeKMSInvalidState, ""},
	{kms.ErrUnavailable, codeServiceUnavailable, ""},
	{kms.ErrInvalid, codeInvalidArgument, ""},
	{audit.ErrNotRecorded, codeServiceUnavailable, ""},

	{keyring.ErrStore, codeServiceUnavailable, ""},
	{keyring.ErrRootUnavailable, codeServiceUnavailable, ""},
	{keyring.ErrConflict, codeServiceUnavailable, ""},
	{keyring.ErrTooOld, codeServiceUnavailable, ""},
	{keyring.ErrDisabled, codeAccessDenied, ""},
	{keyring.ErrDestroyed, codeAccessDenied, ""},
	{keyring.ErrUnknownKey, codeInternalError, ""},

	{sse.ErrMode, codeInvalidRequest, messageNotApplicable},
	{sse.ErrReceipt, codeInvalidPart, ""},
	{sse.ErrKey, codeAccessDenied, ""},
	{sse.ErrTooLarge, codeEntityTooLarge, ""},
	{sse.ErrInvalid, codeInvalidArgument, ""},
	{sse.ErrCorrupt, codeInternalError, ""},

	{context.DeadlineExceeded, codeServiceUnavailable, ""},
	{context.Canceled, codeRequestTimeout, ""},
}

// FromError returns the answer to a request that failed with err: the [*Error] that
// err is or wraps, the code of an error with the method S3Code() string, as those of
// package blob have, or the code that this package knows for the errors of packages
// sse, kms and keyring. Anything else is InternalError, with err as the cause.
// FromError returns nil for nil.
func FromError(err error) *Error {
	if err == nil {
		return nil
	}
	if known, ok := errors.AsType[*Error](err); ok {
		return known
	}
	if own, ok := errors.AsType[coded](err); ok {
		if code := own.S3Code(); codes[code].status != 0 {
			return &Error{Code: code, Err: err}
		}
	}
	for _, known := range table {
		if errors.Is(err, known.err) {
			return &Error{Code: known.code, Message: known.message, Err: err}
		}
	}
	return &Error{Code: codeInternalError, Err: err}
}

// Status returns the HTTP status: 500 for a code that is not one of this package's.
func (e *Error) Status() int {
	return cmp.Or(codes[e.Code].status, codes[codeInternalError].status)
}

// ClientMessage returns what the client may read: Message, or the code's usual one.
func (e *Error) ClientMessage() string {
	return cmp.Or(e.Message, codes[e.Code].message)
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("s3wire: %s: %v", e.Code, e.Err)
	}
	return fmt.Sprintf("s3wire: %s: %s", e.Code, e.ClientMessage())
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// XML returns the body of the response. resource is the path of the request, and
// requestID identifies the request in the log. A response to HEAD has no body.
func (e *Error) XML(resource, requestID string) []byte {
	return encode(struct {
		XMLName   xml.Name `xml:"Error"`
		Code      string
		Message   string
		Resource  string
		RequestID string `xml:"RequestId"`
	}{Code: e.Code, Message: e.ClientMessage(), Resource: resource, RequestID: requestID})
}
