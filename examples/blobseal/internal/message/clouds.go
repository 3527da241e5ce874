//go:build !noclouds

package message

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	vault "github.com/hashicorp/vault/api"
)

// responseWords returns the words for an answer of Azure or Vault, or "".
func responseWords(err error) string {
	if azure, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return azureWords(azure)
	}
	if vault, ok := errors.AsType[*vault.ResponseError](err); ok {
		return fmt.Sprintf("%d: %s", vault.StatusCode, strings.Join(vault.Errors, "; "))
	}
	return ""
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
