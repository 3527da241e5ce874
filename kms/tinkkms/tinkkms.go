// Package tinkkms uses any Tink AEAD as a key service: one in your process, or one
// of a remote service from a Tink integration such as tink-go-awskms, tink-go-gcpkms or
// tink-go-hcvault.
//
//	client, err := tinkkms.New(aead, "photos", nil)
//	cipher, err := sse.NewKMS(client, "photos", nil)
//
// A data key is 32 random bytes that the AEAD encrypts. The encryption context is the
// associated data, in the encoding of [kms.Context.AssociatedData]. Remote services
// bound its size: AWS KMS to about 4,000 bytes, Google Cloud KMS to 64 KiB.
//
// # Errors
//
// An AEAD says that it failed, but not why. Errors of package kms stay as they are.
// Network errors, and errors with Timeout or Temporary, are [kms.ErrUnavailable]. So is
// any other failure to encrypt, because no input can be wrong. Any other failure to
// decrypt is [kms.ErrCiphertext]. For an AEAD in your process that is exact. For a remote
// service it can take an outage for a damaged ciphertext, or a denial for an outage: set
// [Options.Classify] to a function that knows the errors of the service's SDK.
package tinkkms

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/internal/isnil"
	"github.com/blobseal/blobseal/kms"
)

// KMSClient returns AEADs for key URIs. Tink's registry.KMSClient is one.
type KMSClient interface {
	// Supported reports whether keyURI is of the client's service.
	Supported(keyURI string) bool
	// GetAEAD returns the AEAD of the key.
	GetAEAD(keyURI string) (tink.AEAD, error)
}

// Options are for [New] and [NewFromKMSClient]. For an AEAD in your process leave
// them nil.
type Options struct {
	// Classify returns the kind, an error of package kms, of an error that the AEAD or
	// GetAEAD returned for op. If it returns nil, the rules of this package apply.
	// Classify is not called after the end of ctx, nor for errors of package kms.
	Classify func(op kms.Operation, err error) error
}

// Client is a [kms.Client] for AEADs. It is safe for concurrent use if they are.
type Client struct {
	find func(keyID string) (tink.AEADWithContext, error)
	opts Options
}

var (
	_ kms.Client      = (*Client)(nil)
	_ kms.KeyComparer = (*Client)(nil)
)

// New returns a client for one key, aead, with the name keyID. Any other key id is
// [kms.ErrNotFound]. Envelopes store the name.
func New(aead tink.AEADWithContext, keyID string, opts *Options) (*Client, error) {
	if isnil.Any(aead) || keyID == "" {
		return nil, fmt.Errorf("tinkkms: %w: New needs an AEAD and a key id", kms.ErrInvalid)
	}
	return newClient(opts, func(id string) (tink.AEADWithContext, error) {
		if id != keyID {
			return nil, fmt.Errorf("%w: the client's key is %q", kms.ErrNotFound, keyID)
		}
		return aead, nil
	}), nil
}

// NewFromKMSClient returns a client for all keys of a Tink KMS client. A key id is a
// key URI. A URI that client does not support, or has no AEAD for, is
// [kms.ErrNotFound]. Each operation calls GetAEAD, which makes no request in Tink's
// integrations.
//
// Give client a URI prefix of your own keys, if the integration takes one, so that it
// never asks for a foreign key.
//
// If an AEAD implements [tink.AEADWithContext], it gets ctx. Other AEADs cannot be
// stopped: at the end of ctx the call returns, and a goroutine stays until the AEAD
// returns.
func NewFromKMSClient(client KMSClient, opts *Options) (*Client, error) {
	if isnil.Any(client) {
		return nil, fmt.Errorf("tinkkms: %w: NewFromKMSClient needs a KMS client", kms.ErrInvalid)
	}
	return newClient(opts, func(keyURI string) (tink.AEADWithContext, error) {
		if keyURI == "" || !client.Supported(keyURI) {
			return nil, fmt.Errorf("%w: the KMS client does not support its URI", kms.ErrNotFound)
		}
		aead, err := client.GetAEAD(keyURI)
		if err != nil {
			return nil, err
		}
		if isnil.Any(aead) {
			return nil, fmt.Errorf("%w: the KMS client has no AEAD for it", kms.ErrNotFound)
		}
		if a, ok := aead.(tink.AEADWithContext); ok {
			return a, nil
		}
		return abandonable{aead}, nil
	}), nil
}

func newClient(opts *Options, find func(string) (tink.AEADWithContext, error)) *Client {
	c := &Client{find: find}
	if opts != nil {
		c.opts = *opts
	}
	return c
}

// GenerateDataKey implements [kms.Client].
func (c *Client) GenerateDataKey(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	dk, err := c.generate(ctx, keyID, ec)
	return dk, kms.CallError(ctx, kms.OpGenerateDataKey, keyID, c.kindOf(ctx, kms.OpGenerateDataKey, err, kms.ErrUnavailable), err)
}

func (c *Client) generate(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	aead, err := c.findAEAD(ctx, kms.OpGenerateDataKey, keyID)
	if err != nil {
		return nil, err
	}
	plaintext := make([]byte, kms.DataKeySize)
	defer clear(plaintext)
	rand.Read(plaintext) // never fails: it ends the program instead
	ciphertext, err := aead.EncryptWithContext(ctx, plaintext, ec.AssociatedData())
	if err != nil {
		return nil, err
	}
	if len(ciphertext) == 0 {
		return nil, fmt.Errorf("%w: the AEAD returned no ciphertext", kms.ErrUnavailable)
	}
	return kms.NewDataKey(keyID, plaintext, ciphertext)
}

// Decrypt implements [kms.Client].
func (c *Client) Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	plaintext, err := c.decrypt(ctx, keyID, ciphertext, ec)
	return plaintext, kms.CallError(ctx, kms.OpDecrypt, keyID, c.kindOf(ctx, kms.OpDecrypt, err, kms.ErrCiphertext), err)
}

func (c *Client) decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	aead, err := c.findAEAD(ctx, kms.OpDecrypt, keyID)
	if err != nil {
		return nil, err
	}
	if len(ciphertext) == 0 {
		return nil, fmt.Errorf("%w: it is empty", kms.ErrCiphertext)
	}
	plaintext, err := aead.DecryptWithContext(ctx, ciphertext, ec.AssociatedData())
	if err != nil {
		clear(plaintext)
		return nil, err
	}
	return kms.CheckDataKey(plaintext)
}

// SameKey implements [kms.KeyComparer]. Each key has one name, the one that it was
// asked for by. If a key URI holds an alias of a remote service, that name is the
// alias, and the service refuses the ciphertexts of other keys.
func (c *Client) SameKey(name, id string) (same, known bool) {
	return name != "" && name == id, true
}

// findAEAD returns the AEAD of keyID.
func (c *Client) findAEAD(ctx context.Context, op kms.Operation, keyID string) (tink.AEADWithContext, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	aead, err := c.find(keyID)
	if err != nil {
		return nil, kms.CallError(ctx, op, keyID, c.kindOf(ctx, op, err, kms.ErrNotFound), err)
	}
	kms.ReportFrom(ctx).KeyID = keyID
	return aead, nil
}

// kindOf returns the kind of err, which is otherwise if nothing else is known. It
// returns nil if err has a kind, or ctx has ended.
func (c *Client) kindOf(ctx context.Context, op kms.Operation, err, otherwise error) error {
	if err == nil || hasKind(err) || ctx.Err() != nil {
		return nil
	}
	if c.opts.Classify != nil {
		if kind := c.opts.Classify(op, err); kind != nil {
			return kind
		}
	}
	if isTransient(err) {
		return kms.ErrUnavailable
	}
	return otherwise
}

// hasKind reports whether err has a kind of package kms.
func hasKind(err error) bool {
	for _, kind := range []error{
		kms.ErrNotFound, kms.ErrDisabled, kms.ErrPendingDeletion, kms.ErrDenied, kms.ErrCiphertext, kms.ErrInvalid, kms.ErrUnavailable,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// isTransient reports whether err is a network error, or says that it is temporary.
func isTransient(err error) bool {
	if _, ok := errors.AsType[net.Error](err); ok || errors.Is(err, context.Canceled) { // not by us
		return true
	}
	timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	if ok && timeout.Timeout() {
		return true // also context.DeadlineExceeded of a deadline that is not ours
	}
	temporary, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err)
	return ok && temporary.Temporary()
}

// abandonable stops waiting for an AEAD without ctx when the caller's ctx ends. The
// goroutine of an abandoned call ends when the AEAD returns.
type abandonable struct{ aead tink.AEAD }

func (a abandonable) EncryptWithContext(ctx context.Context, plaintext, associatedData []byte) ([]byte, error) {
	own := append([]byte(nil), plaintext...) // the caller clears its own meanwhile
	return abandon(ctx, func() ([]byte, error) {
		defer clear(own)
		return a.aead.Encrypt(own, associatedData)
	})
}

func (a abandonable) DecryptWithContext(ctx context.Context, ciphertext, associatedData []byte) ([]byte, error) {
	own := append([]byte(nil), ciphertext...) // and may change this one
	return abandon(ctx, func() ([]byte, error) { return a.aead.Decrypt(own, associatedData) })
}

// abandon returns what call returns, or ctx's error if ctx ends first.
func abandon(ctx context.Context, call func() ([]byte, error)) ([]byte, error) {
	type result struct {
		b   []byte
		err error
	}
	r, err := kms.CallWithContext(ctx, func() (r result) {
		r.b, r.err = call()
		return r
	}, func(r result) { clear(r.b) })
	if err != nil {
		return nil, err
	}
	return r.b, r.err
}
