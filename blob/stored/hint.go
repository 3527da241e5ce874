package stored

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/blobseal/blobseal/sse"
)

// ReservedPrefix begins the names of the metadata that belongs to this library.
// Callers cannot set such metadata and do not see it.
const ReservedPrefix = "blobseal-"

const (
	hintMode         = ReservedPrefix + "mode"
	hintKeyID        = ReservedPrefix + "key-id"
	hintEnvelopeSize = ReservedPrefix + "envelope-size"
	hintBodyID       = ReservedPrefix + "body-id"
	hintComposite    = ReservedPrefix + "composite"

	// maxHintKeyID bounds the key id in a hint, since stores bound metadata.
	maxHintKeyID = 512
)

// ContentEncoding is the name of the metadata that holds the plaintext's
// Content-Encoding. The store's own field stays empty: a store or an HTTP client
// that took ciphertext for gzip would fail to unpack it.
const ContentEncoding = ReservedPrefix + "content-encoding"

// Hint is what an object's metadata says of its envelope. It is not authentic.
type Hint struct {
	Mode         sse.Mode
	KeyID        string // empty in SSE-C, and if the id is too long for metadata
	EnvelopeSize int    // in bytes; the body begins behind them; 0 in a composite object
	BodyID       string // see [sse.Envelope.BodyID]; empty in objects that lack it
	Composite    bool   // the object was uploaded in parts
}

// HintOf returns the hint that describes env, the envelope of an object or the state of
// its upload.
func HintOf(env *sse.Envelope) Hint {
	h := Hint{Mode: env.Mode(), KeyID: env.KeyID(), BodyID: env.BodyID(), Composite: env.IsComposite()}
	if !h.Composite {
		h.EnvelopeSize = env.Size()
	}
	if len(h.KeyID) > maxHintKeyID {
		h.KeyID = ""
	}
	return h
}

// Metadata returns a copy of md in which h replaces any other hint.
func (h Hint) Metadata(md map[string]string) map[string]string {
	all := CallerMetadata(md)
	if all == nil {
		all = make(map[string]string, 5)
	}
	if encoding := md[ContentEncoding]; encoding != "" {
		all[ContentEncoding] = encoding
	}
	all[hintMode] = h.Mode.String()
	if h.Composite {
		all[hintComposite] = "true"
	} else {
		all[hintEnvelopeSize] = strconv.Itoa(h.EnvelopeSize)
	}
	if h.KeyID != "" {
		all[hintKeyID] = h.KeyID
	}
	if h.BodyID != "" {
		all[hintBodyID] = h.BodyID
	}
	return all
}

// ParseHint reads the hint from an object's metadata. present reports whether md
// has a hint. A malformed hint is present and returned as the zero Hint.
func ParseHint(md map[string]string) (hint Hint, present bool) {
	for name := range md {
		present = present || isReserved(name)
	}
	if !present {
		return Hint{}, false
	}
	if hint.Composite = md[hintComposite] == "true"; !hint.Composite {
		size, err := strconv.Atoi(md[hintEnvelopeSize])
		if err != nil || size <= 0 || size > sse.MaxEnvelopeSize {
			return Hint{}, true
		}
		hint.EnvelopeSize = size
	}
	if hint.Mode.UnmarshalText([]byte(md[hintMode])) != nil {
		return Hint{}, true
	}
	hint.KeyID, hint.BodyID = md[hintKeyID], md[hintBodyID]
	return hint, true
}

// CallerMetadata returns a copy of md without reserved names, or nil if nothing
// is left.
func CallerMetadata(md map[string]string) map[string]string {
	var rest map[string]string
	for name, value := range md {
		if isReserved(name) {
			continue
		}
		if rest == nil {
			rest = make(map[string]string, len(md)+4)
		}
		rest[name] = value
	}
	return rest
}

// CheckMetadata returns [ErrReserved] if md, which a caller wants to store, has a
// reserved name.
func CheckMetadata(md map[string]string) error {
	for name := range md {
		if isReserved(name) {
			return fmt.Errorf("%w: %q", ErrReserved, name)
		}
	}
	return nil
}

func isReserved(name string) bool {
	return strings.HasPrefix(strings.ToLower(name), ReservedPrefix)
}
