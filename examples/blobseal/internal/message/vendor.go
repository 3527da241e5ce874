package message

import (
	"errors"
	"fmt"
	"net"

	"github.com/aws/smithy-go"
	"google.golang.org/grpc/status"

	"github.com/blobseal/blobseal/kms"
)

// Refusal is an error of the key service of a root, in words that name the service.
// Unlike a [Problem] it is not all that there is to say: which ring is open.
type Refusal struct {
	Words Words
	Err   error
}

func (r *Refusal) Error() string { return r.Words.String() }

func (r *Refusal) Unwrap() error { return r.Err }

// Service is an error of a vendor's service in words, without its subject.
func Service(err error) string {
	why := Vendor(err)
	switch {
	case errors.Is(err, kms.ErrNotFound):
		return "no such key: " + why
	case errors.Is(err, kms.ErrDisabled):
		return "the key is disabled: " + why
	case errors.Is(err, kms.ErrPendingDeletion):
		return "the key is pending deletion, or not available: " + why
	case errors.Is(err, kms.ErrDenied):
		return "the service refuses: " + why
	case errors.Is(err, kms.ErrUnavailable):
		return "the service is unavailable: " + why
	}
	return why
}

// Vendor is what a vendor's client says, without the request around it.
func Vendor(err error) string {
	var api smithy.APIError
	var operation *smithy.OperationError
	var answer interface{ GRPCStatus() *status.Status }
	var dial *net.OpError
	switch {
	case errors.As(err, &dial):
		return dial.Error()
	case errors.As(err, &answer):
		return fmt.Sprintf("%v: %s", answer.GRPCStatus().Code(), answer.GRPCStatus().Message())
	case errors.As(err, &api) && api.ErrorMessage() == "":
		return api.ErrorCode()
	case errors.As(err, &api):
		return api.ErrorCode() + ": " + api.ErrorMessage()
	case errors.As(err, &operation):
		return operation.Err.Error()
	}
	if refused, ok := errors.AsType[*Refusal](err); ok {
		return refused.Error()
	}
	if text := responseWords(err); text != "" {
		return text
	}
	if failed, ok := errors.AsType[*kms.KeyError](err); ok {
		err = failed.Err
	}
	return packagePrefix.ReplaceAllString(err.Error(), "")
}
