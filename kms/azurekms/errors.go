package azurekms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"github.com/blobseal/blobseal/internal/deadline"
	"github.com/blobseal/blobseal/kms"
)

// failure is what Azure said to an operation, of a kind of package kms. Its text is
// one line; that of the SDK has a dozen.
type failure struct {
	kind   error
	id     keyID
	reason reason
	err    *azcore.ResponseError
}

func (f *failure) Error() string {
	return fmt.Sprintf("azurekms: %v: %s: status %d: %s: %.200q", f.kind, f.id, f.err.StatusCode, f.reason.code(), f.reason.Error.Message)
}

func (f *failure) Unwrap() []error { return []error{f.kind, f.err} }

// reason is the body of Azure's errors.
type reason struct {
	Error struct {
		Code       string
		Message    string
		InnerError struct{ Code string }
	}
}

func (r reason) code() string {
	if inner := r.Error.InnerError.Code; inner != "" {
		return r.Error.Code + "/" + inner
	}
	return r.Error.Code
}

// disabled reports whether the key is out of use, disabled or outside of its time.
// The words in messages are of more than one, as names of keys and vaults in them
// are not.
func (r reason) disabled() bool {
	for _, code := range []string{"Disabled", "Expired", "NotYetValid"} {
		if strings.Contains(r.Error.InnerError.Code, code) {
			return true
		}
	}
	for _, words := range []string{"disabled key", "expired key", "not yet valid", "validity period"} {
		if strings.Contains(r.Error.Message, words) {
			return true
		}
	}
	return false
}

// classify gives err, which the SDK returned for op with the key id in ctx, its kind.
func classify(ctx context.Context, op kms.Operation, id keyID, err error) error {
	if ended := deadline.Ended(ctx); ended != nil {
		return fmt.Errorf("azurekms: %s: %w", id, ended)
	}
	if response, ok := errors.AsType[*azcore.ResponseError](err); ok {
		f := &failure{id: id, err: response}
		if response.RawResponse != nil {
			if body, err := runtime.Payload(response.RawResponse); err == nil { // which the SDK has read before
				json.Unmarshal(body, &f.reason) // what is not JSON says nothing
			}
		}
		f.kind = kindOf(op, response, f.reason)
		return f
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) { // by the SDK's own timeout
		return fmt.Errorf("azurekms: %w: %s: %v", kms.ErrUnavailable, id, err)
	}
	return fmt.Errorf("azurekms: %w: %s: %w", kms.ErrUnavailable, id, err)
}

// kindOf returns the kind of an answer that is no success. Azure says much under
// one status: then the code inside, or the message, decides.
func kindOf(op kms.Operation, response *azcore.ResponseError, r reason) error {
	switch {
	case response.StatusCode == http.StatusUnauthorized:
		return kms.ErrDenied
	case r.Error.Code == "": // not Azure's: a proxy's
		return kms.ErrUnavailable
	}
	switch response.StatusCode {
	case http.StatusBadRequest:
		if op == kms.OpDecrypt { // the request is well formed, so that only the wrapped key is left
			return kms.ErrCiphertext
		}
		return kms.ErrInvalid
	case http.StatusForbidden:
		if r.disabled() {
			return kms.ErrDisabled
		}
		return kms.ErrDenied
	case http.StatusNotFound:
		return kms.ErrNotFound
	case http.StatusConflict:
		if strings.Contains(r.code(), "Deleted") { // ObjectIsDeletedButRecoverable, ObjectIsBeingDeleted
			return kms.ErrPendingDeletion
		}
		return kms.ErrUnavailable
	case http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
		return kms.ErrInvalid
	default:
		return kms.ErrUnavailable
	}
}
