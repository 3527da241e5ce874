package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/sse"
)

// A stored object is an envelope, padded to the bucket's fixed size, and the body
// behind it: the self-contained form of package sse. It needs nothing else to be
// read. Beside it, in the object's metadata, stands a hint of what the envelope
// says, for whoever looks at a HEAD; nothing trusts it.

// ReservedPrefix begins the names of metadata that are ours. Callers cannot set
// them, and do not see them.
const ReservedPrefix = "blobseal-"

// Names of the hint's parts in the metadata.
const (
	hintMode         = ReservedPrefix + "mode"
	hintKeyID        = ReservedPrefix + "key-id"
	hintEnvelopeSize = ReservedPrefix + "envelope-size"

	// The plaintext's Content-Encoding stands here, and not in the store's own
	// field: ciphertext is no gzip, and stores and HTTP clients that believe it is
	// one fail to unpack it.
	contentEncoding = ReservedPrefix + "content-encoding"

	// A longer key id is left out, since stores bound what metadata may take.
	maxHintKeyID = 512
)

// Hint is what an object's metadata says of its envelope. It is not authentic:
// the envelope is what counts. [Bucket.Attributes] gives it through As.
type Hint struct {
	Mode         sse.Mode
	KeyID        string // empty in SSE-C, and where it is too long for metadata
	EnvelopeSize int    // in bytes; the body begins behind them
}

// hintOf describes an envelope.
func hintOf(env *sse.Envelope) Hint {
	h := Hint{Mode: env.Mode(), KeyID: env.KeyID(), EnvelopeSize: env.Size()}
	if len(h.KeyID) > maxHintKeyID {
		h.KeyID = ""
	}
	return h
}

// metadata returns md with the hint in it, and without any other hint.
func (h Hint) metadata(md map[string]string) map[string]string {
	all := withoutHint(md)
	if all == nil {
		all = make(map[string]string, 4)
	}
	if encoding := md[contentEncoding]; encoding != "" {
		all[contentEncoding] = encoding
	}
	all[hintMode] = h.Mode.String()
	all[hintEnvelopeSize] = strconv.Itoa(h.EnvelopeSize)
	if h.KeyID != "" {
		all[hintKeyID] = h.KeyID
	}
	return all
}

// parseHint reads the hint from an object's metadata. present reports that there
// is one, even if it makes no sense; a hint that makes none is the zero Hint.
func parseHint(md map[string]string) (hint Hint, present bool) {
	for name := range md {
		present = present || strings.HasPrefix(strings.ToLower(name), ReservedPrefix)
	}
	if !present {
		return Hint{}, false
	}
	size, err := strconv.Atoi(md[hintEnvelopeSize])
	if err != nil || size <= 0 || size > sse.MaxEnvelopeSize {
		return Hint{}, true
	}
	if hint.Mode.UnmarshalText([]byte(md[hintMode])) != nil {
		return Hint{}, true
	}
	hint.KeyID, hint.EnvelopeSize = md[hintKeyID], size
	return hint, true
}

// withoutHint returns a copy of md that has only what is the caller's; nil if
// there is nothing.
func withoutHint(md map[string]string) map[string]string {
	var rest map[string]string
	for name, value := range md {
		if strings.HasPrefix(strings.ToLower(name), ReservedPrefix) {
			continue
		}
		if rest == nil {
			rest = make(map[string]string, len(md)+4)
		}
		rest[name] = value
	}
	return rest
}

// checkMetadata refuses names that are ours.
func checkMetadata(md map[string]string) error {
	for name := range md {
		if strings.HasPrefix(strings.ToLower(name), ReservedPrefix) {
			return fmt.Errorf("%w: %q", ErrReserved, name)
		}
	}
	return nil
}

// magic begins every envelope, of any version.
var magic = []byte("\x89SSE\r\n\x1a\n")

// readEnvelope reads the envelope at the head of a stored object from r, in one
// read where it is no longer than expect bytes. body is what follows the
// envelope. An object that does not begin as envelopes do is ErrPlain, and body
// then gives all of it, from its first byte. An object that does, and is none, is
// [sse.ErrVersion] or [sse.ErrFormat]. Other errors are those of r.
func readEnvelope(r io.Reader, expect int) (env *sse.Envelope, body io.Reader, err error) {
	head := make([]byte, expect)
	n, err := io.ReadFull(r, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, nil, err
	}
	head = head[:n]
	rest := bytes.NewReader(head)
	whole := io.MultiReader(rest, r)
	if !bytes.HasPrefix(head, magic) {
		return nil, whole, ErrPlain
	}
	env = new(sse.Envelope)
	if n == expect && env.UnmarshalBinary(head) == nil {
		return env, r, nil
	}
	env, err = sse.ReadEnvelope(whole)
	if err != nil {
		return nil, nil, err
	}
	return env, whole, nil
}

// openStored begins to read n bytes of the stored object, which has the size that
// the reader tells: package fileblob (of gocloud v0.47.0) looks at a file and then
// opens it, so that both can be of two versions, and what of the new one is asked for
// by the size of the old would be taken for it.
func (b *Bucket) openStored(ctx context.Context, key string, off, n int64, opts *gcblob.ReaderOptions) (*gcblob.Reader, error) {
	for attempt := 1; ; attempt++ {
		r, err := b.inner.NewRangeReader(ctx, key, off, n, opts)
		if err != nil {
			return nil, openError(err)
		}
		if size, ok := fileSize(r); !ok || size == r.Size() {
			return r, nil
		}
		r.Close()
		if attempt == maxTries {
			return nil, ErrChanged
		}
	}
}

// fileSize is the size of the file that r reads, if it reads one.
func fileSize(r *gcblob.Reader) (size int64, ok bool) {
	var from io.Reader
	if !r.As(&from) {
		return 0, false
	}
	if part, ok := from.(*io.LimitedReader); ok {
		from = part.R
	}
	file, ok := from.(*os.File)
	if !ok {
		return 0, false
	}
	info, err := file.Stat()
	if err != nil {
		return 0, false
	}
	return info.Size(), true
}

// errDamaged is the error of an object that does not begin with an envelope although
// its metadata says so.
var errDamaged = fmt.Errorf("blob: its metadata says that the object is encrypted: %w", sse.ErrFormat)

// Kind is what a stored object turned out to be.
type Kind uint8

// What a stored object can be, as far as its head shows.
const (
	KindEncrypted      Kind = iota + 1 // it begins with an envelope
	KindPlain                          // it does not, and nothing says that it should
	KindUnknownVersion                 // it begins with an envelope of a later version
	KindDamaged                        // it should begin with an envelope, and does not
)

var kindNames = map[Kind]string{
	KindEncrypted: "encrypted", KindPlain: "plain",
	KindUnknownVersion: "unknown version", KindDamaged: "damaged",
}

// String names the kind.
func (k Kind) String() string {
	if name, ok := kindNames[k]; ok {
		return name
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// kindOf tells from readEnvelope's error, and from whether the object's metadata
// has a hint, what a stored object is. ok is false where the error says nothing
// of that, because it is the inner bucket's.
func kindOf(err error, hinted bool) (kind Kind, ok bool) {
	switch {
	case err == nil:
		return KindEncrypted, true
	case errors.Is(err, ErrPlain) && !hinted:
		return KindPlain, true
	case errors.Is(err, sse.ErrVersion):
		return KindUnknownVersion, true
	case errors.Is(err, sse.ErrFormat): // ErrPlain among them
		return KindDamaged, true
	}
	return 0, false
}

// plainSize is the size of what is in a stored object of size bytes.
func plainSize(size int64, envelopeSize int) (int64, error) {
	if size < int64(envelopeSize) {
		return 0, fmt.Errorf("%w: it is %d bytes long", sse.ErrTruncated, size)
	}
	return sse.PlaintextSize(size - int64(envelopeSize))
}
