package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms/awskms/awskmstest"
)

// TestKMSRootConfiguration: what a vendor's client lacks is said, and what the
// environment and the URL say is heeded.
func TestKMSRootConfiguration(t *testing.T) {
	workspace(t)
	nobody(t)
	here := files(t)
	create := []string{"ring", "create", "--ring", "new.ring", "--root-kms-key"}
	t.Run("AWS without a region", func(t *testing.T) {
		blobseal(args(create, "awskms:///alias/rings")...).fails(t, 1, "awskms:///alias/rings: no region: add ?region=REGION, or set AWS_REGION")
	})
	t.Run("AWS without credentials", func(t *testing.T) {
		blobseal(args(create, "awskms:///alias/rings?region=eu-west-1")...).fails(t, 6, "credentials")
	})
	t.Run("AWS without the profile", func(t *testing.T) {
		blobseal(args(create, "awskms:///alias/rings?profile=nobody")...).fails(t, 1, "awskms:///alias/rings: failed to get shared config profile, nobody")
	})
	t.Run("Google without credentials", func(t *testing.T) {
		t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "none.json")
		blobseal(args(create, "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k")...).fails(t, 5, "none.json")
	})
	t.Run("Azure without credentials", func(t *testing.T) {
		t.Setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
		adjust(t, func(c *console.Console) {
			c.Clouds.Azure = &azkeys.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: new(azureVault)}}
		})
		blobseal(args(create, "azurekeyvault://photos.vault.azure.net/keys/rings")...).fails(t, 6, "AZURE_TENANT_ID")
	})
	t.Run("Azure with another algorithm", func(t *testing.T) {
		newAzureBed(t)
		blobseal(args(create, "azurekeyvault://photos.vault.azure.net/keys/rings?algorithm=none")...).fails(t, 1, `algorithm "none"`)
	})
	t.Run("Vault without an address", func(t *testing.T) {
		t.Setenv("VAULT_ADDR", "://")
		blobseal(args(create, "hashivault://rings")...).fails(t, 1, "hashivault://rings: ")
	})
	t.Run("Vault with a mount that is none", func(t *testing.T) {
		blobseal(args(create, "hashivault://../keys/rings")...).fails(t, 1, `mount ".."`)
	})
	require.Equal(t, here, files(t))

	t.Run("a directory whose name is no URL", func(t *testing.T) {
		require.NoError(t, os.Rename("my.kms", "my kms?"))
		ok(t, "ring", "create", "--ring", "local", "--root-kms-key", "localkms://my%20kms%3F", "--root-key-file", "root.key")
		ok(t, "ring", "list", "--ring", "local", "--root-kms-key", "localkms://"+filepath.Join(workingDirectory(t), "my kms%3f")+"?key=alias/blobseal/default", "--root-key-file", "root.key")
	})
	t.Run("an ARN says the region", func(t *testing.T) {
		s := awskmstest.NewServer()
		t.Cleanup(s.Close)
		var asked []string
		s.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			asked = append(asked, strings.Split(r.Header.Get("Authorization"), "/")[2])
			return false
		})
		useAWS(t, s)
		t.Setenv("AWS_REGION", "eu-west-1")
		key := s.CreateKey()
		ok(t, "ring", "create", "--ring", "a", "--root-kms-key", "awskms:///"+key)
		_, id, _ := strings.Cut(key, "key/")
		for _, elsewhere := range []string{"awskms://" + key + "?region=eu-north-1", "awskms://" + id} {
			blobseal("ring", "list", "--ring", "a", "--root-kms-key", elsewhere).fails(t, 3, "Credential should be scoped to a valid region")
		}
		require.Equal(t, []string{"us-east-1", "us-east-1", "eu-north-1", "eu-west-1"}, asked)
	})
	t.Run("the token that vault login left", func(t *testing.T) {
		var asked []string
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.Header.Get("X-Vault-Token")+" "+r.Header.Get("X-Vault-Namespace")+" "+r.URL.Path)
			w.WriteHeader(http.StatusForbidden)
			w.Write([]byte(`{"errors":["permission denied"]}`))
		}))
		t.Cleanup(s.Close)
		t.Setenv("VAULT_ADDR", s.URL)
		t.Setenv("VAULT_NAMESPACE", "teams")
		require.NoError(t, os.WriteFile(filepath.Join(os.Getenv("HOME"), ".vault-token"), []byte("left\n"), 0o600))
		res := blobseal(args(create, "hashivault://keys/transit/keys/rings")...)
		res.fails(t, 3, "the service refuses: ")
		require.NotContains(t, res.errout, "no token")
		require.NotContains(t, res.errout, "left")
		require.Equal(t, []string{"left teams /v1/keys/transit/keys/rings"}, asked)
	})
}

func TestRootURLs(t *testing.T) {
	workspace(t)
	write(t, "plain", []byte("x"))
	here := files(t)
	for text, says := range map[string]string{
		"alias/rings":                   `--root-kms-key "alias/rings": want a URL: awskms://, gcpkms://`,
		"":                              "the ring needs a root",
		"vault://rings":                 "--root-kms-key: vault:// is unknown; want awskms://, gcpkms://, azurekeyvault://, hashivault:// or localkms://",
		"awskms://":                     "want awskms:///KEY, where",
		"awskms:///":                    "want awskms:///KEY, where",
		"awskms:///alias/rings?zone=a":  `awskms:// has no parameter "zone"`,
		"awskms:///alias/rings?region=": `parameter "region": give one value`,
		"awskms:///alias/rings?region=a&region=b": `parameter "region": give one value`,
		"awskms:///alias/rings?region=%zz":        "invalid URL escape",
		"gcpkms://rings":                          "want gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/KEY",
		"gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1": "want gcpkms://projects/P",
		"azurekeyvault://photos":                      "want azurekeyvault://NAME.vault.azure.net/keys/KEY",
		"azurekeyvault://me:secret@photos/keys/rings": "want azurekeyvault://NAME.vault.azure.net/keys/KEY",
		"hashivault://":                               "want hashivault://KEY, or",
		"hashivault://transit/rings":                  "want hashivault://KEY, or",
		"localkms://":                                 "want localkms://DIR?key=KEY",
		"localkms://my.kms?key=alias/photos":          "the key service of --root-kms-key needs its root: give --root-key-file, --passphrase-file or BLOBSEAL_PASSPHRASE",
	} {
		t.Run(text, func(t *testing.T) {
			blobseal("ring", "create", "--ring", "new.ring", "--root-kms-key", text).fails(t, 2, says)
			require.Equal(t, here, files(t))
		})
	}
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"two roots":            {args("ring", "list", ring, "--root-kms-key", "hashivault://rings"), "--root-key-file and --root-kms-key: give one of them only"},
		"two roots of a local": {args("ring", "list", ring, "--root-kms-key", "localkms://my.kms", "--passphrase-file", "plain"), "--root-key-file and --passphrase-file: give one"},
		"generated, too":       {args("ring", "create", "--ring", "new", "--generate-root-key", "k", "--root-kms-key", "hashivault://rings"), "--generate-root-key and --root-kms-key: give one"},
		"of no ring":           {args("encrypt", "--root-kms-key", "hashivault://rings", "plain", "out"), "--root-kms-key: give --ring or --kms with it"},
		"new":                  {args("ring", "change-root", ring, "--new-root-kms-key", "rings"), `--new-root-kms-key "rings": want a URL`},
		"two new":              {args("ring", "change-root", ring, "--new-root-kms-key", "hashivault://rings", "--new-root-key-file", "my.key"), "--new-root-key-file and --new-root-kms-key: give one"},
		"new local":            {args("ring", "change-root", ring, "--new-root-kms-key", "localkms://my.kms"), "the key service of --new-root-kms-key needs its root: give --new-root-key-file, --new-passphrase-file or BLOBSEAL_NEW_PASSPHRASE"},
		"target":               {args("rewrap", customer, "--to-ring", "my.ring", "--to-root-kms-key", "rings", "sealed"), `--to-root-kms-key "rings": want a URL`},
		"target of none":       {args("rewrap", customer, "--to-root-kms-key", "hashivault://rings", "sealed"), "--to-root-kms-key: give --to-ring or --to-kms with it"},
		"principal":            {args("ring", "list", ring, "--principal", "user:bob"), "--principal: give --root-kms-key localkms://DIR with it"},
		"principal of create":  {args("ring", "create", "--ring", "new", "--root-key-file", "root.key", "--principal", "user:bob"), "--principal: give"},
		"principal of change":  {args("ring", "change-root", ring, "--new-root-key-file", "my.key", "--principal", "user:bob"), "--principal: give"},
		"principal of a cloud": {args("encrypt", "--ring", "my.ring", "--root-kms-key", "hashivault://rings", "--principal", "user:bob", "plain", "out"), "--principal: give --kms with it"},
	} {
		t.Run(name, func(t *testing.T) {
			blobseal(test.args...).fails(t, 2, test.says)
			require.Equal(t, here, files(t))
		})
	}
	t.Run("flag and variable", func(t *testing.T) {
		t.Setenv("BLOBSEAL_PASSPHRASE", "secret")
		blobseal("ring", "list", "--ring", "my.ring", "--root-kms-key", "hashivault://rings").fails(t, 2, "--root-kms-key and BLOBSEAL_PASSPHRASE: give one of them only")
	})
}
