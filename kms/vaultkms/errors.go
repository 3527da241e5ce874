package vaultkms

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	vault "github.com/hashicorp/vault/api"

	"github.com/blobseal/blobseal/internal/deadline"
	"github.com/blobseal/blobseal/kms"
)

// failure is what Vault said to a request, of a kind of package kms. Its text is
// one line; Vault's own has several, and may hold a whole page of a proxy's.
type failure struct {
	kind    error
	request string
	err     *vault.ResponseError
}

func (f *failure) Error() string {
	return fmt.Sprintf("vaultkms: %v: %s: status %d: %.200q", f.kind, f.request, f.err.StatusCode, strings.Join(f.err.Errors, "; "))
}

func (f *failure) Unwrap() []error { return []error{f.kind, f.err} }

// classify gives err, which the client returned for a request in ctx, its kind;
// refused is that of a 400 that has no kind of its own.
func classify(ctx context.Context, request string, err, refused error) error {
	if ended := deadline.Ended(ctx); ended != nil {
		return fmt.Errorf("vaultkms: %s: %w", request, ended)
	}
	if answer, ok := errors.AsType[*vault.ResponseError](err); ok {
		return &failure{kindOf(answer, refused), request, answer}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) { // by the client's own timeout
		return fmt.Errorf("vaultkms: %w: %s: %v", kms.ErrUnavailable, request, err)
	}
	return fmt.Errorf("vaultkms: %w: %s: %w", kms.ErrUnavailable, request, err)
}

// kindOf returns the kind of an answer that is no success. Where a status has more
// than one meaning, the text decides; texts are those of Transit in Vault 1.14 to
// 1.21 and OpenBao 2.
func kindOf(answer *vault.ResponseError, refused error) error {
	says := func(text string) bool {
		for _, e := range answer.Errors {
			if strings.Contains(e, text) {
				return true
			}
		}
		return false
	}
	switch {
	case answer.RawError: // not JSON, and so not Vault's: a proxy's
		return kms.ErrUnavailable
	case says("encryption key not found"):
		return kms.ErrNotFound
	case says("soft-deleted"):
		return kms.ErrPendingDeletion
	case says("disallowed by policy"): // the version is below min_decryption_version
		return kms.ErrDisabled
	case says("missing client token"): // a 400, of old versions
		return kms.ErrDenied
	}
	switch answer.StatusCode {
	case http.StatusBadRequest:
		return refused
	case http.StatusUnauthorized, http.StatusForbidden:
		return kms.ErrDenied
	case http.StatusNotFound:
		return kms.ErrNotFound
	case http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
		return kms.ErrInvalid // such as by another engine at this path
	default: // 412 of a replica that lags, 429 of a quota, 503 of a seal
		return kms.ErrUnavailable
	}
}
