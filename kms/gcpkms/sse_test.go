package gcpkms_test

import (
	"strings"
	"testing"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// TestMode: SSE-KMS end to end, through a rotation and in bad times.
func TestMode(t *testing.T) {
	s := newServer(t)
	keyID := s.CreateKey("photos")
	mode, err := sse.NewKMS(newClient(t, s), keyID, nil)
	require.NoError(t, err)
	obj := sse.Object{Bucket: "photos", Key: "cat.jpg", Context: kms.Context{"tenant": "ü"}}
	var report kms.Report
	e, err := mode.Encrypt(kms.WithReport(t.Context(), &report), obj)
	require.NoError(t, err)
	require.Equal(t, "1", report.KeyVersion)
	env := e.Envelope()
	require.Equal(t, keyID, env.KeyID())

	s.Rotate(keyID)
	d, err := mode.Decrypt(t.Context(), obj, env)
	require.NoError(t, err)
	rewrapped, err := mode.Rewrap(t.Context(), obj, d)
	require.NoError(t, err)
	s.SetState(keyID+"/cryptoKeyVersions/1", kmspb.CryptoKeyVersion_DESTROYED)
	_, err = mode.Decrypt(t.Context(), obj, rewrapped)
	require.NoError(t, err, "rewrapped under the version that is left")
	_, err = mode.Decrypt(t.Context(), obj, env)
	require.ErrorIs(t, err, kms.ErrPendingDeletion)
	require.NotErrorIs(t, err, sse.ErrKey, "the object is not called broken")
	_, err = mode.Decrypt(t.Context(), sse.Object{Bucket: "photos", Key: "dog.jpg", AnyContext: true}, rewrapped)
	require.ErrorIs(t, err, sse.ErrKey)
	require.ErrorIs(t, err, kms.ErrCiphertext, "Google refuses another object's context")
}

// TestSameKey: a key's versions are the key, but name no key for a request.
func TestSameKey(t *testing.T) {
	s := newServer(t)
	c, keyID := newClient(t, s), s.CreateKey("photos")
	other := strings.Replace(keyID, "cryptoKeys/", "cryptoKeys/x-", 1)
	for _, tc := range []struct {
		name, id string
		same     bool
	}{
		{keyID, keyID, true},
		{keyID, keyID + "/cryptoKeyVersions/7", true},
		{keyID, other, false},
		{keyID, other + "/cryptoKeyVersions/7", false},
		{keyID + "/cryptoKeyVersions/7", keyID + "/cryptoKeyVersions/7", false},
		{"alias/photos", keyID, false},
	} {
		same, known := c.SameKey(tc.name, tc.id)
		require.True(t, known)
		require.Equal(t, tc.same, same, "%s %s", tc.name, tc.id)
	}
	for _, none := range []string{keyID + "/cryptoKeyVersions/7", "alias/photos"} {
		_, err := sse.NewKMS(c, none, nil)
		require.ErrorIs(t, err, sse.ErrInvalid)
	}
}
