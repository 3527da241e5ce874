package localkms

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"

	"github.com/blobseal/blobseal/kms"
)

// use returns a key that the principal in ctx may use for op now.
func (c *Client) use(ctx context.Context, op kms.Operation, name string, ec kms.Context, create bool) (*key, error) {
	if err := checkContext(ec); err != nil {
		return nil, err
	}
	k, err := c.lookup(ctx, name)
	if err != nil && create {
		k, err = c.createDefault(ctx, op, name, ec, err)
	}
	if err != nil {
		return nil, err
	}
	kms.ReportFrom(ctx).KeyID = k.arn
	if err := c.authorize(ctx, op, k, ec); err != nil {
		return nil, err
	}
	if err := k.serves(); err != nil {
		return nil, err
	}
	return k, nil
}

// seal encrypts under the key's current version.
func (k *key) seal(ctx context.Context, plaintext []byte, ec kms.Context) ([]byte, error) {
	v := k.current()
	kms.ReportFrom(ctx).KeyVersion = v.name()
	return sealBlob(k.id, v, plaintext, ec)
}

// GenerateDataKey implements [kms.Client]: a random data key, encrypted under the
// key's newest version. The result names the key by its ARN.
//
// [DefaultAlias] makes the default key if there is none yet. A nil context is
// an empty one.
func (c *Client) GenerateDataKey(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	kms.ReportFrom(ctx).RequestID = newKeyID().String()
	k, err := c.use(ctx, kms.OpGenerateDataKey, keyID, ec, true)
	if err != nil {
		return nil, keyError(kms.OpGenerateDataKey, keyID, err)
	}
	var plaintext [kms.DataKeySize]byte
	defer clear(plaintext[:])
	rand.Read(plaintext[:]) // never fails: it ends the program instead
	ciphertext, err := k.seal(ctx, plaintext[:], ec)
	if err != nil {
		return nil, err
	}
	return kms.NewDataKey(k.arn, plaintext[:], ciphertext)
}

// GenerateDataKeyWithoutPlaintext is GenerateDataKey for who only stores the key:
// the result has no plaintext.
func (c *Client) GenerateDataKeyWithoutPlaintext(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	o := c.start(ctx, OpGenerateDataKeyWithoutPlaintext, keyID, ec)
	dk, err := func() (*kms.DataKey, error) {
		k, err := c.use(o.ctx, o.op, keyID, ec, true)
		if err != nil {
			return nil, err
		}
		var plaintext [kms.DataKeySize]byte
		defer clear(plaintext[:])
		rand.Read(plaintext[:])
		ciphertext, err := k.seal(o.ctx, plaintext[:], ec)
		if err != nil {
			return nil, err
		}
		return &kms.DataKey{KeyID: k.arn, Ciphertext: ciphertext}, nil
	}()
	if err := o.finish(err); err != nil {
		return nil, err
	}
	return dk, nil
}

// Encrypt encrypts 1 to [MaxPlaintext] bytes under the key's newest version.
// [DefaultAlias] makes the default key if there is none yet. A nil context is
// an empty one.
func (c *Client) Encrypt(ctx context.Context, keyID string, plaintext []byte, ec kms.Context) ([]byte, error) {
	o := c.start(ctx, OpEncrypt, keyID, ec)
	ciphertext, err := func() ([]byte, error) {
		if len(plaintext) == 0 || len(plaintext) > MaxPlaintext {
			return nil, invalid("plaintext is %d bytes, want 1 to %d", len(plaintext), MaxPlaintext)
		}
		k, err := c.use(o.ctx, o.op, keyID, ec, true)
		if err != nil {
			return nil, err
		}
		return k.seal(o.ctx, plaintext, ec)
	}()
	if err := o.finish(err); err != nil {
		return nil, err
	}
	return ciphertext, nil
}

// Decrypt implements [kms.Client]. It opens what Encrypt, ReEncrypt and the
// methods that generate data keys returned, under any version of the key.
//
// keyID is the key that the caller expects: a ciphertext of another one is
// kms.ErrCiphertext. Who expects none asks [KeyID] which one it is.
func (c *Client) Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	kms.ReportFrom(ctx).RequestID = newKeyID().String()
	plaintext, err := c.decrypt(ctx, kms.OpDecrypt, keyID, ciphertext, ec)
	return plaintext, keyError(kms.OpDecrypt, keyID, err)
}

func (c *Client) decrypt(ctx context.Context, op kms.Operation, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	if err := ended(ctx); err != nil {
		return nil, err
	}
	b, err := parseBlob(ciphertext)
	if err != nil {
		return nil, err
	}
	k, err := c.useKey(ctx, op, keyID, b.key, ec)
	if err == nil && b.version > k.current().number { // another process may have rotated the key
		id := k.arn + "#" + strconv.FormatUint(uint64(b.version), 10)
		_, err = c.service.loadFor(ctx, id, func(snap *snapshot) bool {
			k := snap.keys[b.key]
			return k == nil || b.version <= k.current().number
		})
		if err == nil {
			k, err = c.useKey(ctx, op, keyID, b.key, ec)
		}
	}
	if err != nil {
		return nil, err
	}
	if b.version > k.current().number {
		return nil, fmt.Errorf("%w: %s has no version %d", kms.ErrCiphertext, k.arn, b.version)
	}
	plaintext, err := openBlob(b, k.versions[b.version-1].key, ec)
	for _, rival := range k.rivals { // of the same number, made while the store had failed over
		if err != nil && rival.number == b.version {
			plaintext, err = openBlob(b, rival.key, ec)
		}
	}
	kms.ReportFrom(ctx).KeyVersion = k.versions[b.version-1].name()
	return plaintext, err
}

// useKey is use of an existing key. The name must name the key with that id.
func (c *Client) useKey(ctx context.Context, op kms.Operation, name string, id keyID, ec kms.Context) (*key, error) {
	k, err := c.use(ctx, op, name, ec, false)
	if err == nil && k.id != id {
		err = fmt.Errorf("%w: it is not under %s", kms.ErrCiphertext, k.arn)
	}
	return k, err
}

// KeyID returns the id of the key that a ciphertext is under, as the ciphertext
// says: nothing of it is authenticated, and anyone can write one that names a key.
func KeyID(ciphertext []byte) (string, error) {
	b, err := parseBlob(ciphertext)
	if err != nil {
		return "", err
	}
	return b.key.String(), nil
}

// ReEncryptInput is what [Client.ReEncrypt] takes.
type ReEncryptInput struct {
	Ciphertext    []byte
	SourceKeyID   string      // the key that it is under, as in Decrypt
	SourceContext kms.Context // of the ciphertext
	KeyID         string      // the key to encrypt under; it may be the same one
	Context       kms.Context // of the result
}

// ReEncrypted is what [Client.ReEncrypt] returns.
type ReEncrypted struct {
	Ciphertext  []byte
	KeyID       string // ARN of the key that it is under
	SourceKeyID string // ARN of the key that it was under
}

// ReEncrypt decrypts a ciphertext and encrypts the plaintext, which never leaves
// the service, under another key, another context or the newest version. The
// principal needs [OpReEncryptFrom] of the source and [OpReEncryptTo] of the
// destination.
//
// It leaves two records of one request id: one of each operation, with its own
// key and context. If the first is not permitted or fails, there is no second.
func (c *Client) ReEncrypt(ctx context.Context, in *ReEncryptInput) (*ReEncrypted, error) {
	if in == nil {
		return nil, invalid("no input")
	}
	from := c.start(ctx, OpReEncryptFrom, in.SourceKeyID, in.SourceContext)
	plaintext, err := c.decrypt(from.ctx, from.op, in.SourceKeyID, in.Ciphertext, in.SourceContext)
	defer clear(plaintext)
	if err := from.finish(err); err != nil {
		return nil, err
	}
	to := c.start(ctx, OpReEncryptTo, in.KeyID, in.Context)
	to.report.RequestID = from.report.RequestID
	ciphertext, err := func() ([]byte, error) {
		k, err := c.use(to.ctx, to.op, in.KeyID, in.Context, true)
		if err != nil {
			return nil, err
		}
		return k.seal(to.ctx, plaintext, in.Context)
	}()
	if err := to.finish(err); err != nil {
		return nil, err
	}
	return &ReEncrypted{Ciphertext: ciphertext, KeyID: to.report.KeyID, SourceKeyID: from.report.KeyID}, nil
}

// Authorize implements [kms.Authorizer]: whether the principal in ctx may use
// the key for op now. It needs the operations that use a key, or DescribeKey,
// and answers from memory as they do. It makes no default key.
func (c *Client) Authorize(ctx context.Context, op kms.Operation, keyID string, ec kms.Context) error {
	if !hasContext(op) && op != OpDescribeKey {
		return invalid("operation %q is no use of a key", shorten(string(op)))
	}
	_, err := c.use(ctx, op, keyID, ec, false)
	return keyError(op, keyID, err)
}
