package s3wire_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/s3wire"
)

// FuzzParseWrite: what parses has one mode, and what does not parse is an *Error
// that shows nothing of the customer's key.
func FuzzParseWrite(f *testing.F) {
	f.Add("", "", "", "", "", "", "", true)
	f.Add("aws:kms", "photos", encoded(`{"a":"b"}`), "true", "", "", "", false)
	f.Add("", "", "", "", "AES256", customerKey, customerMD5, true)
	f.Fuzz(func(t *testing.T, algorithm, keyID, context, bucketKey, customerAlgorithm, key, sum string, tls bool) {
		h := make(http.Header)
		for name, value := range map[string]string{
			s3wire.HeaderEncryption: algorithm, s3wire.HeaderKeyID: keyID, s3wire.HeaderContext: context, s3wire.HeaderBucketKey: bucketKey,
			s3wire.HeaderCustomerAlgorithm: customerAlgorithm, s3wire.HeaderCustomerKey: key, s3wire.HeaderCustomerKeyMD5: sum,
		} {
			if value != "" {
				h.Set(name, value)
			}
		}
		w, err := s3wire.ParseWrite(h.Values, tls)
		if err != nil {
			var e *s3wire.Error
			require.True(t, errors.As(err, &e))
			require.Equal(t, 400, e.Status())
			if len(key) >= 16 {
				require.NotContains(t, fmt.Sprintf("%v %+v", e, e), key)
			}
			return
		}
		if w.Customer != nil {
			require.True(t, tls)
			require.Equal(t, &s3wire.Write{Customer: w.Customer}, w)
			require.Equal(t, sum, w.Customer.KeyMD5())
		}
		if w.Algorithm == "" {
			require.Empty(t, w.KeyID)
			require.Nil(t, w.Context)
		}
		for name := range w.Context {
			require.NotContains(t, name, "aws:s3:arn")
		}
	})
}

// FuzzParseContext: a context that parses is what the response repeats, up to the
// JSON's spelling.
func FuzzParseContext(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":"b"}`, `{"a":"\ud800","é":"<&>"}`, `{"a":"b","a":"c"}`, `null`, `[1]`, "\xff"} {
		f.Add([]byte(seed))
	}
	fake := kmstest.NewFake("default")
	keys, err := s3wire.NewKeys(s3wire.KeysOptions{KMS: fake, DefaultKey: "default"})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, raw []byte) {
		h := headers(s3wire.HeaderEncryption, "aws:kms", s3wire.HeaderContext, base64.StdEncoding.EncodeToString(raw))
		w, err := s3wire.ParseWrite(h.Values, true)
		if err != nil {
			requireCode(t, "InvalidArgument", err)
			return
		}
		defer fake.Forget() // its record of calls
		cipher, err := keys.ForWrite(w, nil)
		require.NoError(t, err)
		e, err := cipher.Encrypt(t.Context(), sse.Object{Bucket: "b", Key: "k"})
		if err != nil {
			requireCode(t, "InvalidArgument", err)
			return
		}
		out := make(http.Header)
		cipher.SetHeaders(out.Set)
		again, err := s3wire.ParseWrite(headers(s3wire.HeaderEncryption, "aws:kms", s3wire.HeaderContext, out.Get(s3wire.HeaderContext)).Values, true)
		if len(out.Get(s3wire.HeaderContext)) <= 8192 { // escapes may be longer than what they stand for
			require.NoError(t, err)
			require.Equal(t, w.Context, again.Context)
		}
		_, err = keys.ForRead(nil).Decrypt(t.Context(), sse.Object{Bucket: "b", Key: "k"}, e.Envelope())
		require.NoError(t, err)
	})
}

// FuzzParseConfiguration: what parses has an XML that parses to the same.
func FuzzParseConfiguration(f *testing.F) {
	f.Add([]byte(rule(byDefault(aes256))))
	f.Add([]byte(rule(byDefault(awsKMS+photos) + "<BucketKeyEnabled>true</BucketKeyEnabled><BlockedEncryptionTypes><EncryptionType>NONE</EncryptionType></BlockedEncryptionTypes>")))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := s3wire.ParseConfiguration(bytes.NewReader(raw))
		if err != nil {
			var e *s3wire.Error
			require.True(t, errors.As(err, &e))
			require.Contains(t, []int{400, 501}, e.Status())
			return
		}
		out, err := c.XML()
		require.NoError(t, err)
		again, err := s3wire.ParseConfiguration(bytes.NewReader(out))
		require.NoError(t, err, "%s", out)
		require.Equal(t, c, again)
	})
}
