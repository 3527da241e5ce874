package sseotel

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/sse"
)

// Attributes of metrics and spans. METRICS.md describes them.
const (
	modeKey      = attribute.Key("blobseal.mode")
	operationKey = attribute.Key("blobseal.operation")
	outcomeKey   = attribute.Key("blobseal.outcome")
	errorKey     = attribute.Key("error.type")
	directionKey = attribute.Key("blobseal.direction")
	cachedKey    = attribute.Key("blobseal.cached")
	resultKey    = attribute.Key("blobseal.cache.result")
	cacheKey     = attribute.Key("blobseal.cache")
	ringKey      = attribute.Key("blobseal.ring")
	stateKey     = attribute.Key("blobseal.state")
	serviceKey   = attribute.Key("blobseal.service")
	jobKey       = attribute.Key("blobseal.job")

	keyIDKey     = attribute.Key("blobseal.key.id")           // spans only
	requestedKey = attribute.Key("blobseal.key.requested_id") // spans only
	bucketKey    = attribute.Key("blobseal.bucket")           // spans only, on request
	objectKey    = attribute.Key("blobseal.object")           // spans only, on request
)

// The outcomes of an operation.
const (
	success  = "success"
	refused  = "refused"  // the key, the caller or the request is wrong: retrying does not help
	failed   = "failed"   // something is down or broken
	canceled = "canceled" // the caller gave up
)

// keyCodes are the errors that have a code, the most specific first: an error often wraps its
// reason.
var keyCodes = []struct {
	err     error
	code    string
	outcome string
}{
	{audit.ErrNotRecorded, "NotRecorded", failed},
	{keyring.ErrTooOld, "TooOld", failed},
	{keyring.ErrRollback, "Rollback", failed},
	{keyring.ErrOtherRing, "OtherRing", failed},
	{keyring.ErrRootUnavailable, "RootUnavailable", failed},
	{kms.ErrUnavailable, "Unavailable", failed},
	{keyring.ErrRoot, "WrongRoot", failed},
	{keyring.ErrStore, "StoreUnavailable", failed},
	{context.Canceled, "Canceled", canceled},
	{context.DeadlineExceeded, "Canceled", canceled},
	{keyring.ErrDisabled, "Disabled", refused},
	{keyring.ErrDestroyed, "Destroyed", refused},
	{keyring.ErrUnknownKey, "NotFound", refused},
}

// bodyCodes are the errors of sse, which wrap those of package kms.
var bodyCodes = []struct {
	err  error
	code string
}{
	{sse.ErrKey, "WrongKey"},
	{sse.ErrMode, "WrongMode"},
	{sse.ErrVersion, "UnknownVersion"},
	{sse.ErrFormat, "NotEncrypted"},
	{sse.ErrTruncated, "Truncated"},
	{sse.ErrCorrupt, "Corrupt"},
	{sse.ErrTooLarge, "TooLarge"},
	{sse.ErrInvalid, "Invalid"},
}

// classify returns the outcome and the code of err. The codes of key services are
// those of [audit.ErrorCode].
func classify(err error) (outcome, code string) {
	if err == nil {
		return success, ""
	}
	for _, c := range keyCodes {
		if errors.Is(err, c.err) {
			return c.outcome, c.code
		}
	}
	if code := audit.ErrorCode(err); code != "Internal" {
		return refused, code
	}
	for _, c := range bodyCodes {
		if errors.Is(err, c.err) {
			return refused, c.code
		}
	}
	return failed, "Internal"
}

// appendResult appends outcome and code.
func appendResult(kv []attribute.KeyValue, err error) []attribute.KeyValue {
	outcome, code := classify(err)
	kv = append(kv, outcomeKey.String(outcome))
	if code != "" {
		kv = append(kv, errorKey.String(code))
	}
	return kv
}
