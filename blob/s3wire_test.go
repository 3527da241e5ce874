package blob_test

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/s3wire"
)

// TestCiphersOfS3Requests: what package s3wire makes for one request serves a bucket,
// in all three modes.
func TestCiphersOfS3Requests(t *testing.T) {
	ctx := t.Context()
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{1}, 32))
	require.NoError(t, err)
	ring, err := keyring.Create(ctx, keyring.NewMemStore(), root, nil)
	require.NoError(t, err)
	managed := sse.NewManaged(ring)
	keys, err := s3wire.NewKeys(s3wire.KeysOptions{Managed: managed, KMS: kmstest.NewFake("photos"), DefaultKey: "photos"})
	require.NoError(t, err)
	inner := memblob.OpenBucket(nil)
	defer inner.Close()
	bucket, err := blob.NewBucket(inner, "b", managed, &blob.Options{Policy: blob.Policy{AllowCustomerKeys: true}})
	require.NoError(t, err)
	configuration := &s3wire.Configuration{AllowCustomerKeys: true}

	customerKey := bytes.Repeat([]byte{2}, 32)
	sum := md5.Sum(customerKey)
	customer := http.Header{}
	customer.Set(s3wire.HeaderCustomerAlgorithm, "AES256")
	customer.Set(s3wire.HeaderCustomerKey, base64.StdEncoding.EncodeToString(customerKey))
	customer.Set(s3wire.HeaderCustomerKeyMD5, base64.StdEncoding.EncodeToString(sum[:]))
	kmsHeader := http.Header{}
	kmsHeader.Set(s3wire.HeaderEncryption, "aws:kms")

	for name, c := range map[string]struct{ write, read http.Header }{
		"SSE-S3":  {},
		"SSE-KMS": {write: kmsHeader},
		"SSE-C":   {write: customer, read: customer},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := s3wire.ParseWrite(c.write.Values, true)
			require.NoError(t, err)
			cipher, err := keys.ForWrite(w, configuration)
			require.NoError(t, err)
			writer, err := bucket.With(blob.Request{Cipher: cipher})
			require.NoError(t, err)
			require.NoError(t, writer.WriteAll(ctx, name, []byte("meow"), nil))
			wrote, read := make(http.Header), make(http.Header)
			cipher.SetHeaders(wrote.Set)

			q, err := s3wire.ParseRead(c.read.Values, true)
			require.NoError(t, err)
			opener := keys.ForRead(q)
			reader, err := bucket.With(blob.Request{Decrypters: sse.ByMode{
				sse.ModeManaged: opener, sse.ModeKMS: opener, sse.ModeCustomer: opener,
			}})
			require.NoError(t, err)
			p, err := reader.ReadAll(ctx, name)
			require.NoError(t, err)
			require.Equal(t, "meow", string(p))
			opener.SetHeaders(read.Set)
			require.NotEmpty(t, read)
			require.Equal(t, wrote, read)

			r, err := reader.NewRangeReader(ctx, name, 1, 2, &gcblob.ReaderOptions{})
			require.NoError(t, err)
			require.NoError(t, r.Close())
		})
	}
	t.Run("SSE-C object without its key", func(t *testing.T) {
		opener := keys.ForRead(nil)
		reader, err := bucket.With(blob.Request{Decrypters: sse.ByMode{
			sse.ModeManaged: opener, sse.ModeKMS: opener, sse.ModeCustomer: opener,
		}})
		require.NoError(t, err)
		_, err = reader.ReadAll(ctx, "SSE-C")
		require.Equal(t, "InvalidRequest", s3wire.FromError(err).Code)
		require.Equal(t, 400, s3wire.FromError(err).Status())
	})
}
