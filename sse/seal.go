package sse

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"golang.org/x/crypto/cryptobyte"

	"github.com/blobseal/blobseal/internal/chunked"
	"github.com/blobseal/blobseal/internal/secret"
	"github.com/blobseal/blobseal/kms"
)

// bodyLabel is the context of a body. Labels separate the uses of a key.
const bodyLabel = "github.com/blobseal/blobseal/v1 body"

// kind says which key an envelope seals.
type kind uint8

const (
	kindObject    kind = iota // the data key of an object of version 1
	kindComposite             // the data key of a composite object
	kindKeeper                // the manifest key of an upload: see Multipart.State
)

// kinds has the version of each kind's envelope, and the label of its sealed key.
var kinds = [...]struct {
	version uint8
	label   string
}{
	kindObject:    {version, "github.com/blobseal/blobseal/v1 sealed data key"},
	kindComposite: {version2, labelV2 + "sealed data key"},
	kindKeeper:    {version2, labelV2 + "sealed manifest key"},
}

// sealer and opener seal and open data keys with a key-encryption key. Open fails
// with [chunked.ErrKey] or [chunked.ErrCorrupt].
type (
	sealer interface {
		Seal(dek, context []byte) ([]byte, error)
	}
	opener interface {
		Open(sealed, context []byte) ([]byte, error)
	}
)

// wrapper is a mode that encrypts. The modes differ only in how they obtain the key
// that seals an object's data key.
type wrapper interface {
	wrap(ctx context.Context, obj Object) (wrapping, error)
}

// wrapping is a mode's key for one object.
type wrapping struct {
	mode    Mode
	keyID   string
	wrapped []byte
	kek     sealer

	bucketKey bool         // see KMSOptions
	dataKey   *kms.DataKey // the key service's, to clear; nil in the other modes
}

// clear erases the data key of a key service, if there is one.
func (w wrapping) clear() {
	if w.dataKey != nil {
		w.dataKey.Clear()
	}
}

// encrypt draws a data key, starts the body and seals the key for obj. For a
// composite object, it only seals what obj.sealing asks for.
func encrypt(ctx context.Context, m wrapper, obj Object) (*Encryption, error) {
	w, err := m.wrap(ctx, obj)
	if err != nil {
		return nil, err
	}
	defer w.clear()
	if s := obj.sealing; s != nil {
		env, err := w.seal(obj, s.key, s.head, s.kind)
		if err != nil {
			return nil, err
		}
		e := &Encryption{envelope: env}
		e.used.Store(true) // the parts have streams of their own
		return e, nil
	}
	dek := secret.Random()
	body, head, err := chunked.New(dek.Bytes(), []byte(bodyLabel))
	if err != nil {
		return nil, err
	}
	env, err := w.seal(obj, dek, head, kindObject)
	if err != nil {
		return nil, err
	}
	return &Encryption{envelope: env, body: body}, nil
}

// seal returns the envelope of a body that begins with head.
func (w wrapping) seal(obj Object, dek secret.Key, head [chunked.HeadSize]byte, kind kind) (*Envelope, error) {
	stored, err := w.context(obj)
	if err != nil {
		return nil, err
	}
	env := &Envelope{mode: w.mode, keyID: w.keyID, wrapped: w.wrapped, context: stored, head: head, kind: kind}
	context, err := env.sealContext(obj)
	if err != nil {
		return nil, err
	}
	env.sealed, err = w.kek.Seal(dek.Bytes(), context)
	if err != nil {
		return nil, fmt.Errorf("sse: sealing the data key: %w", err)
	}
	return env, nil
}

// context returns the pairs that the envelope stores: the caller's, and whether
// the key service bound only the bucket.
func (w wrapping) context(obj Object) (pairs, error) {
	if err := obj.check(); err != nil {
		return "", err
	}
	switch {
	case !w.bucketKey:
		return encodePairs(obj.Context)
	case len(obj.Context) == 0:
		return bucketKeyPairs, nil
	}
	stored := maps.Clone(obj.Context)
	stored[contextBucketKey] = "true"
	return encodePairs(stored)
}

// decrypt opens env's data key for obj with the key that sealed it.
func decrypt(kek opener, obj Object, env *Envelope) (*Decryption, error) {
	obj, err := obj.opened(env)
	if err != nil {
		return nil, err
	}
	context, err := env.sealContext(obj)
	if err != nil {
		return nil, err
	}
	opened, err := kek.Open(env.sealed, context)
	if errors.Is(err, chunked.ErrKey) || errors.Is(err, chunked.ErrCorrupt) {
		return nil, ErrKey // ErrCorrupt is for bodies
	}
	if err != nil {
		return nil, fmt.Errorf("sse: opening the data key: %w", err)
	}
	dek, err := secret.New(opened)
	clear(opened)
	if err != nil {
		return nil, fmt.Errorf("%w: sealed %v", ErrKey, err)
	}
	d := &Decryption{envelope: env, dek: dek}
	switch env.kind {
	case kindObject:
		d.body, err = chunked.Open(dek.Bytes(), []byte(bodyLabel), env.head[:])
	case kindComposite:
		_, err = chunked.Open(dek.Bytes(), []byte(compositeLabel), env.head[:])
	case kindKeeper: // the key is no data key, and the head is not its own
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

// rewrap seals d's data key for obj: see [Cipher].
func rewrap(ctx context.Context, m wrapper, obj Object, d *Decryption) (*Envelope, error) {
	obj, err := obj.rewrapped(d)
	if err != nil {
		return nil, err
	}
	w, err := m.wrap(ctx, obj)
	if err != nil {
		return nil, err
	}
	defer w.clear()
	env, err := w.seal(obj, d.dek, d.envelope.head, d.envelope.kind)
	if err != nil {
		return nil, err
	}
	if size := d.envelope.Size(); env.Size() < size {
		return env.WithSize(size)
	}
	return env, nil
}

// sealContext returns what the sealed data key is bound to: the object's name
// and the envelope, except its padding and the sealed key itself.
func (e *Envelope) sealContext(obj Object) ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	if len(obj.Bucket) > maxName || len(obj.Key) > maxName {
		return nil, fmt.Errorf("%w: bucket has %d bytes, key has %d, at most %d fit", ErrTooLarge, len(obj.Bucket), len(obj.Key), maxName)
	}
	kind := kinds[e.kind]
	b := cryptobyte.NewBuilder(make([]byte, 0, len(kind.label)+e.unpadded()+4+len(obj.Bucket)+len(obj.Key)))
	b.AddBytes([]byte(kind.label))
	b.AddUint8(kind.version)
	b.AddUint8(uint8(e.mode))
	addField(b, e.keyID)
	addField(b, e.wrapped)
	addField(b, obj.Bucket)
	addField(b, obj.Key)
	addField(b, e.context)
	b.AddBytes(e.head[:])
	return b.Bytes()
}

// keySealer is a key-encryption key in memory.
type keySealer struct{ key secret.Key }

func (k keySealer) Seal(dek, context []byte) ([]byte, error) {
	return chunked.Seal(k.key.Bytes(), context, dek)
}

func (k keySealer) Open(sealed, context []byte) ([]byte, error) {
	return chunked.OpenMessage(k.key.Bytes(), context, sealed)
}
