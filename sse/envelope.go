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
	version2   = 2                      // of composite objects: see composite.go
	prefixSize = len(magic) + 1 + 1 + 4 // up to and with the size
	sealedSize = chunked.HeadSize + chunked.KeySize + chunked.TagSize

	maxKeyID   = 2048
	maxWrapped = 6144
	maxContext = 8192
	maxName    = 65535 // of a bucket or a key
)

// Envelope holds all that decrypts an object's body, except the key: the mode,
// the id of the key, the sealed data key, the encryption context and the head of
// the body. Nothing in it is secret. Once [Decrypter.Decrypt] has accepted an
// envelope, its fields are authentic; its size is not, since padding is not
// bound. An Envelope is immutable.
type Envelope struct {
	mode    Mode
	keyID   string
	wrapped []byte // the key service's ciphertext of its data key
	sealed  []byte // the object's data key, sealed under the mode's key
	context pairs
	head    [chunked.HeadSize]byte
	padding int
	kind    kind
}

// Mode returns the mode that opens the envelope.
func (e *Envelope) Mode() Mode { return e.mode }

// KeyID returns the id of the key that opens the envelope: a version of a ring's
// master key, or a key of a key service. It is empty in [ModeCustomer].
func (e *Envelope) KeyID() string { return e.keyID }

// Context returns a copy of the caller's encryption context. It is never nil.
func (e *Envelope) Context() kms.Context {
	c := make(kms.Context)
	for name, value := range e.context.each {
		if !strings.HasPrefix(name, reservedPrefix) {
			c[name] = value
		}
	}
	return c
}

// BucketKeyEnabled reports whether the key service bound the object's bucket
// and not its key: see [KMSOptions].
func (e *Envelope) BucketKeyEnabled() bool {
	for name := range e.context.each {
		if name == contextBucketKey { // pairs.check allows only the value "true"
			return true
		}
	}
	return false
}

// IsComposite reports whether e is the envelope of a composite object, which is in its
// trailer, and not at its head.
func (e *Envelope) IsComposite() bool { return e.kind == kindComposite }

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
		e.padding == other.padding && e.kind == other.kind
}

// Size returns the size of the encoded envelope in bytes, padding included. In
// the self-contained form, the body begins at that offset.
func (e *Envelope) Size() int { return e.unpadded() + e.padding }

// unpadded returns the size without padding.
func (e *Envelope) unpadded() int {
	return prefixSize + 2 + len(e.keyID) + 2 + len(e.wrapped) + sealedSize +
		2 + len(e.context) + chunked.HeadSize
}

// WithSize returns the same envelope, padded to size bytes. A store whose
// envelopes all have one size can replace them in place. WithSize fails with
// [ErrTooLarge] if the envelope needs more bytes, or if size is above
// [MaxEnvelopeSize].
func (e *Envelope) WithSize(size int) (*Envelope, error) {
	least := e.unpadded()
	if size < least || size > MaxEnvelopeSize {
		return nil, fmt.Errorf("%w: envelope cannot have %d bytes (choose %d to %d)", ErrTooLarge, size, least, MaxEnvelopeSize)
	}
	padded := *e
	padded.padding = size - least
	return &padded, nil
}

// String describes the envelope, for logs.
func (e *Envelope) String() string {
	if e.keyID == "" {
		return fmt.Sprintf("%v envelope of %d bytes", e.mode, e.Size())
	}
	return fmt.Sprintf("%v envelope of %d bytes under key %q", e.mode, e.Size(), e.keyID)
}

// checkPresent refuses a nil or zero envelope: the service lost it, or the object
// never had one.
func (e *Envelope) checkPresent() error {
	if e == nil || e.mode == 0 {
		return fmt.Errorf("%w: envelope is nil or zero (read it with ReadEnvelope)", ErrFormat)
	}
	return nil
}

// checkMode refuses envelopes of other modes.
func (e *Envelope) checkMode(mode Mode) error {
	if err := e.checkPresent(); err != nil {
		return err
	}
	if e.mode != mode {
		return fmt.Errorf("%w: %v cipher on %v object (use ByMode)", ErrMode, mode, e.mode)
	}
	return nil
}

// check refuses what the format does not allow, in new and in parsed envelopes.
func (e *Envelope) check() error {
	if _, known := modeNames[e.mode]; !known {
		return fmt.Errorf("%w: unknown mode %d", ErrInvalid, uint8(e.mode))
	}
	if hasID := e.keyID != ""; hasID != (e.mode != ModeCustomer) {
		return fmt.Errorf("%w: %v envelope has key id %q", ErrInvalid, e.mode, e.keyID)
	}
	if hasWrapped := len(e.wrapped) > 0; hasWrapped != (e.mode == ModeKMS) {
		return fmt.Errorf("%w: %v envelope has a wrapped data key of %d bytes", ErrInvalid, e.mode, len(e.wrapped))
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
			return fmt.Errorf("%w: %s has %d bytes, at most %d fit", ErrTooLarge, part.name, part.size, part.limit)
		}
	}
	return nil
}

// MarshalBinary returns the envelope's only encoding: see SPEC.md.
func (e *Envelope) MarshalBinary() ([]byte, error) {
	if e == nil {
		return nil, fmt.Errorf("%w: nil envelope", ErrInvalid)
	}
	if err := e.check(); err != nil {
		return nil, err
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, e.Size()))
	b.AddBytes([]byte(magic))
	b.AddUint8(kinds[e.kind].version)
	b.AddUint8(uint8(e.mode))
	b.AddUint32(uint32(e.Size()))
	addField(b, e.keyID)
	addField(b, e.wrapped)
	b.AddBytes(e.sealed)
	addField(b, e.context)
	b.AddBytes(make([]byte, e.padding))
	b.AddBytes(e.head[:])
	return b.Bytes()
}

// UnmarshalBinary parses one envelope, of an object or of a composite object, and
// nothing behind it. It fails with [ErrFormat] or [ErrVersion].
func (e *Envelope) UnmarshalBinary(data []byte) error {
	if len(data) > len(magic)+1 && data[len(magic)] == version2 && data[len(magic)+1] != 0 {
		return e.parse(data, kindComposite)
	}
	return e.parse(data, kindObject)
}

// parse parses exactly one envelope of a kind.
func (e *Envelope) parse(data []byte, kind kind) error {
	size, err := parsePrefix(data, kinds[kind].version)
	if err != nil {
		return err
	}
	if len(data) < size {
		return fmt.Errorf("%w: data ends after %d of %d bytes: %w", ErrFormat, len(data), size, io.ErrUnexpectedEOF)
	}
	if len(data) > size {
		return fmt.Errorf("%w: data has %d bytes, its size field says %d", ErrFormat, len(data), size)
	}
	parsed := Envelope{mode: Mode(data[len(magic)+1]), kind: kind}
	s := cryptobyte.String(data[prefixSize:])
	var keyID, wrapped, context cryptobyte.String
	ok := s.ReadUint16LengthPrefixed(&keyID) &&
		s.ReadUint16LengthPrefixed(&wrapped) &&
		s.ReadBytes(&parsed.sealed, sealedSize) &&
		s.ReadUint16LengthPrefixed(&context) &&
		len(s) >= chunked.HeadSize
	if !ok {
		return fmt.Errorf("%w: field exceeds the envelope's %d bytes", ErrFormat, size)
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

// parsePrefix checks the first fields, which have fixed places, of an envelope of
// that version. It returns the envelope's size.
func parsePrefix(data []byte, version byte) (size int, err error) {
	if m := data[:min(len(data), len(magic))]; !bytes.HasPrefix([]byte(magic), m) {
		return 0, fmt.Errorf("%w: magic bytes are missing", ErrFormat)
	}
	if isComposite(data) {
		return 0, ErrComposite
	}
	if len(data) > len(magic) && data[len(magic)] != version {
		return 0, fmt.Errorf("%w: %d, not %d", ErrVersion, data[len(magic)], version)
	}
	if len(data) < prefixSize {
		return 0, fmt.Errorf("%w: data ends after %d bytes: %w", ErrFormat, len(data), io.ErrUnexpectedEOF)
	}
	var n uint32
	s := cryptobyte.String(data[len(magic)+2:])
	s.ReadUint32(&n)
	if n > MaxEnvelopeSize {
		return 0, fmt.Errorf("%w: size field says %d bytes, at most %d are allowed", ErrFormat, n, MaxEnvelopeSize)
	}
	if int(n) < prefixSize {
		return 0, fmt.Errorf("%w: size field says %d bytes, fewer than the fixed fields", ErrFormat, n)
	}
	return int(n), nil
}

// IsEnvelope reports whether data that begins with prefix begins with an
// envelope, of any version, or with a part of a composite object. It needs the
// first 8 bytes.
func IsEnvelope(prefix []byte) bool { return bytes.HasPrefix(prefix, []byte(magic)) }

// ReadEnvelope reads an envelope from r, and no byte of the body behind it. It
// fails with [ErrFormat], [ErrVersion], [ErrComposite] or an error of r.
func ReadEnvelope(r io.Reader) (*Envelope, error) {
	var data bytes.Buffer // grows with the data, not with the size field
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
	size, err := parsePrefix(data.Bytes(), version)
	if err != nil {
		return nil, err
	}
	if err := read(size - prefixSize); err != nil {
		return nil, err
	}
	e := new(Envelope)
	if err := e.parse(data.Bytes(), kindObject); err != nil {
		return nil, err
	}
	return e, nil
}

// MarshalText returns the encoding of MarshalBinary in base64url without
// padding, for a header or a metadata value.
func (e *Envelope) MarshalText() ([]byte, error) {
	data, err := e.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return base64.RawURLEncoding.AppendEncode(nil, data), nil
}

// UnmarshalText parses what MarshalText returns, and no other spelling. It fails
// with [ErrFormat] or [ErrVersion].
func (e *Envelope) UnmarshalText(text []byte) error {
	if len(text) > base64.RawURLEncoding.EncodedLen(MaxEnvelopeSize) {
		return fmt.Errorf("%w: text has %d bytes, more than any envelope", ErrFormat, len(text))
	}
	if bytes.ContainsAny(text, "\r\n") { // the decoder skips them
		return fmt.Errorf("%w: text contains a line break", ErrFormat)
	}
	data, err := base64.RawURLEncoding.Strict().AppendDecode(nil, text)
	if err != nil {
		return fmt.Errorf("%w: %v", ErrFormat, err)
	}
	return e.UnmarshalBinary(data)
}

// addField adds a field and, in front of it, its length as a uint16.
func addField[T ~string | ~[]byte](b *cryptobyte.Builder, field T) {
	b.AddUint16(uint16(len(field))) // check bounds it
	b.AddBytes([]byte(field))
}
