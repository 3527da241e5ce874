package signedurl

import (
	"context"
	"encoding/xml"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"syscall"

	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/sse"
)

// ErrForbidden: no signed URL allows the request. Use [errors.As] with
// [RefusedError] to learn why.
var ErrForbidden = errors.New("signedurl: request refused")

// Codes of a [RefusedError].
const (
	CodeSignature   = "SignatureDoesNotMatch" // not made by this signer, or changed since
	CodeExpired     = "RequestExpired"        // authentic, but too old
	CodeMethod      = "MethodMismatch"        // authentic, but for another method
	CodeContentType = "ContentTypeMismatch"   // authentic, but for another Content-Type
)

// RefusedError says why no signed URL allows a request. It matches [ErrForbidden],
// and contains no signature.
type RefusedError struct {
	Code   string
	reason string
	key    string // of an authentic URL
}

func (e *RefusedError) Error() string { return ErrForbidden.Error() + ": " + e.reason }
func (e *RefusedError) Unwrap() error { return ErrForbidden }

// ErrorCodeHeader is the header of an error response that has the same code as its
// body. The response to a HEAD has no body.
const ErrorCodeHeader = "X-Blobseal-Error-Code"

// httpError is an error with a status and a code of its own.
type httpError struct {
	status int
	code   string
	err    error
}

func (e *httpError) Error() string { return e.err.Error() }
func (e *httpError) Unwrap() error { return e.err }

// brokenError is an error that came after part of the response was sent.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return "response broken off: " + e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

// goneError is the failure of a connection to send or to receive.
type goneError struct{ err error }

func (e *goneError) Error() string { return "connection to the client: " + e.err.Error() }
func (e *goneError) Unwrap() error { return e.err }

// statuses maps errors to HTTP statuses and S3's error codes. The first that
// matches counts.
var statuses = []struct {
	target error
	status int
	code   string
}{
	{blob.ErrPolicy, http.StatusForbidden, "AccessDenied"},
	// Failures that a retry may cure.
	{kms.ErrUnavailable, http.StatusServiceUnavailable, "ServiceUnavailable"},
	{audit.ErrNotRecorded, http.StatusServiceUnavailable, "ServiceUnavailable"},
	{keyring.ErrStore, http.StatusServiceUnavailable, "ServiceUnavailable"},
	{keyring.ErrRootUnavailable, http.StatusServiceUnavailable, "ServiceUnavailable"},
	{blob.ErrChanged, http.StatusServiceUnavailable, "SlowDown"},
	// Keys that may not be used.
	{kms.ErrDenied, http.StatusForbidden, "AccessDenied"},
	{kms.ErrNotFound, http.StatusBadRequest, "KMS.NotFoundException"},
	{kms.ErrDisabled, http.StatusBadRequest, "KMS.DisabledException"},
	{kms.ErrPendingDeletion, http.StatusBadRequest, "KMS.KMSInvalidStateException"},
	{kms.ErrInvalid, http.StatusBadRequest, "InvalidArgument"},
	{keyring.ErrDisabled, http.StatusForbidden, "AccessDenied"},
	{keyring.ErrDestroyed, http.StatusForbidden, "AccessDenied"},
	{keyring.ErrUnknownKey, http.StatusInternalServerError, "InternalError"},
	// Objects that do not open. No request brings a key, so a wrong one is our fault.
	{sse.ErrMode, http.StatusBadRequest, "InvalidRequest"},
	{sse.ErrKey, http.StatusInternalServerError, "InternalError"},
	{sse.ErrCorrupt, http.StatusInternalServerError, "InternalError"},
	{sse.ErrFormat, http.StatusInternalServerError, "InternalError"},
	{sse.ErrVersion, http.StatusInternalServerError, "InternalError"},
	{sse.ErrTooLarge, http.StatusRequestEntityTooLarge, "EntityTooLarge"},
	{sse.ErrInvalid, http.StatusBadRequest, "InvalidArgument"},
}

// statusOf returns the HTTP status and the code for an error of a request.
func statusOf(method string, err error) (int, string) {
	if e, ok := errors.AsType[*RefusedError](err); ok {
		return http.StatusForbidden, e.Code
	}
	if e, ok := errors.AsType[*httpError](err); ok {
		return e.status, e.code
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return http.StatusRequestEntityTooLarge, "EntityTooLarge"
	}
	for _, row := range statuses {
		if errors.Is(err, row.target) {
			return row.status, row.code
		}
	}
	if cannotHold(err) {
		if method == http.MethodPut {
			return http.StatusBadRequest, "InvalidObjectName"
		}
		return http.StatusNotFound, "NoSuchKey"
	}
	switch gcerrors.Code(err) {
	case gcerrors.NotFound:
		return http.StatusNotFound, "NoSuchKey"
	case gcerrors.InvalidArgument:
		return http.StatusBadRequest, "InvalidArgument"
	case gcerrors.FailedPrecondition, gcerrors.AlreadyExists:
		return http.StatusPreconditionFailed, "PreconditionFailed"
	case gcerrors.PermissionDenied:
		return http.StatusForbidden, "AccessDenied"
	case gcerrors.Unimplemented:
		return http.StatusNotImplemented, "NotImplemented"
	case gcerrors.ResourceExhausted, gcerrors.Canceled, gcerrors.DeadlineExceeded:
		return http.StatusServiceUnavailable, "SlowDown"
	}
	return http.StatusInternalServerError, "InternalError"
}

// cannotHold reports whether a store of files cannot hold an object with such a
// key: its name is too long, it needs a directory where a file is, or the reverse.
func cannotHold(err error) bool {
	if _, ok := errors.AsType[*os.LinkError](err); ok && errors.Is(err, syscall.EEXIST) {
		return true // a rename over a directory
	}
	return errors.Is(err, syscall.ENAMETOOLONG) || errors.Is(err, syscall.ENOTDIR) ||
		errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ENOTEMPTY)
}

// fail ends a request that failed. It responds with an error, or breaks off the
// response if one has begun.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, key string, err error) {
	status, code := statusOf(r.Method, err)
	level, message := slog.LevelDebug, "request of a signed URL failed"
	refused, isRefused := errors.AsType[*RefusedError](err)
	_, isGone := errors.AsType[*goneError](err)
	switch {
	case isRefused:
		level, message, key = slog.LevelInfo, "request refused", refused.key
	case isGone || r.Context().Err() != nil:
	case status >= 500 && status != http.StatusNotImplemented:
		level = slog.LevelError
	}
	h.opts.Logger.LogAttrs(context.WithoutCancel(r.Context()), level, message,
		slog.String("method", r.Method), slog.String("key", key), slog.Int("status", status), slog.String("code", code), slog.String("error", err.Error()))
	if _, broken := errors.AsType[*brokenError](err); broken {
		breakOff(w)
	}
	dropBody(w, r)
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Type", "application/xml")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set(ErrorCodeHeader, code)
	w.WriteHeader(status)
	body, _ := xml.Marshal(errorBody{Code: code, Message: http.StatusText(status)}) // strings marshal
	_, _ = w.Write(append([]byte(xml.Header), body...))
}

// errorBody is the body of an error response, as on S3.
type errorBody struct {
	XMLName xml.Name `xml:"Error"`
	Code    string
	Message string
}
