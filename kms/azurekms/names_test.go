package azurekms_test

import (
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/azurekms"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

// TestKeyIDs: an id comes out of an envelope, and leads to no other path or host.
func TestKeyIDs(t *testing.T) {
	v := newPhotos(t)
	c := v.client(t, nil)
	k, err := c.GenerateDataKey(t.Context(), "photos", ec)
	require.NoError(t, err)
	v.Asked()
	for _, id := range []string{
		"", "/", "photos/", "/photos", "photos//1", "photos/1/unwrapkey", "..", "../secrets/x", "photos/..", "photos/../x", "photos?x=1", "photos#",
		"photos%2f1", "photos 1", "photos\n", "фото", "photos_1", strings.Repeat("x", 128), "photos/" + strings.Repeat("x", 65),
		"http://" + host + "/keys/photos", "https://" + host, "https://" + host + "/", "https://" + host + "/keys/", "https://" + host + "/secrets/photos",
		"https://user@" + host + "/keys/photos", "https:///keys/photos", "https://" + host + "/keys/photos/1/2", k.KeyID + "?x", k.KeyID + "/", " " + k.KeyID,
		"transit/keys/photos", "arn:aws:kms:us-east-1:111122223333:key/1234abcd",
	} {
		_, err := c.GenerateDataKey(t.Context(), id, ec)
		kmstest.RequireKind(t, err, kms.ErrNotFound)
		_, err = c.Decrypt(t.Context(), id, k.Ciphertext, ec)
		kmstest.RequireKind(t, err, kms.ErrNotFound)
	}
	require.Empty(t, v.Asked())
}

// TestVaults: the same name and version in two vaults, as after a restore.
func TestVaults(t *testing.T) {
	old := newPhotos(t)
	k, err := old.client(t, nil).GenerateDataKey(t.Context(), "photos", ec)
	require.NoError(t, err)
	restored := newVault(t)
	restored.host = "photos-2.vault.azure.net"
	restored.keys = old.keys

	c := restored.client(t, nil)
	_, err = c.Decrypt(t.Context(), k.KeyID, k.Ciphertext, ec)
	kmstest.RequireKind(t, err, kms.ErrNotFound)
	require.Contains(t, err.Error(), host)
	_, err = c.GenerateDataKey(t.Context(), k.KeyID, ec)
	kmstest.RequireKind(t, err, kms.ErrNotFound)

	c = restored.client(t, &azurekms.Options{FormerVaults: []string{"https://" + strings.ToUpper(host) + "/"}})
	p, err := c.Decrypt(t.Context(), k.KeyID, k.Ciphertext, ec)
	require.NoError(t, err)
	require.Equal(t, k.Plaintext(), p)
	fresh, err := c.GenerateDataKey(t.Context(), k.KeyID, ec)
	require.NoError(t, err)
	require.Equal(t, restored.id("photos", versionOf(k.KeyID)), fresh.KeyID, "new objects name the new vault")
	_, err = c.Decrypt(t.Context(), strings.Replace(k.KeyID, host, "third.vault.azure.net", 1), k.Ciphertext, ec)
	kmstest.RequireKind(t, err, kms.ErrNotFound)
}

func TestArguments(t *testing.T) {
	_, err := azurekms.New(nil, nil)
	require.ErrorIs(t, err, kms.ErrInvalid)
	for _, opts := range []azurekms.Options{
		{Algorithm: azkeys.EncryptionAlgorithmRSA15}, {Algorithm: azkeys.EncryptionAlgorithmRSAOAEP}, {Algorithm: "none"},
		{FormerVaults: []string{""}}, {FormerVaults: []string{host}}, {FormerVaults: []string{"http://" + host}}, {FormerVaults: []string{"https://" + host + "/keys"}},
	} {
		_, err := azurekms.New(new(azkeys.Client), &opts)
		require.ErrorIs(t, err, kms.ErrInvalid, "%+v", opts)
	}
	// An algorithm that the key is not for.
	v := newPhotos(t)
	_, err = v.client(t, algorithms["A256KW"]).GenerateDataKey(t.Context(), "photos", ec)
	kmstest.RequireKind(t, err, kms.ErrInvalid)
}

// TestSameKey: the versions of a key are one key, and names have no case.
func TestSameKey(t *testing.T) {
	const photos, former = "https://photos.vault.azure.net/keys/", "https://former.vault.azure.net/keys/"
	c := newPhotos(t).client(t, &azurekms.Options{FormerVaults: []string{"https://former.vault.azure.net"}})
	for _, tc := range []struct {
		name, id string
		same     bool
	}{
		{"cats", photos + "cats/1", true},
		{"CATS", photos + "cats/1", true},
		{"cats/2", photos + "cats/1", true},
		{photos + "cats", photos + "cats/1", true},
		{photos + "cats/2", photos + "cats/1", true},
		{"https://PHOTOS.vault.azure.net/keys/cats", photos + "cats/1", true},
		{photos + "cats/2", former + "cats/1", true},
		{"cats", photos + "dogs/1", false},
		{"cats", photos + "cats-2/1", false},
		{photos + "cats", "https://attacker.vault.azure.net/keys/cats/1", false},
		{"cats", "", false},
		{"alias/cats/1", photos + "cats/1", false},
	} {
		same, known := c.SameKey(tc.name, tc.id)
		require.True(t, known, "%s %s", tc.name, tc.id)
		require.Equal(t, tc.same, same, "%s %s", tc.name, tc.id)
	}
	_, err := sse.NewKMS(c, "alias/cats/1", nil)
	require.ErrorIs(t, err, sse.ErrInvalid, "no name of a key")
}
