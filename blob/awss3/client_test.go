package awss3_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob/awss3"
	"github.com/blobseal/blobseal/sse"
)

// TestNew: which arguments New refuses.
func TestNew(t *testing.T) {
	api := s3.New(s3.Options{})
	cipher, err := sse.NewCustomer([]byte("a key of exactly 32 random bytes"))
	require.NoError(t, err)
	enc, err := cipher.Encrypt(t.Context(), sse.Object{})
	require.NoError(t, err)
	least := enc.Envelope().Size()
	for name, tc := range map[string]struct {
		api    awss3.API
		cipher sse.Cipher
		opts   *awss3.Options
		err    error
	}{
		"no client":              {nil, cipher, nil, sse.ErrInvalid},
		"a nil client":           {(*s3.Client)(nil), cipher, nil, sse.ErrInvalid},
		"no cipher":              {api, nil, nil, sse.ErrInvalid},
		"customer keys":          {api, cipher, nil, awss3.ErrCustomerKey},
		"an envelope too small":  {api, cipher, &awss3.Options{AllowCustomerKeys: true, EnvelopeSize: least - 1}, sse.ErrInvalid},
		"the smallest envelope":  {api, cipher, &awss3.Options{AllowCustomerKeys: true, EnvelopeSize: least}, nil},
		"the largest envelope":   {api, cipher, &awss3.Options{AllowCustomerKeys: true, EnvelopeSize: sse.MaxEnvelopeSize}, nil},
		"an envelope too large":  {api, cipher, &awss3.Options{AllowCustomerKeys: true, EnvelopeSize: sse.MaxEnvelopeSize + 1}, sse.ErrInvalid},
		"an envelope below zero": {api, cipher, &awss3.Options{AllowCustomerKeys: true, EnvelopeSize: -1}, sse.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := awss3.New(tc.api, tc.cipher, tc.opts)
			require.ErrorIs(t, err, tc.err)
		})
	}
}
