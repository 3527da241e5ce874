package blobtest

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// Upload is an upload of a composite object, for tests: a bucket does not make them.
type Upload struct {
	M            *sse.Multipart
	Filler       int
	EnvelopeSize int // of the bucket
	Trailer      []byte

	key   string
	parts map[int]*UploadedPart
}

// UploadedPart is the last attempt at a part.
type UploadedPart struct{ Plain, Stored, Receipt []byte }

// StartUpload starts an upload to bucket "photos".
func StartUpload(t testing.TB, enc sse.Encrypter, key string) *Upload {
	t.Helper()
	m, err := sse.StartMultipart(context.Background(), enc, sse.Object{Bucket: "photos", Key: key})
	require.NoError(t, err)
	return &Upload{M: m, EnvelopeSize: blob.DefaultEnvelopeSize, key: key, parts: make(map[int]*UploadedPart)}
}

// Part uploads a part, in the place of an earlier attempt at it.
func (u *Upload) Part(t testing.TB, number int, plain []byte) *UploadedPart {
	t.Helper()
	p, err := u.M.Part(number)
	require.NoError(t, err)
	var dst bytes.Buffer
	w := p.Writer(&dst)
	_, err = w.Write(plain)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	receipt, err := p.Receipt()
	require.NoError(t, err)
	u.parts[number] = &UploadedPart{plain, dst.Bytes(), receipt}
	return u.parts[number]
}

// Object completes the upload. It returns the stored object and its plaintext.
func (u *Upload) Object(t testing.TB) (object, plain []byte) {
	t.Helper()
	var receipts [][]byte
	for _, number := range slices.Sorted(maps.Keys(u.parts)) {
		p := u.parts[number]
		object, plain, receipts = append(object, p.Stored...), append(plain, p.Plain...), append(receipts, p.Receipt)
	}
	object = append(object, make([]byte, u.Filler)...)
	var err error
	u.Trailer, err = u.M.Trailer(receipts, &sse.TrailerOptions{Filler: int64(u.Filler), EnvelopeSize: u.EnvelopeSize})
	require.NoError(t, err)
	return append(object, u.Trailer...), plain
}

// Put completes the upload and stores the object with its hint, and with the metadata
// owner=me. It returns the plaintext.
func (u *Upload) Put(t testing.TB, inner *gcblob.Bucket) (plain []byte) {
	t.Helper()
	return u.PutAs(t, inner, gcblob.WriterOptions{ContentType: "image/jpeg", Metadata: map[string]string{"owner": "me"}})
}

// PutAs is Put with what the caller says of the object.
func (u *Upload) PutAs(t testing.TB, inner *gcblob.Bucket, opts gcblob.WriterOptions) (plain []byte) {
	t.Helper()
	object, plain := u.Object(t)
	state, err := u.M.State(context.Background(), nil)
	require.NoError(t, err)
	env := new(sse.Envelope)
	require.NoError(t, env.UnmarshalBinary(state))
	opts.Metadata = stored.HintOf(env).Metadata(opts.Metadata)
	if opts.ContentEncoding != "" {
		opts.Metadata[stored.ContentEncoding], opts.ContentEncoding = opts.ContentEncoding, ""
	}
	require.NoError(t, inner.WriteAll(context.Background(), u.key, object, &opts))
	return plain
}

// PutComposite stores an object that was uploaded in parts of these sizes. It returns
// the plaintext.
func PutComposite(t testing.TB, inner *gcblob.Bucket, key string, enc sse.Encrypter, sizes ...int) []byte {
	t.Helper()
	u := StartUpload(t, enc, key)
	for i, size := range sizes {
		u.Part(t, i+1, Content(size + i)[i:])
	}
	return u.Put(t, inner)
}
