package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/internal/testbed/transit"

	vault "github.com/hashicorp/vault/api"
	"github.com/mitchellh/go-homedir"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms/awskms/awskmstest"
	"github.com/blobseal/blobseal/kms/gcpkms/gcpkmstest"
)

// nobodyListens is an address that refuses connections.
func nobodyListens(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

// nobody takes from the test the credentials of whoever runs it.
func nobody(t *testing.T) {
	t.Helper()
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		for _, prefix := range []string{"AWS_", "GOOGLE_", "CLOUDSDK_", "AZURE_", "VAULT_", "BAO_", "MSI_", "IDENTITY_"} {
			if strings.HasPrefix(name, prefix) {
				t.Setenv(name, "") // which restores it
				os.Unsetenv(name)
			}
		}
	}
	t.Setenv("HOME", t.TempDir())
	homedir.Reset() // which Vault's client has of it
	t.Cleanup(homedir.Reset)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

// env sets a variable until leave.
func env(t *testing.T, name, value string) (enter, leave func()) {
	before := os.Getenv(name)
	return func() { t.Setenv(name, value) }, func() { t.Setenv(name, before) }
}

func newLocalBed(t *testing.T) *rootBed {
	for _, alias := range []string{"alias/rings", "alias/other"} {
		ok(t, args("kms", "create-key", service, "--alias", alias)...)
	}
	local := func(words ...string) func() {
		return func() { ok(t, args("kms", words, service, "--principal", "user:admin")...) }
	}
	arn := keyOf(t, "alias/rings").ARN
	return &rootBed{
		key: "localkms://my.kms?key=alias/rings", other: "localkms://my.kms?key=alias/other", id: arn,
		own: map[string]string{"root-key-file": "root.key"},
		states: []rootState{
			{"denied", func() {
				write(t, "policy", []byte(`permit (principal == Principal::"user:admin", action, resource);`))
				local("policy", "put", "alias/rings", "policy")()
				require.NoError(t, os.Remove("policy"))
			}, local("policy", "delete", "alias/rings"), `" may not `},
			{"disabled", local("disable", "alias/rings"), local("enable", "alias/rings"), "the key is disabled (enable it with: blobseal kms enable --kms my.kms --root-key-file root.key "},
			{"unreachable", func() { require.NoError(t, os.Rename("my.kms", "gone.kms")) },
				func() { require.NoError(t, os.Rename("gone.kms", "my.kms")) }, "my.kms: no such key service"},
			{"deleted", local("schedule-deletion", "alias/rings"), nil, "the key is pending deletion (keep it with: blobseal kms cancel-deletion "},
		},
	}
}

// useAWS has the SDK find the server, as an operator would.
func useAWS(t *testing.T, s *awskmstest.Server) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": awskmstest.Region,
		"AWS_ENDPOINT_URL_KMS": s.URL, "AWS_MAX_ATTEMPTS": "1",
	} {
		t.Setenv(name, value)
	}
}

func newAWSBed(t *testing.T) *rootBed {
	s := awskmstest.NewServer()
	t.Cleanup(s.Close)
	useAWS(t, s)
	s.Deny("denied", "GenerateDataKey", "Decrypt")
	s.Deny("writer", "Decrypt")
	key, other := s.CreateKey(), s.CreateKey()
	s.SetAlias("alias/rings", key)
	set := func(state awskmstest.State) func() { return func() { s.SetState(key, state) } }
	denied, permitted := env(t, "AWS_ACCESS_KEY_ID", "denied")
	writer, _ := env(t, "AWS_ACCESS_KEY_ID", "writer")
	away, back := env(t, "AWS_ENDPOINT_URL_KMS", "http://"+nobodyListens(t))
	return &rootBed{
		key: "awskms:///alias/rings", other: "awskms:///" + other, id: key,
		states: []rootState{
			{"denied", denied, permitted, "awskms:///alias/rings: the service refuses: AccessDeniedException: User: denied is not authorized"},
			{"may not decrypt", writer, permitted, "the service refuses: AccessDeniedException: User: writer is not authorized to perform: kms:Decrypt"},
			{"disabled", set(awskmstest.Disabled), set(awskmstest.Enabled), "awskms:///alias/rings: the key is disabled: DisabledException"},
			{"pending deletion", set(awskmstest.PendingDeletion), set(awskmstest.Enabled), "the key is pending deletion, or not available: KMSInvalidStateException"},
			{"throttled", func() {
				s.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
					awskmstest.WriteError(w, 400, "ThrottlingException", "Rate exceeded")
					return true
				})
			}, func() { s.Intercept(nil) }, "the service is unavailable: ThrottlingException: Rate exceeded"},
			{"unreachable", away, back, "the service is unavailable: dial tcp 127.0.0.1:"},
			{"deleted", func() { s.RemoveKey(key) }, nil, "awskms:///alias/rings: no such key: NotFoundException"},
		},
	}
}

func newGoogleBed(t *testing.T) *rootBed {
	s, err := gcpkmstest.NewServer()
	require.NoError(t, err)
	t.Cleanup(s.Close)
	s.Deny("denied", "Encrypt", "Decrypt")
	who := "me"
	var wait time.Duration // other than the default
	adjust(t, func(c *console.Console) {
		c.Clouds.Google = s.ClientOptions(who)
		if wait != 0 {
			c.RootWait = wait
		}
	})
	key, other := s.CreateKey("rings"), s.CreateKey("other")
	set := func(state gcpkmstest.State) func() { return func() { s.SetState(key, state) } }
	return &rootBed{
		key: "gcpkms://" + key, other: "gcpkms://" + other, id: key,
		states: []rootState{
			{"denied", func() { who = "denied" }, func() { who = "me" }, "gcpkms://" + key + ": the service refuses: PermissionDenied: "},
			{"disabled", set(kmspb.CryptoKeyVersion_DISABLED), set(kmspb.CryptoKeyVersion_ENABLED), "the key is disabled: FailedPrecondition: "},
			{"pending deletion", set(kmspb.CryptoKeyVersion_DESTROY_SCHEDULED), set(kmspb.CryptoKeyVersion_ENABLED), "the key is pending deletion, or not available: "},
			{"deleted", func() { s.RemoveKey(key) }, nil, "no such key: NotFound: "},
			{"unreachable", func() { s.Close(); wait = 300 * time.Millisecond }, nil, "the service is unavailable: "}, // Google's client tries again until then
		},
	}
}

// azureVault is a Key Vault, as a transport of Azure's client.
type azureVault struct {
	mu    sync.Mutex
	keys  map[string]*rsa.PrivateKey
	fault *azureFault // what it answers to all requests
	down  error
}

// GetToken implements [azcore.TokenCredential].
func (v *azureVault) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "token", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// Do implements [policy.Transporter].
func (v *azureVault) Do(r *http.Request) (*http.Response, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.down != nil {
		return nil, v.down
	}
	w := httptest.NewRecorder()
	v.serve(w, r)
	response := w.Result()
	response.Request = r
	return response, nil
}

func (v *azureVault) serve(w http.ResponseWriter, r *http.Request) {
	reply := func(status int, body any) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(body)
	}
	refuse := func(f azureFault) {
		reply(f.status, map[string]any{"error": map[string]any{"code": f.code, "message": f.message, "innererror": map[string]any{"code": f.inner}}})
	}
	if r.Header.Get("Authorization") != "Bearer token" {
		w.Header().Set("WWW-Authenticate", `Bearer authorization="https://login.example/tenant", resource="https://vault.azure.net"`)
		refuse(azureFault{401, "Unauthorized", "", "AKV10000: Request is missing a Bearer or PoP token."})
		return
	}
	if v.fault != nil {
		refuse(*v.fault)
		return
	}
	parts := strings.Split(r.URL.Path, "/") // "", "keys", name, perhaps version, operation
	name, op := parts[2], parts[len(parts)-1]
	key := v.keys[name]
	var in struct{ Alg, Value string }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || key == nil || in.Alg != "RSA-OAEP-256" {
		refuse(azureFault{404, "KeyNotFound", "", "A key with (name/id) " + name + " was not found in this key vault."})
		return
	}
	value, err := base64.RawURLEncoding.DecodeString(in.Value)
	if err == nil && op == "wrapkey" {
		value, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, &key.PublicKey, value, nil)
	} else if err == nil {
		value, err = rsa.DecryptOAEP(sha256.New(), nil, key, value, nil)
	}
	if err != nil {
		refuse(azureFault{400, "BadParameter", "", err.Error()})
		return
	}
	reply(200, map[string]string{"kid": "https://" + r.URL.Host + "/keys/" + name + "/0123", "value": base64.RawURLEncoding.EncodeToString(value)})
}

func newAzureBed(t *testing.T) *rootBed {
	v := &azureVault{keys: rsaKeys()}
	adjust(t, func(c *console.Console) {
		c.Clouds.AzureCredential = func() (azcore.TokenCredential, error) { return v, nil }
		c.Clouds.Azure = &azkeys.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: v, Retry: policy.RetryOptions{MaxRetries: -1}}}
	})
	fault := func(f azureFault) func() { return func() { v.fault = &f } }
	well := func() { v.fault, v.down = nil, nil }
	return &rootBed{
		key: "azurekeyvault://photos.vault.azure.net/keys/rings", other: "azurekeyvault://photos.vault.azure.net/keys/other",
		id: "https://photos.vault.azure.net/keys/rings/0123",
		states: []rootState{
			{"denied", fault(azureFault{403, "Forbidden", "ForbiddenByRbac", "Caller is not authorized to perform action on resource."}), well,
				"azurekeyvault://photos.vault.azure.net/keys/rings: the service refuses: 403 Forbidden: Caller is not authorized"},
			{"disabled", fault(azureFault{403, "Forbidden", "KeyDisabled", "Operation is not allowed on a disabled key."}), well, "the key is disabled: "},
			{"throttled", fault(azureFault{429, "Throttled", "", "Request was not processed because too many requests were received."}), well, "the service is unavailable: "},
			{"unreachable", func() { v.down = &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded} }, well, "the service is unavailable: dial tcp"},
			{"deleted", fault(azureFault{404, "KeyNotFound", "", "A key with (name/id) rings was not found in this key vault."}), nil, "no such key: "},
		},
	}
}

// newVaultBed starts Vault's own Transit engine.
func newVaultBed(t *testing.T) *rootBed {
	for name, value := range map[string]string{"VAULT_ADDR": transit.URL(t), "VAULT_TOKEN": transit.Token, "VAULT_NAMESPACE": "teams", "VAULT_MAX_RETRIES": "0"} {
		t.Setenv(name, value)
	}
	admin, err := vault.NewClient(vault.DefaultConfig())
	require.NoError(t, err)
	require.NoError(t, admin.Sys().Mount("transit", &vault.MountInput{Type: "transit"}))
	post := func(path string, body map[string]any) {
		t.Helper()
		_, err := admin.Logical().Write("transit/keys/"+path, body)
		require.NoError(t, err)
	}
	for _, name := range []string{"rings", "other"} {
		post(name, map[string]any{"derived": true})
	}
	post("plain", nil)
	denied, permitted := env(t, "VAULT_TOKEN", "wrong")
	forgot, _ := env(t, "VAULT_TOKEN", "")
	away, back := env(t, "VAULT_ADDR", "http://"+nobodyListens(t))
	return &rootBed{
		key: "hashivault://rings", other: "hashivault://transit/keys/other", id: "transit/keys/rings",
		states: []rootState{
			{"denied", denied, permitted, `403: permission denied`},
			{"no token", forgot, permitted, `403: permission denied; no token: set VAULT_TOKEN, or log in with vault login`},
			{"unreachable", away, back, "hashivault://rings: the service is unavailable: dial tcp 127.0.0.1:"},
			{"deleted", func() {
				post("rings/config", map[string]any{"deletion_allowed": true})
				_, err := admin.Logical().Delete("transit/keys/rings")
				require.NoError(t, err)
			}, nil, "hashivault://rings: no such key: "},
		},
	}
}
