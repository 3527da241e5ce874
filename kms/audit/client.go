package audit

import (
	"context"
	"errors"
	"fmt"

	"github.com/blobseal/blobseal/internal/isnil"
	"github.com/blobseal/blobseal/kms"
)

// ErrNotRecorded means that an operation's record could not be written, so its
// result was withheld. Errors wrap the sink's error beside it.
var ErrNotRecorded = errors.New("audit: use of the key could not be recorded")

// NotRecorded returns the [ErrNotRecorded] of an operation that ended with err, which is nil
// if it succeeded. failure is the sink's error.
func NotRecorded(failure, err error) error {
	if err != nil {
		return fmt.Errorf("%w: %w; the operation had failed: %w", ErrNotRecorded, failure, err)
	}
	return fmt.Errorf("%w: %w", ErrNotRecorded, failure)
}

// NewClient returns a client that writes a record to sink for each use of a key
// through c, before it returns the result. If the record cannot be written, the
// operation fails with [ErrNotRecorded] and its data key or plaintext is cleared.
//
// To record every use, put the audit client in front of the cache:
//
//	client := audit.NewClient(cache.New(service, nil), sink)
//
// Behind the cache, it would record only the calls that reach the key service
// and the uses of cached keys that were refused.
//
// The client is a [kms.Authorizer] if c has one. Authorize writes a record only
// when it refuses, because then no operation follows.
func NewClient(c kms.Client, sink Sink) kms.Client {
	if isnil.Any(c) {
		return invalidClient("client")
	}
	if isnil.Any(sink) {
		return invalidClient("sink")
	}
	a := &client{inner: c, sink: sink}
	if authorizer, ok := kms.Find[kms.Authorizer](c); ok {
		return &authorizingClient{client: a, authorizer: authorizer}
	}
	return a
}

// invalidClient refuses every call because an argument of NewClient was nil.
type invalidClient string

func (c invalidClient) GenerateDataKey(_ context.Context, keyID string, _ kms.Context) (*kms.DataKey, error) {
	return nil, c.refuse(kms.OpGenerateDataKey, keyID)
}

func (c invalidClient) Decrypt(_ context.Context, keyID string, _ []byte, _ kms.Context) ([]byte, error) {
	return nil, c.refuse(kms.OpDecrypt, keyID)
}

func (c invalidClient) refuse(op kms.Operation, keyID string) error {
	return &kms.KeyError{Op: op, KeyID: keyID, Err: fmt.Errorf("%w: the %s of audit.NewClient is nil", kms.ErrInvalid, string(c))}
}

type client struct {
	inner kms.Client
	sink  Sink
}

func (a *client) Unwrap() kms.Client { return a.inner }

func (a *client) GenerateDataKey(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	ctx, record := a.begin(ctx)
	key, err := a.inner.GenerateDataKey(ctx, keyID, ec)
	if key != nil {
		kms.ReportFrom(ctx).KeyID = key.KeyID
	}
	if err := record(kms.OpGenerateDataKey, keyID, ec, err); err != nil {
		if key != nil {
			key.Clear()
		}
		return nil, err
	}
	return key, nil
}

func (a *client) Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	ctx, record := a.begin(ctx)
	plaintext, err := a.inner.Decrypt(ctx, keyID, ciphertext, ec)
	if err := record(kms.OpDecrypt, keyID, ec, err); err != nil {
		clear(plaintext)
		return nil, err
	}
	return plaintext, nil
}

// begin returns a ctx with a report of its own, and a function that records the
// operation, copies the report to the caller's and returns the error to hand out.
func (a *client) begin(ctx context.Context) (context.Context, func(kms.Operation, string, kms.Context, error) error) {
	outer, report := kms.ReportFrom(ctx), new(kms.Report)
	ctx = kms.WithReport(ctx, report)
	return ctx, func(op kms.Operation, keyID string, ec kms.Context, err error) error {
		*outer = *report
		failure := a.sink.Write(context.WithoutCancel(ctx), NewRecord(ctx, op, keyID, ec, err))
		if failure != nil {
			return &kms.KeyError{Op: op, KeyID: keyID, Err: NotRecorded(failure, err)}
		}
		return err
	}
}

// authorizingClient is a client whose service is an Authorizer.
type authorizingClient struct {
	*client
	authorizer kms.Authorizer
}

func (a *authorizingClient) Authorize(ctx context.Context, op kms.Operation, keyID string, ec kms.Context) error {
	ctx, record := a.begin(ctx)
	if err := a.authorizer.Authorize(ctx, op, keyID, ec); err != nil {
		return record(op, keyID, ec, err)
	}
	return nil
}
