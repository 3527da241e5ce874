package vaultkms_test

import (
	"strings"
	"testing"

	vault "github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/kms/vaultkms"
	"github.com/blobseal/blobseal/sse"
)

// TestForms: of a ciphertext that Transit would read in more than one form, one is
// accepted, and the others are not sent.
func TestForms(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		c := mustCreate(t, s)
		k, err := c.GenerateDataKey(t.Context(), photos, ec)
		require.NoError(t, err)
		encoded := strings.TrimPrefix(string(k.Ciphertext), "vault:v1:")
		s.Asked()
		for _, ciphertext := range []string{
			"", "vault:", "vault:v1:", "vault:v1", encoded,
			"vault:v0:" + encoded, "vault:v01:" + encoded, "vault:v+1:" + encoded, "vault:v-1:" + encoded, "vault:1:" + encoded,
			"vault:v1:" + encoded[:4] + "\n" + encoded[4:], "vault:v1:" + encoded + "\n", "vault:v1:" + encoded + "=",
			"\nvault:v1:" + encoded, "Vault:v1:" + encoded, "vault:v1:" + encoded + ":", "vault:v9999999999:" + encoded,
			"vault:v1:" + strings.Repeat("AAAA", 1000), "vault:v1:AB==", // where AA== is the same byte
		} {
			_, err := c.Decrypt(t.Context(), photos, []byte(ciphertext), ec)
			kmstest.RequireKind(t, err, kms.ErrCiphertext)
		}
		require.Empty(t, s.Asked())
	})
}

// TestKeyIDs: an id comes out of an envelope, and leads to no other path.
func TestKeyIDs(t *testing.T) {
	s := newFake(t)
	c := mustCreate(t, s)
	k, err := c.GenerateDataKey(t.Context(), photos, ec)
	require.NoError(t, err)
	s.Asked()
	for _, keyID := range []string{
		"", "transit/keys", "transit/keys/", "/transit/keys/photos", "transit/keys/photos/", "transit//keys/photos",
		"transit/keys/../keys/photos", "transit/keys/..", "..", ".", "../../sys/seal", "transit/keys/photos/rotate", "photos/rotate",
		"transit/keys/transit/keys/photos", "other/keys/photos", "TRANSIT/keys/photos", "photos?version=1", "photos#", "photos%2frotate",
		"photos ", "photos\n", "фото", ".photos", "photos.", "-photos", strings.Repeat("x", 257),
		"arn:aws:kms:us-east-1:111122223333:key/1234abcd", "https://vault.azure.net/keys/photos/1",
	} {
		_, err := c.GenerateDataKey(t.Context(), keyID, ec)
		kmstest.RequireKind(t, err, kms.ErrNotFound)
		_, err = c.Decrypt(t.Context(), keyID, k.Ciphertext, ec)
		kmstest.RequireKind(t, err, kms.ErrNotFound)
	}
	require.Empty(t, s.Asked())
	for _, name := range []string{"x", "a.b-c_d", "a..b", strings.Repeat("x", 256)} { // Transit has them
		s.createKey(t, name)
		k, err := c.GenerateDataKey(t.Context(), name, ec)
		require.NoError(t, err, name)
		require.Equal(t, "transit/keys/"+name, k.KeyID)
	}
}

func TestMounts(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.mount(t, "teams/photos/transit")
		s.write(t, "teams/photos/transit/keys/photos", map[string]any{"derived": true})
		s.createKey(t, "photos")
		c, err := vaultkms.New(s.newVault(t), &vaultkms.Options{Mount: "/teams/photos/transit/"})
		require.NoError(t, err)
		k, err := c.GenerateDataKey(t.Context(), "photos", ec)
		require.NoError(t, err)
		require.Equal(t, "teams/photos/transit/keys/photos", k.KeyID)
		p, err := c.Decrypt(t.Context(), k.KeyID, k.Ciphertext, ec)
		require.NoError(t, err)
		require.Equal(t, k.Plaintext(), p)

		_, err = s.client(t).Decrypt(t.Context(), k.KeyID, k.Ciphertext, ec)
		kmstest.RequireKind(t, err, kms.ErrNotFound) // which is not "another key of the same name"
		_, err = s.client(t).Decrypt(t.Context(), "photos", k.Ciphertext, ec)
		kmstest.RequireKind(t, err, kms.ErrCiphertext)

		c, err = vaultkms.New(s.newVault(t), &vaultkms.Options{Mount: "nothing/here"})
		require.NoError(t, err)
		_, err = c.GenerateDataKey(t.Context(), "photos", ec)
		kmstest.RequireKind(t, err, kms.ErrNotFound)
	})
	_, err := vaultkms.New(nil, nil)
	require.ErrorIs(t, err, kms.ErrInvalid)
	for _, mount := range []string{"/", "a//b", "..", "a/../b", "a/.", "a\nb", "a?b", "a%2fb"} {
		_, err := vaultkms.New(new(vault.Client), &vaultkms.Options{Mount: mount})
		require.ErrorIs(t, err, kms.ErrInvalid, "%q", mount)
	}
}

// TestNamespaces: the namespace is that of Vault's client, or begins the mount.
func TestNamespaces(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.createKey(t, "photos")
		k, err := s.client(t).GenerateDataKey(t.Context(), "photos", ec)
		require.NoError(t, err)

		v := s.newVault(t)
		v.ClearNamespace()
		c, err := vaultkms.New(v, nil)
		require.NoError(t, err)
		_, err = c.Decrypt(t.Context(), k.KeyID, k.Ciphertext, ec)
		kmstest.RequireKind(t, err, kms.ErrNotFound)
		c, err = vaultkms.New(v.WithNamespace(s.namespace), nil)
		require.NoError(t, err)
		_, err = c.Decrypt(t.Context(), k.KeyID, k.Ciphertext, ec)
		require.NoError(t, err)
		c, err = vaultkms.New(v, &vaultkms.Options{Mount: s.namespace + "/transit"})
		require.NoError(t, err)
		_, err = c.Decrypt(t.Context(), s.namespace+"/transit/keys/photos", k.Ciphertext, ec)
		require.NoError(t, err)
	})
}

// TestPolicies: the client asks for what the documentation's policies allow, and
// for nothing else. Vault takes a PUT for an update where nothing can be created.
func TestPolicies(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		c := mustCreate(t, s)
		s.Asked()
		k, err := c.GenerateDataKey(t.Context(), "photos", ec)
		require.NoError(t, err)
		require.Equal(t, []string{"GET transit/keys/photos", "PUT transit/datakey/plaintext/photos"}, s.Asked())
		_, err = s.client(t).Decrypt(t.Context(), "photos", k.Ciphertext, ec)
		require.NoError(t, err)
		require.Equal(t, []string{"GET transit/keys/photos", "PUT transit/decrypt/photos"}, s.Asked())
		// A key that is missing is not made.
		_, err = c.GenerateDataKey(t.Context(), "none", ec)
		require.ErrorIs(t, err, kms.ErrNotFound)
		_, err = c.GenerateDataKey(t.Context(), "none", ec)
		require.ErrorIs(t, err, kms.ErrNotFound)
	})
}

// TestSameKey: a name and its path in the mount are one key.
func TestSameKey(t *testing.T) {
	v := newFake(t).newVault(t)
	c, err := vaultkms.New(v, &vaultkms.Options{Mount: "teams/transit"})
	require.NoError(t, err)
	for _, tc := range []struct {
		name, id string
		same     bool
	}{
		{"photos", "teams/transit/keys/photos", true},
		{"teams/transit/keys/photos", "teams/transit/keys/photos", true},
		{"photos", "teams/transit/keys/other", false},
		{"photos", "transit/keys/photos", false},
		{"transit/keys/photos", "transit/keys/photos", false},
		{"alias/photos", "teams/transit/keys/photos", false},
	} {
		same, known := c.SameKey(tc.name, tc.id)
		require.True(t, known)
		require.Equal(t, tc.same, same, "%s %s", tc.name, tc.id)
	}
	_, err = sse.NewKMS(c, "alias/photos", nil)
	require.ErrorIs(t, err, sse.ErrInvalid, "no name of a key")
}
