package s3wire

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/sse"
)

// Code is an error code of S3.
type Code string

// The codes of errors about encryption.
const (
	CodeAccessDenied       Code = "AccessDenied"
	CodeEntityTooLarge     Code = "EntityTooLarge"
	CodeInternalError      Code = "InternalError"
	CodeInvalidArgument    Code = "InvalidArgument"
	CodeInvalidPart        Code = "InvalidPart"
	CodeInvalidRequest     Code = "InvalidRequest"
	CodeKMSDisabled        Code = "KMS.DisabledException"
	CodeKMSInvalidState    Code = "KMS.KMSInvalidStateException"
	CodeKMSNotFound        Code = "KMS.NotFoundException"
	CodeMalformedXML       Code = "MalformedXML"
	CodeNoConfiguration    Code = "ServerSideEncryptionConfigurationNotFoundError"
	CodeNotImplemented     Code = "NotImplemented"
	CodeOperationAborted   Code = "OperationAborted"
	CodeRequestTimeout     Code = "RequestTimeout"
	CodeServiceUnavailable Code = "ServiceUnavailable"
)

// Messages of S3 that several functions answer with.
const (
	messageBucketKey      = "A bucket key needs the encryption method aws:kms."
	messageUnknownMethod  = "The encryption method specified is not supported."
	messageIncompatible   = "Server Side Encryption with Customer provided key is incompatible with the encryption method specified."
	messageNeedsKey       = "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to retrieve the object."
	messageNotApplicable  = "The encryption parameters are not applicable to this object."
	messagePartEncryption = "The multipart upload initiate requested encryption. Subsequent part requests must include the appropriate encryption parameters."
)

// codes has the HTTP status of each code, and the message of errors that have none.
var codes = map[Code]struct {
	status  int
	message string
}{
	CodeAccessDenied:       {403, "Access Denied"},
	CodeEntityTooLarge:     {400, "Your proposed upload exceeds the maximum allowed object size."},
	CodeInternalError:      {500, "We encountered an internal error. Please try again."},
	CodeInvalidArgument:    {400, "Invalid Argument"},
	CodeInvalidPart:        {400, "One or more of the specified parts could not be found."},
	CodeInvalidRequest:     {400, "Invalid Request"},
	CodeKMSDisabled:        {400, "The KMS key is disabled."},
	CodeKMSInvalidState:    {400, "The KMS key is in a state in which it cannot be used, such as pending deletion."},
	CodeKMSNotFound:        {400, "The KMS key does not exist."},
	CodeMalformedXML:       {400, "The XML you provided was not well-formed or did not validate against our published schema."},
	CodeNoConfiguration:    {404, "The server side encryption configuration was not found."},
	CodeNotImplemented:     {501, "A header you provided implies functionality that is not implemented."},
	CodeOperationAborted:   {409, "A conflicting conditional operation is currently in progress against this resource. Try again."},
	CodeRequestTimeout:     {400, "Your socket connection to the server was not read from or written to within the timeout period."},
	CodeServiceUnavailable: {503, "Service is unable to handle request."},
}

// Status returns the HTTP status of a code: 500 for a code that is not one of this
// package's.
func (c Code) Status() int {
	if known, ok := codes[c]; ok {
		return known.status
	}
	return codes[CodeInternalError].status
}

// Error is the answer to a request that failed. Code, Message and Status are for the
// client, and hold no secret. Error is for the log: it also has the cause.
type Error struct {
	Code    Code
	Message string // empty for the usual one of the code
	Err     error  // the cause, or nil
}

// Coded is what errors of other packages implement to have a code of S3, such as
// those of package blob. The message is the usual one of the code.
type Coded interface {
	error
	S3Code() string
}

// table has the codes of the errors of the packages below. The first match counts.
//
// Errors in which the service itself is at fault are InternalError: damage, objects
// of other releases, and wrong wiring. So is everything that is not here.
var table = []struct {
	err     error
	code    Code
	message string // empty for the usual one
}{
	{kms.ErrDenied, CodeAccessDenied, ""},
	{kms.ErrNotFound, CodeKMSNotFound, ""},
	{kms.ErrDisabled, CodeKMSDisabled, ""},
	{kms.ErrPendingDeletion, CodeKMSInvalidState, ""},
	{kms.ErrUnavailable, CodeServiceUnavailable, ""},
	{kms.ErrInvalid, CodeInvalidArgument, ""},
	{audit.ErrNotRecorded, CodeServiceUnavailable, ""},

	{keyring.ErrStore, CodeServiceUnavailable, ""},
	{keyring.ErrRootUnavailable, CodeServiceUnavailable, ""},
	{keyring.ErrConflict, CodeServiceUnavailable, ""},
	{keyring.ErrTooOld, CodeServiceUnavailable, ""},
	{keyring.ErrDisabled, CodeAccessDenied, ""},
	{keyring.ErrDestroyed, CodeAccessDenied, ""},
	{keyring.ErrUnknownKey, CodeInternalError, ""},

	{sse.ErrMode, CodeInvalidRequest, messageNotApplicable},
	{sse.ErrReceipt, CodeInvalidPart, ""},
	{sse.ErrKey, CodeAccessDenied, ""},
	{sse.ErrTooLarge, CodeEntityTooLarge, ""},
	{sse.ErrInvalid, CodeInvalidArgument, ""},
	{sse.ErrCorrupt, CodeInternalError, ""},

	{context.DeadlineExceeded, CodeServiceUnavailable, ""},
	{context.Canceled, CodeRequestTimeout, ""},
}

// FromError returns the answer to a request that failed with err: the [*Error] that
// err is or wraps, the code of a [Coded], or the code that this package knows for
// the errors of packages sse, kms and keyring. Anything else is InternalError, with
// err as the cause. FromError returns nil for nil.
func FromError(err error) *Error {
	if err == nil {
		return nil
	}
	if known, ok := errors.AsType[*Error](err); ok {
		return known
	}
	if coded, ok := errors.AsType[Coded](err); ok {
		if code := Code(coded.S3Code()); codes[code].status != 0 {
			return &Error{Code: code, Err: err}
		}
	}
	for _, known := range table {
		if errors.Is(err, known.err) {
			return &Error{Code: known.code, Message: known.message, Err: err}
		}
	}
	return &Error{Code: CodeInternalError, Err: err}
}

// Status returns the HTTP status.
func (e *Error) Status() int { return e.Code.Status() }

// ClientMessage returns what the client may read: Message, or the code's usual one.
func (e *Error) ClientMessage() string {
	if e.Message != "" {
		return e.Message
	}
	return codes[e.Code].message
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
// requestID what the log knows the request by. HEAD has no body.
func (e *Error) XML(resource, requestID string) []byte {
	body := struct {
		XMLName   xml.Name `xml:"Error"`
		Code      Code
		Message   string
		Resource  string
		RequestID string `xml:"RequestId"`
	}{Code: e.Code, Message: e.ClientMessage(), Resource: resource, RequestID: requestID}
	var b bytes.Buffer
	b.WriteString(xml.Header)
	if err := xml.NewEncoder(&b).Encode(body); err != nil {
		panic(err) // strings have an encoding
	}
	return b.Bytes()
}
