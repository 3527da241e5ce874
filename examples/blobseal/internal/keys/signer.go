package keys

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"path/filepath"

	"golang.org/x/mod/sumdb/note"

	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms/audit"
)

// SignerFile is the file, in the directory of a key service, that has the key which
// signs the audit trail. It is sealed under the service's root, and in base64. While the
// root is changed there are two lines: one for each root.
const SignerFile = "audit.key"

// sealLabel is the associated data of the sealed signer key.
const sealLabel = "blobseal audit signer v1"

// signer signs an audit trail.
type signer struct {
	*audit.Signer
	key func() string // behind a closure, so that it does not print
}

func newSigner(signerKey string) (*signer, error) {
	s, err := audit.NewSigner(signerKey)
	if err != nil {
		return nil, err
	}
	return &signer{s, func() string { return signerKey }}, nil
}

// openSigner returns the signer that signer.seal sealed under the same root.
func openSigner(ctx context.Context, sealed []byte, root keyring.Root) (*signer, error) {
	key, err := root.DecryptWithContext(ctx, sealed, []byte(sealLabel))
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return newSigner(string(key))
}

// seal encrypts the signer's key under root.
func (s *signer) seal(ctx context.Context, root keyring.Root) ([]byte, error) {
	return root.EncryptWithContext(ctx, []byte(s.key()), []byte(sealLabel))
}

// signerFile is the file of a service's signer key.
type signerFile struct {
	path     string
	store    keyring.Store
	announce func(verifierKey string) // tells the user about a new key
}

func newSignerFile(dir string) (*signerFile, error) {
	path := filepath.Join(dir, SignerFile)
	store, err := keyring.NewFileStore(path)
	return &signerFile{path: path, store: store}, err
}

// open opens the signer key, or makes one if there is none and announces its verifier
// key. Whoever removes the key, to have a trail without checkpoints, gets one
// whose checkpoints do not match the user's verifier key.
func (f *signerFile) open(ctx context.Context, root keyring.Root) (*signer, error) {
	for {
		text, _, err := f.store.Load(ctx)
		if err == nil {
			return f.unseal(ctx, text, root)
		}
		if !errors.Is(err, keyring.ErrNotExist) {
			return nil, message.About(f.path, err)
		}
		signer, err := f.create(ctx, root)
		if !errors.Is(err, keyring.ErrConflict) { // else another command made one
			return signer, err
		}
	}
}

func (f *signerFile) unseal(ctx context.Context, text []byte, root keyring.Root) (*signer, error) {
	err := errors.New("empty file")
	for line := range bytes.Lines(text) {
		sealed, decodeErr := base64.StdEncoding.AppendDecode(nil, bytes.TrimSpace(line))
		if err = decodeErr; err != nil {
			break
		}
		signer, openErr := openSigner(ctx, sealed, root)
		if err = openErr; err == nil {
			return signer, nil
		}
	}
	if errors.Is(err, context.Canceled) {
		return nil, message.About(f.path, err)
	}
	return nil, message.Problemf(err, f.path,
		"the key that signs the audit trail does not open: %s (restore the file, or remove it to get a new key)", message.Plain(err))
}

func (f *signerFile) create(ctx context.Context, root keyring.Root) (*signer, error) {
	signerKey, verifierKey, err := note.GenerateKey(rand.Reader, "blobseal-kms")
	if err != nil {
		return nil, err
	}
	signer, err := newSigner(signerKey)
	if err != nil {
		return nil, err
	}
	line, err := sealedLine(ctx, signer, root)
	if err != nil {
		return nil, message.About(f.path, err)
	}
	if _, err := f.store.Swap(ctx, "", line); err != nil {
		return nil, message.About(f.path, err)
	}
	f.announce(verifierKey)
	return signer, nil
}

// changeRoot seals the key under both roots while change changes that of the service,
// and under the one that counts afterwards.
func (f *signerFile) changeRoot(ctx context.Context, signer *signer, root, next keyring.Root, change func() error) error {
	old, err := sealedLine(ctx, signer, root)
	if err != nil {
		return message.About(f.path, err)
	}
	line, err := sealedLine(ctx, signer, next)
	if err != nil {
		return message.About(f.path, err)
	}
	if err := f.replace(ctx, append(bytes.Clone(old), line...)); err != nil {
		return err
	}
	if err := change(); err != nil {
		return err // the root may have changed all the same: both lines stay
	}
	return f.replace(ctx, line)
}

func (f *signerFile) replace(ctx context.Context, text []byte) error {
	_, version, err := f.store.Load(ctx)
	if err == nil {
		_, err = f.store.Swap(ctx, version, text)
	}
	return message.About(f.path, err)
}

func sealedLine(ctx context.Context, signer *signer, root keyring.Root) ([]byte, error) {
	sealed, err := signer.seal(ctx, root)
	if err != nil {
		return nil, err
	}
	return append(base64.StdEncoding.AppendEncode(nil, sealed), '\n'), nil
}
