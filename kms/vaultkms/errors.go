package vaultkms

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	vault "github.com/hashicorp/vault/api"

	"github.com/blobseal/blobseal/kms"
)

// failure is an error of Vault's client for a request. Its text is one line; that
// of the client has several, and may hold a whole page of a proxy.
type failure struct {
	request string
	err     error
}

func describe(request string, err error) error { return &failure{request, err} }

func (f *failure) Error() string {
	answer, ok := errors.AsType[*vault.ResponseError](f.err)
	if !ok {
		return fmt.Sprintf("%s: %v", f.request, f.err)
	}
	return fmt.Sprintf("%s: status %d: %.200q", f.request, answer.StatusCode, strings.Join(answer.Errors, "; "))
}

func (f *failure) Unwrap() error { return f.err }

// callError returns err as a [*kms.KeyError] with its kind.
func callError(ctx context.Context, op kms.Operation, keyID string, err error) error {
	var kind error
	if f, ok := errors.AsType[*failure](err); ok {
		kind = f.kind(op)
	}
	return kms.CallError(ctx, op, keyID, kind, err)
}

// kinds are the kinds of Vault's answers. The first row that matches decides: the
// answer has the status, or any if status is 0, and one of its errors contains the
// text. The texts are those of Transit in Vault 1.14 to 1.21 and OpenBao 2.
var kinds = []struct {
	status int
	text   string
	kind   error
}{
	{0, "encryption key not found", kms.ErrNotFound},
	{0, "soft-deleted", kms.ErrPendingDeletion},
	{0, "disallowed by policy", kms.ErrDisabled}, // the version is below min_decryption_version
	{0, "missing client token", kms.ErrDenied},   // a 400, of old versions
	{http.StatusBadRequest, "", kms.ErrInvalid},  // of Decrypt, see kind
	{http.StatusUnauthorized, "", kms.ErrDenied},
	{http.StatusForbidden, "", kms.ErrDenied},
	{http.StatusNotFound, "", kms.ErrNotFound},
	{http.StatusMethodNotAllowed, "", kms.ErrInvalid}, // another engine is mounted at this path
	{http.StatusRequestEntityTooLarge, "", kms.ErrInvalid},
	{http.StatusUnsupportedMediaType, "", kms.ErrInvalid},
	// All others are outages: 412 of a replica that lags, 429 of a quota, 503 of a seal.
}

// kind returns the kind of f.
func (f *failure) kind(op kms.Operation) error {
	answer, ok := errors.AsType[*vault.ResponseError](f.err)
	if !ok || answer.RawError { // no answer, or not Vault's but a proxy's
		return kms.ErrUnavailable
	}
	for _, row := range kinds {
		contains := func(text string) bool { return strings.Contains(text, row.text) }
		if row.status != 0 && row.status != answer.StatusCode || row.text != "" && !slices.ContainsFunc(answer.Errors, contains) {
			continue
		}
		if row.status == http.StatusBadRequest && op == kms.OpDecrypt && strings.HasPrefix(f.request, "write ") {
			return kms.ErrCiphertext // the request is well formed and the key exists
		}
		return row.kind
	}
	return kms.ErrUnavailable
}
