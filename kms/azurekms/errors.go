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

	"github.com/blobseal/blobseal/kms"
)

// failure is an error answer of Azure. Its text is one line; the SDK's has a dozen.
type failure struct {
	id     keyID
	reason reason
	err    *azcore.ResponseError
}

func (f *failure) Error() string {
	return fmt.Sprintf("%s: status %d: %s: %.200q", f.id, f.err.StatusCode, f.reason.code(), f.reason.Error.Message)
}

func (f *failure) Unwrap() error { return f.err }

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

// disabled reports whether the key is disabled, expired or not yet valid. The texts
// have several words, so no name of a key or vault in a message can match one.
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

// describe returns err, which the SDK returned for the key id, in one line.
func describe(id keyID, err error) error {
	response, ok := errors.AsType[*azcore.ResponseError](err)
	if !ok {
		return fmt.Errorf("%w: %s: %w", errNoAnswer, id, err)
	}
	f := &failure{id: id, err: response}
	if response.RawResponse != nil {
		if body, err := runtime.Payload(response.RawResponse); err == nil { // the SDK has read it already
			json.Unmarshal(body, &f.reason) // a body that is not JSON has no reason
		}
	}
	return f
}

// errNoAnswer marks errors of the SDK that are no answer of Azure.
var errNoAnswer = errors.New("no answer")

// callError returns err as a [*kms.KeyError] with its kind.
func callError(ctx context.Context, op kms.Operation, keyID string, err error) error {
	var kind error
	if f, ok := errors.AsType[*failure](err); ok {
		kind = f.kind(op)
	} else if errors.Is(err, errNoAnswer) {
		kind = kms.ErrUnavailable
	}
	return kms.CallError(ctx, op, keyID, kind, err)
}

// kinds are the kinds of Azure's status codes. Three codes need a look at the reason:
// 400, 403 and 409. All codes that are not listed mean an outage or a limit.
var kinds = map[int]error{
	http.StatusBadRequest:            kms.ErrInvalid,
	http.StatusUnauthorized:          kms.ErrDenied,
	http.StatusForbidden:             kms.ErrDenied,
	http.StatusNotFound:              kms.ErrNotFound,
	http.StatusMethodNotAllowed:      kms.ErrInvalid,
	http.StatusRequestEntityTooLarge: kms.ErrInvalid,
	http.StatusUnsupportedMediaType:  kms.ErrInvalid,
}

// kind returns the kind of f.
func (f *failure) kind(op kms.Operation) error {
	status := f.err.StatusCode
	switch {
	case status != http.StatusUnauthorized && f.reason.Error.Code == "": // not from Azure, but from a proxy
		return kms.ErrUnavailable
	case status == http.StatusBadRequest && op == kms.OpDecrypt: // the request is well formed, so the wrapped key is wrong
		return kms.ErrCiphertext
	case status == http.StatusForbidden && f.reason.disabled():
		return kms.ErrDisabled
	case status == http.StatusConflict && strings.Contains(f.reason.code(), "Deleted"): // ObjectIsDeletedButRecoverable, ObjectIsBeingDeleted
		return kms.ErrPendingDeletion
	}
	if kind, known := kinds[status]; known {
		return kind
	}
	return kms.ErrUnavailable
}
