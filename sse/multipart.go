package sse

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"

	"github.com/blobseal/blobseal/internal/chunked"
	"github.com/blobseal/blobseal/internal/secret"
)

// Multipart is the upload of one composite object: an object that is encrypted in
// parts, in any order, by any number of processes. It is immutable and safe for
// concurrent use.
//
// [Multipart.Part] encrypts a part and makes its receipt. [Completer.Trailer] makes
// the trailer from the receipts. The stored object is all parts in ascending order of
// their numbers, then filler if the store needs it, then the trailer. Processes share
// only the state and the receipts, neither of which is secret.
type Multipart struct {
	Completer
	dek     secret.Key
	obj     Object
	observe observer // of the parts; see Encryption.Observed
}

// Completer completes one upload. It cannot decrypt a part. It is immutable and
// safe for concurrent use. [Multipart] embeds one; [OpenCompleter] makes one
// where the object's own key is not at hand.
type Completer struct {
	mk  secret.Key // manifest key
	env *Envelope
}

// TrailerOptions are for [Completer.Trailer].
type TrailerOptions struct {
	// Filler is how many bytes, below 5 MiB, the caller stored between the last
	// part and the trailer. Stores with a minimum size of parts need filler.
	Filler int64

	// EnvelopeSize is [WriterOptions].EnvelopeSize of the store's other objects.
	// If it is set, the composite object gets a size that none of those has, so
	// that a listing shows which objects may be composite. Zero adds no padding.
	EnvelopeSize int
}

// StartMultipart begins an upload of obj: it draws a data key and seals it with
// enc. ctx bounds only the key operation. Nothing is written.
func StartMultipart(ctx context.Context, enc Encrypter, obj Object) (*Multipart, error) {
	if enc == nil {
		return nil, fmt.Errorf("%w: no Encrypter", ErrInvalid)
	}
	dek := secret.Random()
	_, head, err := chunked.New(dek.Bytes(), []byte(compositeLabel))
	if err != nil {
		return nil, err
	}
	e, err := sealKey(ctx, enc, obj, sealing{kindComposite, dek, head})
	if err != nil {
		return nil, err
	}
	m, err := newMultipart(dek, e.envelope, obj)
	if err != nil {
		return nil, err
	}
	m.observe = e.observe
	return m, nil
}

// sealKey has enc seal a key for obj.
func sealKey(ctx context.Context, enc Encrypter, obj Object, s sealing) (*Encryption, error) {
	obj.sealing = &s
	e, err := enc.Encrypt(ctx, obj)
	if err != nil {
		return nil, err
	}
	if e == nil || e.envelope == nil || e.envelope.kind != s.kind || e.envelope.head != s.head {
		return nil, fmt.Errorf("%w: Encrypter did not pass its Object on (change only the fields that must differ)", ErrInvalid)
	}
	return e, nil
}

func newMultipart(dek secret.Key, env *Envelope, obj Object) (*Multipart, error) {
	mk, err := manifestKey(dek, env.uploadID())
	if err != nil {
		return nil, err
	}
	obj.Context, obj.AnyContext, obj.sealing = env.Context(), false, nil
	return &Multipart{Completer: Completer{mk: mk, env: env}, dek: dek, obj: obj}, nil
}

// OpenMultipart opens an upload from its state, in any process. ctx bounds only the
// key operation. OpenMultipart fails as [Decrypter].Decrypt does, and with [ErrFormat]
// or [ErrVersion] for a state that cannot be parsed.
func OpenMultipart(ctx context.Context, dec Decrypter, obj Object, state []byte) (*Multipart, error) {
	env, _, err := parseState(state)
	if err != nil {
		return nil, err
	}
	d, err := openKey(ctx, dec, obj, env)
	if err != nil {
		return nil, err
	}
	return newMultipart(d.dek, env, obj)
}

// OpenCompleter opens an upload from a state that [Multipart.State] made for a
// keeper, with that keeper. A service needs it in SSE-C if the customer's key comes
// with the parts and not with the request to complete. ctx bounds only the key
// operation. A state without a key for a keeper is [ErrFormat].
func OpenCompleter(ctx context.Context, keeper Decrypter, obj Object, state []byte) (*Completer, error) {
	env, kept, err := parseState(state)
	if err != nil {
		return nil, err
	}
	if kept == nil {
		return nil, fmt.Errorf("%w: upload state has no key for a keeper (give State a keeper)", ErrFormat)
	}
	d, err := openKey(ctx, keeper, obj, kept)
	if err != nil {
		return nil, err
	}
	return &Completer{mk: d.dek, env: env}, nil
}

// openKey has dec open the sealed key of env.
func openKey(ctx context.Context, dec Decrypter, obj Object, env *Envelope) (*Decryption, error) {
	if dec == nil {
		return nil, fmt.Errorf("%w: no Decrypter", ErrInvalid)
	}
	d, err := dec.Decrypt(ctx, obj, env)
	if err != nil {
		return nil, err
	}
	if d == nil || !sameUpload(d.envelope, env) {
		return nil, fmt.Errorf("%w: Decrypter opened a different envelope", ErrInvalid)
	}
	return d, nil
}

// parseState returns the envelope of the object and, if the state has one, the
// envelope of the keeper.
func parseState(state []byte) (env, kept *Envelope, err error) {
	size, err := parsePrefix(state, version2)
	if err != nil {
		return nil, nil, err
	}
	size = min(size, len(state))
	env = new(Envelope)
	if err := env.parse(state[:size], kindComposite); err != nil {
		return nil, nil, err
	}
	if size == len(state) {
		return env, nil, nil
	}
	kept = new(Envelope)
	if err := kept.parse(state[size:], kindKeeper); err != nil {
		return nil, nil, fmt.Errorf("%w: upload state: bytes behind the envelope are no keeper's envelope: %w", ErrFormat, err)
	}
	if kept.head != env.head {
		return nil, nil, fmt.Errorf("%w: upload state joins two uploads", ErrFormat)
	}
	return env, kept, nil
}

// State returns what [OpenMultipart] needs in any process. It is not secret.
//
// Most services pass a nil keeper. The state is then the envelope that the object
// will have, up to padding, and [Envelope.UnmarshalBinary] parses it.
//
// With a keeper, the state also holds what [OpenCompleter] needs: a second key, sealed
// by keeper, which completes the upload and decrypts no part. ctx bounds that key
// operation. Delete such a state when the upload has ended: until then, whoever may
// use the keeper's key can choose among the parts.
func (m *Multipart) State(ctx context.Context, keeper Encrypter) ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	state, err := m.env.MarshalBinary()
	if err != nil || keeper == nil {
		return state, err
	}
	e, err := sealKey(ctx, keeper, m.obj, sealing{kindKeeper, m.mk, m.env.head})
	if err != nil {
		return nil, err
	}
	kept, err := e.envelope.MarshalBinary()
	return append(state, kept...), err
}

// check refuses a Multipart or Completer that was not opened.
func (c *Completer) check() error {
	if c == nil || c.mk.IsZero() {
		return fmt.Errorf("%w: upload is not open (use StartMultipart, OpenMultipart or OpenCompleter)", ErrInvalid)
	}
	return nil
}

func (m *Multipart) check() error {
	if m == nil {
		return (*Completer)(nil).check()
	}
	return m.Completer.check()
}

// receipt seals an entry under the manifest key.
func (c *Completer) receipt(e entry) ([]byte, error) {
	b := cryptobyte.NewFixedBuilder(make([]byte, 0, entrySize))
	e.add(b)
	return chunked.Seal(c.mk.Bytes(), []byte(receiptLabel), b.BytesOrPanic())
}

// openReceipt is the inverse of receipt.
func (c *Completer) openReceipt(receipt []byte) (e entry, err error) {
	if len(receipt) != receiptSize {
		return e, fmt.Errorf("%w: it has %d bytes, want %d", ErrReceipt, len(receipt), receiptSize)
	}
	plain, err := chunked.OpenMessage(c.mk.Bytes(), []byte(receiptLabel), receipt)
	if err != nil {
		return e, ErrReceipt
	}
	s := cryptobyte.String(plain)
	if !e.read(&s) || !s.Empty() {
		return e, fmt.Errorf("%w: invalid part number or size", ErrReceipt)
	}
	return e, nil
}

// Trailer returns what follows the parts and the filler in the stored object: at
// most 400 KiB. receipts are those of the stored parts, one for each, in ascending
// order of part numbers. Only the last part may be empty. Receipts that are out of
// order, repeated, missing or more than 10,000 are [ErrInvalid], and those of
// parts of more than 4 PiB in total are [ErrTooLarge]. A receipt of a different upload
// is [ErrReceipt].
//
// Each call returns a new trailer. Each makes an authentic object, so publish only
// one.
func (c *Completer) Trailer(receipts [][]byte, opts *TrailerOptions) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if opts == nil {
		opts = new(TrailerOptions)
	}
	m := manifest{filler: opts.Filler}
	for _, receipt := range receipts[:min(len(receipts), maxParts+1)] { // check refuses one more
		e, err := c.openReceipt(receipt)
		if err != nil {
			return nil, err
		}
		m.parts = append(m.parts, e)
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	sealed, err := chunked.Seal(c.mk.Bytes(), []byte(manifestLabel), m.marshal())
	if err != nil {
		return nil, err
	}
	l := newLayout(m.parts)
	envelope, err := c.envelopeBehind(l.end+m.filler+int64(len(sealed)), opts.EnvelopeSize)
	if err != nil {
		return nil, err
	}
	f := footer{plain: l.size, manifest: len(sealed), envelope: len(envelope)}
	return slices.Concat(sealed, envelope, f.marshal()), nil
}

// envelopeBehind encodes the envelope of an object with the given number of bytes
// before it. If the store's envelopes have a fixed size, it pads as COMP-13 says.
func (c *Completer) envelopeBehind(before int64, size int) ([]byte, error) {
	env := c.env
	if size < 0 || size > MaxEnvelopeSize {
		return nil, fmt.Errorf("%w: envelope size %d", ErrInvalid, size)
	}
	if size > 0 {
		stored := before + int64(env.Size()) + footerSize
		const unit = chunked.SealedChunkSize
		if over := ((stored-int64(size))%unit + unit) % unit; over >= chunked.TagSize {
			padded, err := env.WithSize(env.Size() + int(unit-over))
			if err != nil {
				return nil, err
			}
			env = padded
		}
	}
	return env.MarshalBinary()
}

// partStored returns how many bytes a part of an allowed plaintext size takes.
func partStored(plain int64) int64 {
	body, _ := chunked.CiphertextSize(plain)
	return PartOverhead + body
}

// sameUpload reports whether two envelopes belong to one upload.
func sameUpload(a, b *Envelope) bool {
	return a != nil && b != nil && a.kind == b.kind && a.head == b.head
}
