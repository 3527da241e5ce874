package sse

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"

	"github.com/blobseal/blobseal/internal/chunked"
	"github.com/blobseal/blobseal/kms"
)

// Limits of the envelope, in bytes. See SPEC.md, section 4.
const (
	// MaxEnvelopeSize is the largest envelope, padding included.
	MaxEnvelopeSize = 64 << 10

	magic      = "\x89SSE\r\n\x1a\n"
	version    = 1
	prefixSize = len(magic) + 1 + 1 + 4 // up to and with the size
	sealedSize = chunked.HeadSize + chunked.KeySize + chunked.TagSize

	maxKeyID   = 2048
	maxWrapped = 6144
	maxContext = 8192
	maxName    = 65535 // of a bucket or a key
)

// Envelope is what it takes to decrypt an object's body, but for the key: the
// mode, which key, the object's sealed data key, its encryption context and the
// head of its body. Nothing in it is secret. What it says is authentic once
// [Decrypter.Decrypt] has accepted it, but for its size: padding is not bound.
// It is immutable.
type Envelope struct {
	mode    Mode
	keyID   string
	wrapped []byte // the key service's ciphertext of its data key
	sealed  []byte // the object's data key, under the mode's key
	context pairs
	head    [chunked.HeadSize]byte
	padding int
}

// Mode returns who manages the key that opens the envelope.
func (e *Envelope) Mode() Mode { return e.mode }

// KeyID names the key that opens the envelope: a version of a ring's master key
// or a key of a key service. It is empty in ModeCustomer.
func (e *Envelope) KeyID() string { return e.keyID }

// Context returns a copy of the caller's encryption context; it is never nil.
func (e *Envelope) Context() kms.Context {
	c := make(kms.Context)
	for name, value := range e.context.each {
		if !strings.HasPrefix(name, reservedPrefix) {
			c[name] = value
		}
	}
	return c
}

// BucketKey reports whether the key service bound the object's bucket alone; see
// [KMSOptions].
func (e *Envelope) BucketKey() bool {
	for name := range e.context.each {
		if name == contextBucketKey { // whose value is "true", see pairs.check
			return true
		}
	}
	return false
}

// BodyID identifies the body that the envelope opens: 64 hexadecimal digits, in
// lower case. Each Encrypt begins a body with a new id, and a rewrapped
// envelope keeps the id. To store bodies apart from envelopes, name them by
// their ids, as the [Encryption] example does.
func (e *Envelope) BodyID() string { return hex.EncodeToString(e.head[chunked.SaltSize:]) }

// Equal reports whether e and other have the same encoding, padding included.
// Only a nil envelope equals nil.
func (e *Envelope) Equal(other *Envelope) bool {
	if e == nil || other == nil {
		return e == other
	}
	return e.mode == other.mode && e.keyID == other.keyID && bytes.Equal(e.wrapped, other.wrapped) &&
		bytes.Equal(e.sealed, other.sealed) && e.context == other.context && e.head == other.head &&
		e.padding == other.padding
}

// Size returns how many bytes the envelope takes, padding included. In the
// self-contained form the body begins behind them.
func (e *Envelope) Size() int { return e.unpadded() + e.padding }

// unpadded is the envelope's size without its padding.
func (e *Envelope) unpadded() int {
	return prefixSize + 2 + len(e.keyID) + 2 + len(e.wrapped) + sealedSize +
		2 + len(e.context) + chunked.HeadSize
}

// WithSize returns the same envelope padded to size bytes, so that a store can
// give all envelopes one size and replace them in place. It fails with
// [ErrTooLarge] if the envelope needs more, or size is above [MaxEnvelopeSize].
func (e *Envelope) WithSize(size int) (*Envelope, error) {
	least := e.unpadded()
	if size < least || size > MaxEnvelopeSize {
		return nil, fmt.Errorf("%w: envelope of %d bytes cannot be %d (at most %d)", ErrTooLarge, least, size, MaxEnvelopeSize)
	}
	padded := *e
	padded.padding = size - least
	return &padded, nil
}

// String describes the envelope.
func (e *Envelope) String() string {
	if e.keyID == "" {
		return fmt.Sprintf("%v envelope of %d bytes", e.mode, e.Size())
	}
	return fmt.Sprintf("%v envelope of %d bytes under key %q", e.mode, e.Size(), e.keyID)
}

// check reports what the format does not allow. It is the same for an envelope
// that is made and for one that was read.
func (e *Envelope) check() error {
	if _, known := modeNames[e.mode]; !known {
		return fmt.Errorf("%w: mode %d", ErrInvalid, uint8(e.mode))
	}
	if hasID := e.keyID != ""; hasID != (e.mode != ModeCustomer) {
		return fmt.Errorf("%w: key id %q in %v", ErrInvalid, e.keyID, e.mode)
	}
	if hasWrapped := len(e.wrapped) > 0; hasWrapped != (e.mode == ModeKMS) {
		return fmt.Errorf("%w: wrapped data key of %d bytes in %v", ErrInvalid, len(e.wrapped), e.mode)
	}
	if !utf8.ValidString(e.keyID) {
		return fmt.Errorf("%w: key id %q is not UTF-8", ErrInvalid, e.keyID)
	}
	if err := e.context.check(e.mode); err != nil {
		return err
	}
	for _, part := range []struct {
		name        string
		size, limit int
	}{
		{"key id", len(e.keyID), maxKeyID},
		{"wrapped data key", len(e.wrapped), maxWrapped},
		{"encryption context", len(e.context), maxContext},
		{"envelope", e.Size(), MaxEnvelopeSize},
	} {
		if part.size > part.limit {
			return fmt.Errorf("%w: %s of %d bytes, at most %d", ErrTooLarge, part.name, part.size, part.limit)
		}
	}
	return nil
}

// MarshalBinary returns the envelope's one encoding, which SPEC.md describes.
func (e *Envelope) MarshalBinary() ([]byte, error) {
	if e == nil {
		return nil, fmt.Errorf("%w: nil envelope", ErrInvalid)
	}
	if err := e.check(); err != nil {
		return nil, err
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, e.Size()))
	b.AddBytes([]byte(magic))
	b.AddUint8(version)
	b.AddUint8(uint8(e.mode))
	b.AddUint32(uint32(e.Size()))
	addString(b, e.keyID)
	addBytes(b, e.wrapped)
	b.AddBytes(e.sealed)
	addString(b, string(e.context))
	b.AddBytes(make([]byte, e.padding))
	b.AddBytes(e.head[:])
	return b.Bytes()
}

// UnmarshalBinary parses exactly one envelope; trailing bytes are [ErrFormat].
// It fails with [ErrFormat] or [ErrVersion].
func (e *Envelope) UnmarshalBinary(data []byte) error {
	size, err := parsePrefix(data)
	if err != nil {
		return err
	}
	if len(data) != size {
		return fmt.Errorf("%w: %d bytes, it says %d", ErrFormat, len(data), size)
	}
	parsed := Envelope{mode: Mode(data[len(magic)+1])}
	s := cryptobyte.String(data[prefixSize:])
	var keyID, context cryptobyte.String
	var wrapped cryptobyte.String
	ok := s.ReadUint16LengthPrefixed(&keyID) &&
		s.ReadUint16LengthPrefixed(&wrapped) &&
		s.ReadBytes(&parsed.sealed, sealedSize) &&
		s.ReadUint16LengthPrefixed(&context) &&
		len(s) >= chunked.HeadSize
	if !ok {
		return fmt.Errorf("%w: a field does not fit", ErrFormat)
	}
	parsed.keyID = string(keyID)
	parsed.wrapped = bytes.Clone(wrapped)
	if parsed.context, err = parsePairs(context); err != nil {
		return err
	}
	parsed.padding = len(s) - chunked.HeadSize
	if len(bytes.Trim(s[:parsed.padding], "\x00")) > 0 {
		return fmt.Errorf("%w: padding is not zero", ErrFormat)
	}
	copy(parsed.head[:], s[parsed.padding:])
	if err := parsed.check(); err != nil {
		return fmt.Errorf("%w: %v", ErrFormat, err)
	}
	*e = parsed
	return nil
}

// parsePrefix checks the fixed first fields and returns the envelope's size.
func parsePrefix(data []byte) (size int, err error) {
	if m := data[:min(len(data), len(magic))]; !bytes.HasPrefix([]byte(magic), m) {
		return 0, fmt.Errorf("%w: it does not begin with the magic bytes", ErrFormat)
	}
	if len(data) > len(magic) && data[len(magic)] != version {
		return 0, fmt.Errorf("%w: %d, this package knows %d", ErrVersion, data[len(magic)], version)
	}
	if len(data) < prefixSize {
		return 0, fmt.Errorf("%w: it ends after %d bytes: %w", ErrFormat, len(data), io.ErrUnexpectedEOF)
	}
	var n uint32
	s := cryptobyte.String(data[len(magic)+2:])
	s.ReadUint32(&n)
	if n > MaxEnvelopeSize {
		return 0, fmt.Errorf("%w: size of %d bytes, at most %d", ErrFormat, n, MaxEnvelopeSize)
	}
	if int(n) < prefixSize {
		return 0, fmt.Errorf("%w: size of %d bytes", ErrFormat, n)
	}
	return int(n), nil
}

// IsEnvelope reports whether data that begins with prefix begins with an
// envelope, of any version. It needs the first 8 bytes.
func IsEnvelope(prefix []byte) bool { return bytes.HasPrefix(prefix, []byte(magic)) }

// ReadEnvelope reads an envelope from r and not a byte more: what follows in r
// is the body. It fails with [ErrFormat] or [ErrVersion], or r's own error.
func ReadEnvelope(r io.Reader) (*Envelope, error) {
	var data bytes.Buffer // grows with what comes, not with what is announced
	read := func(n int) error {
		_, err := io.CopyN(&data, r, int64(n))
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("sse: reading the envelope: %w", err)
		}
		return nil
	}
	if err := read(prefixSize); err != nil {
		return nil, err
	}
	size, err := parsePrefix(data.Bytes())
	if err != nil {
		return nil, err
	}
	if err := read(size - prefixSize); err != nil {
		return nil, err
	}
	if data.Len() < size {
		return nil, fmt.Errorf("%w: it ends after %d of %d bytes: %w", ErrFormat, data.Len(), size, io.ErrUnexpectedEOF)
	}
	e := new(Envelope)
	if err := e.UnmarshalBinary(data.Bytes()); err != nil {
		return nil, err
	}
	return e, nil
}

// MarshalText returns the envelope's encoding in unpadded base64url, which fits
// one header or metadata value.
func (e *Envelope) MarshalText() ([]byte, error) {
	data, err := e.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return base64.RawURLEncoding.AppendEncode(nil, data), nil
}

// UnmarshalText parses what MarshalText returns, and no other spelling of it.
func (e *Envelope) UnmarshalText(text []byte) error {
	if len(text) > base64.RawURLEncoding.EncodedLen(MaxEnvelopeSize) {
		return fmt.Errorf("%w: text of %d bytes", ErrFormat, len(text))
	}
	if bytes.ContainsAny(text, "\r\n") { // which the decoder would skip
		return fmt.Errorf("%w: line break in its text", ErrFormat)
	}
	data, err := base64.RawURLEncoding.Strict().AppendDecode(nil, text)
	if err != nil {
		return fmt.Errorf("%w: %v", ErrFormat, err)
	}
	return e.UnmarshalBinary(data)
}

// addString and addBytes add a field behind its length, a uint16.

func addString(b *cryptobyte.Builder, s string) { addBytes(b, []byte(s)) }

func addBytes(b *cryptobyte.Builder, p []byte) {
	b.AddUint16(uint16(len(p))) // bounded by check
	b.AddBytes(p)
}
