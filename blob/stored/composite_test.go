package stored

import (
	"bytes"
	"context"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/sse"
)

// composite returns the upload of a composite object, and the stored object.
func composite(t *testing.T, sizes ...int) (*sse.Multipart, []byte) {
	t.Helper()
	var parts [][]byte
	for _, size := range sizes {
		parts = append(parts, bytes.Repeat([]byte("x"), size))
	}
	return ssetest.SealParts(t, ssetest.NewCustomer(t, 7), sse.Object{Bucket: "photos", Key: "k"}, &sse.TrailerOptions{EnvelopeSize: 1024}, parts...)
}

// TestReadEnvelopeOfComposite: the head of a composite object is told from an
// envelope, and the whole object can be read from what is returned.
func TestReadEnvelopeOfComposite(t *testing.T) {
	_, object := composite(t, 0)
	for _, expect := range []int{MinEnvelopeSize, 64, 1024, 1 << 20} {
		env, body, err := ReadEnvelope(iotest.OneByteReader(bytes.NewReader(object)), expect)
		require.ErrorIs(t, err, sse.ErrComposite)
		require.Nil(t, env)
		got, err := io.ReadAll(body)
		require.NoError(t, err)
		require.Equal(t, object, got)
	}
}

// TestReadEnvelopeInTrailer: ReadEnvelope rejects the envelope of a composite object,
// however much of it is read at once.
func TestReadEnvelopeInTrailer(t *testing.T) {
	upload, _ := composite(t, 0)
	state, err := upload.State(context.Background(), nil)
	require.NoError(t, err)
	for _, expect := range []int{MinEnvelopeSize, len(state), 1024} {
		_, _, err := ReadEnvelope(bytes.NewReader(state), expect)
		require.ErrorIs(t, err, sse.ErrVersion)
	}
}

// TestSizesOfComposites: no composite object has a size that an object of version 1 has,
// if its upload was completed for the bucket's envelope size.
func TestSizesOfComposites(t *testing.T) {
	for size := range 400 {
		_, object := composite(t, 83*size)
		_, err := PlaintextSize(int64(len(object)), 1024)
		require.ErrorIs(t, err, sse.ErrTruncated, "%d bytes of plaintext", size)
	}
}

// TestCompositeHint: the hint of an upload's state is that of its object, and tells no
// size that the upload does not have yet.
func TestCompositeHint(t *testing.T) {
	upload, object := composite(t, 5)
	state, err := upload.State(context.Background(), nil)
	require.NoError(t, err)
	env := new(sse.Envelope)
	require.NoError(t, env.UnmarshalBinary(state))
	trailer, err := sse.ReadTrailer(bytes.NewReader(object), int64(len(object)))
	require.NoError(t, err)
	hint := HintOf(env)
	require.Equal(t, hint, HintOf(trailer.Envelope()))
	require.True(t, hint.Composite)
	require.Zero(t, hint.EnvelopeSize)
	md := hint.Metadata(map[string]string{"owner": "me", hintEnvelopeSize: "1024"})
	require.NotContains(t, md, hintEnvelopeSize)
	require.Equal(t, map[string]string{"owner": "me"}, CallerMetadata(md))
	got, present := ParseHint(md)
	require.True(t, present)
	require.Equal(t, hint, got)

	// A rewrap of an object of version 1 replaces such a hint.
	plain := Hint{Mode: sse.ModeManaged, KeyID: "k1", EnvelopeSize: 1024}
	got, _ = ParseHint(plain.Metadata(md))
	require.Equal(t, plain, got)

	for _, md := range []map[string]string{{hintComposite: "true"}, {hintComposite: "true", hintMode: "SSE-X"}, {hintComposite: "yes", hintMode: "SSE-C"}} {
		got, present := ParseHint(md)
		require.True(t, present)
		require.Zero(t, got)
	}
}
