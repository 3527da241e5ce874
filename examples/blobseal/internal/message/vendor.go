package message

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/aws/smithy-go"
	vault "github.com/hashicorp/vault/api"
	"google.golang.org/grpc/status"

	"github.com/blobseal/blobseal/kms"
)

// Refusal is an error of the key service of a root, in words that name the service.
// Unlike a [Problem] it is not all that there is to say: which ring is open.
type Refusal struct {
	Text string
	Err  error
}

func (r *Refusal) Error() string { return r.Text }

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
		return "the key waits to be deleted, or is not at hand: " + why
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
		return refused.Text
	}
	if azure, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return azureWords(azure)
	}
	if vault, ok := errors.AsType[*vault.ResponseError](err); ok {
		return fmt.Sprintf("%d: %s", vault.StatusCode, strings.Join(vault.Errors, "; "))
	}
	if failed, ok := errors.AsType[*kms.KeyError](err); ok {
		err = failed.Err
	}
	return packagePrefix.ReplaceAllString(err.Error(), "")
}

// azureWords returns the status, the code and the message of an answer of Azure. The
// error's own text is the whole answer, on many lines.
func azureWords(err *azcore.ResponseError) string {
	text := fmt.Sprintf("%d %s", err.StatusCode, err.ErrorCode)
	if err.RawResponse == nil {
		return text
	}
	var answer struct {
		Error struct{ Message string } `json:"error"`
	}
	body, readErr := runtime.Payload(err.RawResponse)
	if readErr == nil && json.Unmarshal(body, &answer) == nil && answer.Error.Message != "" {
		text += ": " + answer.Error.Message
	}
	return text
}
