package localkms

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"time"

	"github.com/blobseal/blobseal/internal/document"
	"github.com/blobseal/blobseal/internal/uuid"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
)

// use returns the key that name names, if the principal in ctx may use it for op
// now. With create, it makes the default key.
func (c *Client) use(ctx context.Context, op kms.Operation, name string, ec kms.Context, create bool) (*key, error) {
	if err := checkContext(ec); err != nil {
		return nil, err
	}
	k, err := c.lookupPermitted(ctx, op, name, ec, create)
	if err == nil {
		err = k.checkUsable()
	}
	return k, err
}

// checkStored refuses to encrypt under a version that the store has been known to lack
// for longer than a grace. What it encrypts would be lost with this process.
func (s *Service) checkStored(ctx context.Context, k *key) error {
	d := s.doc.Diverged()
	if d == nil || time.Since(d.Since) < s.lostGrace() {
		return nil
	}
	if d.State != nil {
		if stored := d.State.keys[k.id]; stored != nil && stored.hasVersion(*k.current()) {
			return nil
		}
	}
	return unavailable(ctx, fmt.Errorf("%w: it lacks version %s of %s since %s: %w", keyring.ErrRollback,
		k.current().name(), k.arn, d.Since.UTC().Format(time.RFC3339), d.Err))
}

// lostGrace is shorter than MaxStaleness, after which there are no uses at all.
func (s *Service) lostGrace() time.Duration { return min(document.LostGrace, s.opts.MaxStaleness/2) }

// GenerateDataKey implements [kms.Client]. It returns a random data key, encrypted
// under the key's newest version, and the key's ARN. The first use of
// [DefaultAlias] makes the default key.
func (c *Client) GenerateDataKey(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	kms.ReportFrom(ctx).RequestID = uuid.New().String()
	dk, err := c.newDataKey(ctx, kms.OpGenerateDataKey, keyID, ec)
	return dk, keyError(kms.OpGenerateDataKey, keyID, err)
}

func (c *Client) newDataKey(ctx context.Context, op kms.Operation, keyID string, ec kms.Context) (*kms.DataKey, error) {
	var plaintext [kms.DataKeySize]byte
	defer clear(plaintext[:])
	rand.Read(plaintext[:]) // never fails: it ends the program instead
	k, ciphertext, err := c.encrypt(ctx, op, keyID, plaintext[:], ec)
	if err != nil {
		return nil, err
	}
	return kms.NewDataKey(k.arn, plaintext[:], ciphertext)
}

// encrypt encrypts under the key that name names, if the principal in ctx may use it
// for op now.
func (c *Client) encrypt(ctx context.Context, op kms.Operation, name string, plaintext []byte, ec kms.Context) (*key, []byte, error) {
	k, err := c.use(ctx, op, name, ec, true)
	if err != nil {
		return nil, nil, err
	}
	if err := c.service.checkStored(ctx, k); err != nil {
		return nil, nil, err
	}
	v := k.current()
	kms.ReportFrom(ctx).KeyVersion = v.name()
	ciphertext, err := sealBlob(k.id, v, plaintext, ec)
	return k, ciphertext, err
}

// GenerateDataKeyWithoutPlaintext is GenerateDataKey for callers that only store
// the data key: the result has no plaintext.
func (c *Client) GenerateDataKeyWithoutPlaintext(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	o := c.service.begin(ctx, OpGenerateDataKeyWithoutPlaintext, keyID, ec)
	dk, err := c.newDataKey(o.ctx, o.op, keyID, ec)
	if err := o.finish(err); err != nil {
		return nil, err
	}
	dk.Clear()
	return &kms.DataKey{KeyID: dk.KeyID, Ciphertext: dk.Ciphertext}, nil
}

// Encrypt encrypts 1 to 4096 bytes under the key's newest version. The
// first use of [DefaultAlias] makes the default key.
func (c *Client) Encrypt(ctx context.Context, keyID string, plaintext []byte, ec kms.Context) ([]byte, error) {
	o := c.service.begin(ctx, OpEncrypt, keyID, ec)
	var ciphertext []byte
	var err error
	if len(plaintext) == 0 || len(plaintext) > maxPlaintext {
		err = invalid("plaintext is %d bytes, want 1 to %d", len(plaintext), maxPlaintext)
	} else {
		_, ciphertext, err = c.encrypt(o.ctx, o.op, keyID, plaintext, ec)
	}
	if err := o.finish(err); err != nil {
		return nil, err
	}
	return ciphertext, nil
}

// Decrypt implements [kms.Client]. It opens what Encrypt, ReEncrypt and the
// methods that generate data keys returned, under any version of the key. A
// ciphertext of another key than keyID is [kms.ErrCiphertext].
func (c *Client) Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	kms.ReportFrom(ctx).RequestID = uuid.New().String()
	plaintext, err := c.decrypt(ctx, kms.OpDecrypt, keyID, ciphertext, ec)
	return plaintext, keyError(kms.OpDecrypt, keyID, err)
}

func (c *Client) decrypt(ctx context.Context, op kms.Operation, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	if err := contextError(ctx); err != nil {
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

// useKey is use for a ciphertext: the name must name the key with that id.
func (c *Client) useKey(ctx context.Context, op kms.Operation, name string, id keyID, ec kms.Context) (*key, error) {
	k, err := c.use(ctx, op, name, ec, false)
	if err == nil && k.id != id {
		err = fmt.Errorf("%w: it is not under %s", kms.ErrCiphertext, k.arn)
	}
	return k, err
}

// ReEncryptInput is what [Client.ReEncrypt] takes.
type ReEncryptInput struct {
	Ciphertext    []byte
	SourceKeyID   string      // as keyID in Decrypt
	SourceContext kms.Context // the ciphertext was encrypted with it
	KeyID         string      // encrypt under this key
	Context       kms.Context // encrypt with this context
}

// ReEncrypted is what [Client.ReEncrypt] returns.
type ReEncrypted struct {
	Ciphertext  []byte
	KeyID       string // ARN of the new key
	SourceKeyID string // ARN of the old key
}

// ReEncrypt decrypts a ciphertext and encrypts its plaintext again: under another
// key, another context or the newest version. The plaintext does not leave the
// service. The principal needs [OpReEncryptFrom] for the source and
// [OpReEncryptTo] for the destination; each leaves a record, with one request id.
func (c *Client) ReEncrypt(ctx context.Context, in *ReEncryptInput) (*ReEncrypted, error) {
	if in == nil {
		return nil, keyError(OpReEncryptFrom, "", invalid("no input"))
	}
	from := c.service.begin(ctx, OpReEncryptFrom, in.SourceKeyID, in.SourceContext)
	plaintext, err := c.decrypt(from.ctx, from.op, in.SourceKeyID, in.Ciphertext, in.SourceContext)
	defer clear(plaintext)
	if err := from.finish(err); err != nil {
		return nil, err
	}
	to := c.service.begin(ctx, OpReEncryptTo, in.KeyID, in.Context)
	to.report.RequestID = from.report.RequestID
	_, ciphertext, err := c.encrypt(to.ctx, to.op, in.KeyID, plaintext, in.Context)
	if err := to.finish(err); err != nil {
		return nil, err
	}
	return &ReEncrypted{Ciphertext: ciphertext, KeyID: to.report.KeyID, SourceKeyID: from.report.KeyID}, nil
}

// Authorize implements [kms.Authorizer]: it reports whether the principal in ctx
// may use the key for op now. op is a use of a key, or DescribeKey. Authorize
// answers from memory, as uses do, and makes no default key.
func (c *Client) Authorize(ctx context.Context, op kms.Operation, keyID string, ec kms.Context) error {
	if !takesContext(op) && op != OpDescribeKey {
		return keyError(op, keyID, invalid("operation %q is no use of a key", shorten(string(op))))
	}
	_, err := c.use(ctx, op, keyID, ec, false)
	return keyError(op, keyID, err)
}
