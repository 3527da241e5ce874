package keyring

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"golang.org/x/crypto/cryptobyte"

	"github.com/blobseal/blobseal/internal/document"
	"github.com/blobseal/blobseal/internal/isnil"
	"github.com/blobseal/blobseal/internal/secret"
	"github.com/blobseal/blobseal/kms"
)

// kmsPurpose and its value are in the encryption context of every data key of a
// root that [NewKMSRoot] made.
const (
	kmsPurpose     = "blobseal:purpose"
	kmsPurposeRoot = "keyring root"
)

// KMSRootOptions are the options of [NewKMSRoot].
type KMSRootOptions struct {
	// Context is added to the encryption context, which is {"blobseal:purpose":
	// "keyring root"}, so that a key policy can tell the roots of several services
	// apart. A root with another Context does not open the document. NewKMSRoot
	// refuses a pair named "blobseal:purpose".
	Context kms.Context

	// Principal asks the key service. It is the service that has the ring, no
	// matter which of its callers made the ring ask.
	Principal kms.Principal
}

// The ciphertext of a KMS root begins with a header, big-endian:
//
//	kind     uint8             2
//	key id   opaque<1..2048>   the key that the service says it used, with its length as uint16
//	wrapped  opaque<1..6144>   the service's ciphertext of the data key, likewise
//
// The rest is one Cobblestone-256 message under the data key. Its context is
// kmsRootLabel, the header and the associated data.
const (
	kmsRootLabel   = "github.com/blobseal/blobseal/v1 KMS root\x00"
	kmsRootKind    = 2 // a passphrase root's begins with 1
	maxKMSKeyID    = 2048
	maxKMSWrapped  = 6144
	kmsRootAuditAs = "keyring" // resource of its uses in the audit trail
)

// kmsRoot is a root in a key service.
type kmsRoot struct {
	client    kms.Client
	keyID     string
	ec        kms.Context
	principal kms.Principal
}

// NewKMSRoot returns a root that is the key keyID of a key service. Each document is
// sealed under a new data key: one request to the service seals it, and one opens it. Each
// request is made as opts.Principal, with the encryption context that opts describe, for
// the resource "keyring". Most services leave opts nil.
//
// The root asks the service only for keyID, never for the key that a document names:
// anyone who can write to the store could name a key of their own. Use an id rather than an
// alias; an alias must not move away from the key that sealed the document. To change the
// key or the service, call [Ring.ChangeRoot] before you move the alias or disable the old
// key.
//
// A document of another key, context or kind of root is [ErrRoot]; a message edited after
// its head is [ErrDamaged]. If the service does not answer, or its key is disabled, denied
// or deleted, the error is [ErrRootUnavailable]. All of these also wrap the service's error.
// A missing client or key id and a reserved context are [ErrInvalid].
//
// The root is safe for concurrent use and keeps no data key.
func NewKMSRoot(client kms.Client, keyID string, opts *KMSRootOptions) (Root, error) {
	if isnil.Any(client) {
		return nil, invalid("client of the key service is nil")
	}
	if keyID == "" || len(keyID) > maxKMSKeyID {
		return nil, invalid("root key id of %d bytes, want 1 to %d", len(keyID), maxKMSKeyID)
	}
	var o KMSRootOptions
	if opts != nil {
		o = *opts
	}
	if _, taken := o.Context[kmsPurpose]; taken {
		return nil, invalid("root context: %q is reserved (remove it)", kmsPurpose)
	}
	ec := kms.Context{kmsPurpose: kmsPurposeRoot}
	maps.Copy(ec, o.Context)
	return &kmsRoot{client: client, keyID: keyID, ec: ec, principal: o.Principal}, nil
}

// withRequest returns the ctx of a request to the service. The request is the ring's own,
// no matter whose request made the ring ask.
func (r *kmsRoot) withRequest(ctx context.Context) context.Context {
	ctx = kms.WithPrincipal(ctx, r.principal)
	ctx = kms.WithResource(ctx, kmsRootAuditAs)
	return kms.WithReport(ctx, new(kms.Report))
}

// EncryptWithContext implements [Root].
func (r *kmsRoot) EncryptWithContext(ctx context.Context, plaintext, associatedData []byte) ([]byte, error) {
	dk, err := r.client.GenerateDataKey(r.withRequest(ctx), r.keyID, maps.Clone(r.ec))
	if err != nil {
		return nil, r.unavailable(ctx, err)
	}
	if dk == nil {
		return nil, r.unavailable(ctx, fmt.Errorf("%w: no data key", kms.ErrUnavailable))
	}
	defer dk.Clear()
	key, err := secret.New(dk.Plaintext())
	if err != nil || len(dk.KeyID) == 0 || len(dk.KeyID) > maxKMSKeyID ||
		len(dk.Ciphertext) == 0 || len(dk.Ciphertext) > maxKMSWrapped {
		return nil, r.unavailable(ctx, fmt.Errorf("%w: no usable data key", kms.ErrUnavailable))
	}
	return sealRootMessage(key, kmsRootLabel, marshalKMSHeader(dk.KeyID, dk.Ciphertext), associatedData, plaintext)
}

// DecryptWithContext implements [Root].
func (r *kmsRoot) DecryptWithContext(ctx context.Context, ciphertext, associatedData []byte) ([]byte, error) {
	keyID, wrapped, message, err := parseKMSHeader(ciphertext)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRoot, err)
	}
	plaintext, err := r.client.Decrypt(r.withRequest(ctx), r.keyID, wrapped, maps.Clone(r.ec))
	defer clear(plaintext)
	switch {
	case err == nil:
	case errors.Is(err, kms.ErrCiphertext), errors.Is(err, kms.ErrInvalid):
		return nil, fmt.Errorf("%w: it is sealed under key %.256q, the root is key %q: %w", ErrRoot, keyID, r.keyID, err)
	default:
		return nil, r.unavailable(ctx, err)
	}
	key, err := secret.New(plaintext)
	if err != nil {
		return nil, r.unavailable(ctx, fmt.Errorf("%w: data %v", kms.ErrUnavailable, err))
	}
	header := ciphertext[:len(ciphertext)-len(message)]
	return openRootMessage(key, kmsRootLabel, header, associatedData, message)
}

// unavailable returns the error of a root that could not be asked.
func (r *kmsRoot) unavailable(ctx context.Context, err error) error {
	return fmt.Errorf("%w: key %q: %w", ErrRootUnavailable, r.keyID, document.WithContext(ctx, err))
}

// marshalKMSHeader returns the header for a key id and a data key that are within bounds.
func marshalKMSHeader(keyID string, wrapped []byte) []byte {
	var b cryptobyte.Builder
	b.AddUint8(kmsRootKind)
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(keyID)) })
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(wrapped) })
	return b.BytesOrPanic()
}

// parseKMSHeader splits a ciphertext. Its results are within bounds.
func parseKMSHeader(ciphertext []byte) (keyID string, wrapped, message []byte, err error) {
	s := cryptobyte.String(ciphertext)
	var kind uint8
	var id, w cryptobyte.String
	if !s.ReadUint8(&kind) {
		return "", nil, nil, errors.New("ciphertext is empty")
	}
	if kind != kmsRootKind {
		return "", nil, nil, fmt.Errorf("ciphertext of another kind of root (kind %d)", kind)
	}
	if !s.ReadUint16LengthPrefixed(&id) || !s.ReadUint16LengthPrefixed(&w) ||
		len(id) == 0 || len(id) > maxKMSKeyID || len(w) == 0 || len(w) > maxKMSWrapped {
		return "", nil, nil, errors.New("KMS header is cut short, or out of bounds")
	}
	return string(id), w, s, nil
}
