package stored

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// DefaultEnvelopeSize is the size to which buckets pad envelopes unless they are
// told otherwise.
const DefaultEnvelopeSize = 1024

// MinEnvelopeSize is the size below which no object holds an envelope.
const MinEnvelopeSize = 8

// probeSize is what ReadEnvelope reads at least. Every envelope has more bytes.
const probeSize = 64

// ReadEnvelope reads the envelope at the head of a stored object from r, in one
// read if the envelope has at most expect bytes. body reads what follows.
//
// An object that does not begin as envelopes do is [ErrPlain], and body then
// reads the whole object. An object that does, but holds no envelope, is
// [sse.ErrVersion] or [sse.ErrFormat]. One that was uploaded in parts is
// [sse.ErrComposite], which is [sse.ErrVersion] too, and body reads the whole object:
// [sse.ReadTrailer] finds its envelope. Other errors come from r.
func ReadEnvelope(r io.Reader, expect int) (env *sse.Envelope, body io.Reader, err error) {
	head := make([]byte, max(expect, probeSize))
	n, err := io.ReadFull(r, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, nil, err
	}
	head = head[:n]
	ahead := bytes.NewReader(head)
	whole := io.MultiReader(ahead, r)
	if !sse.IsEnvelope(head) {
		return nil, whole, ErrPlain
	}
	env = new(sse.Envelope)
	if env.UnmarshalBinary(head) == nil && !env.IsComposite() { // without a copy of head
		return env, r, nil
	}
	env, err = sse.ReadEnvelope(whole)
	switch {
	case errors.Is(err, sse.ErrComposite): // found in the first bytes of head
		return nil, io.MultiReader(bytes.NewReader(head), r), err
	case err != nil:
		return nil, nil, err
	}
	if ahead.Len() == 0 {
		return env, r, nil
	}
	return env, whole, nil
}

// PlaintextSize returns the plaintext's size of a stored object of size bytes. It
// is [sse.ErrTruncated] if no object has that size, except composite objects that
// were padded for this envelopeSize: their plaintext's size is in their trailer. So a
// listing needs to look only at objects for which PlaintextSize fails.
func PlaintextSize(size int64, envelopeSize int) (int64, error) {
	if size < int64(envelopeSize) {
		return 0, fmt.Errorf("%w: stored object has %d bytes, its envelope %d", sse.ErrTruncated, size, envelopeSize)
	}
	return sse.PlaintextSize(size - int64(envelopeSize))
}

// CheckEnvelopeSize returns an error if no envelope of size bytes holds the encryption
// context ec: [sse.ErrTooLarge], or [sse.ErrInvalid] if no envelope holds it.
func CheckEnvelopeSize(size int, ec kms.Context) error {
	var key [32]byte
	rand.Read(key[:])
	cipher, err := sse.NewCustomer(key[:]) // whose envelopes have neither a key id nor a wrapped key
	if err != nil {
		return err
	}
	enc, err := cipher.Encrypt(context.Background(), sse.Object{Context: ec})
	if err != nil {
		return err
	}
	_, err = enc.Envelope().WithSize(size)
	return err
}

// SameEnvelope reports whether x and y are equal, byte for byte. Envelopes of two
// versions of an object differ, since each envelope has a random part. A nil
// envelope equals none.
func SameEnvelope(x, y *sse.Envelope) bool {
	return x != nil && y != nil && x.Equal(y)
}

// Kind says what a stored object is, as far as its head shows.
type Kind uint8

// The kinds of stored objects.
const (
	KindEncrypted      Kind = iota + 1 // begins with an envelope
	KindPlain                          // has neither an envelope nor a hint
	KindUnknownVersion                 // begins with an envelope of a later version
	KindDamaged                        // has a broken envelope, or a hint and no envelope
)

var kindNames = [...]string{
	KindEncrypted: "encrypted", KindPlain: "plain",
	KindUnknownVersion: "unknown version", KindDamaged: "damaged",
}

// String returns the name of the kind.
func (k Kind) String() string {
	if int(k) < len(kindNames) && k != 0 {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// KindOf tells what an object is from the error of [ReadEnvelope] and from
// whether its metadata has a hint. ok is false if the error came from the store
// and so says nothing about the object.
func KindOf(err error, hinted bool) (kind Kind, ok bool) {
	switch {
	case err == nil:
		return KindEncrypted, true
	case errors.Is(err, ErrPlain) && !hinted:
		return KindPlain, true
	case errors.Is(err, sse.ErrVersion):
		return KindUnknownVersion, true
	case errors.Is(err, sse.ErrFormat): // includes ErrPlain
		return KindDamaged, true
	}
	return 0, false
}
