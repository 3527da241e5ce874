package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/blobseal/blobseal/examples/blobseal/internal/cmd/object"
	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"

	vault "github.com/hashicorp/vault/api"
	"github.com/mitchellh/go-homedir"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/awskms/awskmstest"
	"github.com/blobseal/blobseal/kms/gcpkms/gcpkmstest"
	"github.com/blobseal/blobseal/sse"
)

// rootBed is a key service with two keys, either of which can be a root. It is
// there for the commands of one test.
type rootBed struct {
	key, other string            // URLs
	id         string            // what the service calls key
	own        map[string]string // flags of the service's own root
	states     []rootState
}

// rootState is a state of the service, or of key, in which it refuses.
type rootState struct {
	name         string
	enter, leave func() // without leave, for ever
	says         string
}

// flags are those of a root; prefix is "", "new-" or "to-".
func (b *rootBed) flags(prefix, key string) []string {
	flags := []string{"--" + prefix + "root-kms-key", key}
	for name, value := range b.own {
		flags = append(flags, "--"+prefix+name, value)
	}
	return flags
}

// rootBeds make a bed in a workspace.
var rootBeds = map[string]func(*testing.T) *rootBed{
	"localkms": newLocalBed, "awskms": newAWSBed, "gcpkms": newGoogleBed, "azurekeyvault": newAzureBed, "hashivault": newVaultBed,
}

// adjust changes the console of all commands until the test or subtest t ends.
func adjust(t *testing.T, how func(*console.Console)) {
	before := adjustments
	adjustments = append(before[:len(before):len(before)], how)
	t.Cleanup(func() { adjustments = before })
}

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
			{"disabled", local("disable", "alias/rings"), local("enable", "alias/rings"), "the key is disabled (enable it with: blobseal kms enable --kms my.kms "},
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
			{"pending deletion", set(awskmstest.PendingDeletion), set(awskmstest.Enabled), "the key waits to be deleted, or is not at hand: KMSInvalidStateException"},
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
		c.Google = s.ClientOptions(who)
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
			{"pending deletion", set(kmspb.CryptoKeyVersion_DESTROY_SCHEDULED), set(kmspb.CryptoKeyVersion_ENABLED), "the key waits to be deleted, or is not at hand: "},
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

type azureFault struct {
	status               int
	code, inner, message string
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

// rsaKeys are made once: that takes longer than all else here.
var rsaKeys = sync.OnceValue(func() map[string]*rsa.PrivateKey {
	keys := map[string]*rsa.PrivateKey{}
	for _, name := range []string{"rings", "other"} {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		keys[name] = key
	}
	return keys
})

func newAzureBed(t *testing.T) *rootBed {
	v := &azureVault{keys: rsaKeys()}
	adjust(t, func(c *console.Console) {
		c.AzureCredential = func() (azcore.TokenCredential, error) { return v, nil }
		c.Azure = &azkeys.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: v, Retry: policy.RetryOptions{MaxRetries: -1}}}
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
	const bedEnv = "BLOBSEAL_VAULTBED"
	program := os.Getenv(bedEnv)
	if program == "" {
		t.Skip("no Transit: build it with (cd internal/testbed/vault && GOWORK=off go build -mod=mod -o /tmp/vaultbed .) and set " + bedEnv + "=/tmp/vaultbed")
	}
	bed := exec.Command(program)
	bed.Stderr = os.Stderr
	in, err := bed.StdinPipe() // it ends with us
	require.NoError(t, err)
	out, err := bed.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, bed.Start())
	t.Cleanup(func() {
		in.Close()
		bed.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	for name, value := range map[string]string{"VAULT_ADDR": strings.TrimSpace(line), "VAULT_TOKEN": "vaultbed", "VAULT_NAMESPACE": "teams", "VAULT_MAX_RETRIES": "0"} {
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
			{"denied", denied, permitted, `status 403: "permission denied"`},
			{"no token", forgot, permitted, `"permission denied"; no token: set VAULT_TOKEN, or log in with vault login`},
			{"unreachable", away, back, "hashivault://rings: the service is unavailable: dial tcp 127.0.0.1:"},
			{"deleted", func() {
				post("rings/config", map[string]any{"deletion_allowed": true})
				_, err := admin.Logical().Delete("transit/keys/rings")
				require.NoError(t, err)
			}, nil, "hashivault://rings: no such key: "},
		},
	}
}

// forEachBed runs test in a workspace of its own, once for each key service.
func forEachBed(t *testing.T, test func(*testing.T, *rootBed)) {
	for name, bed := range rootBeds {
		t.Run(name, func(t *testing.T) {
			workspace(t)
			nobody(t)
			write(t, "plain", []byte("plain"))
			test(t, bed(t))
		})
	}
}

// TestKMSRoot takes a ring through its life under a key of a key service.
func TestKMSRoot(t *testing.T) {
	forEachBed(t, func(t *testing.T, bed *rootBed) {
		kmsRing := args("--ring", "kms.ring", bed.flags("", bed.key))
		require.Regexp(t, `^kms.ring: created, with version [0-9a-f]{16}\.[0-9a-f]{8}\n$`, ok(t, args("ring", "create", kmsRing)...))
		ok(t, args("encrypt", kmsRing, "plain", "old")...)
		old := keyID(t, "old")
		ok(t, args("ring", "rotate", kmsRing)...)
		ok(t, args("encrypt", kmsRing, "plain", "new")...)
		require.NotEqual(t, old, keyID(t, "new"))
		for _, name := range []string{"old", "new"} {
			require.Equal(t, "plain", ok(t, args("decrypt", kmsRing, name, "-")...))
		}
		require.Contains(t, ok(t, args("ring", "list", kmsRing)...), old+"  enabled  ")
		ok(t, args("rewrap", kmsRing, "old")...)
		ok(t, args("rewrap", ring, "--to-ring", "kms.ring", bed.flags("to-", bed.key), sealed(t, ring))...)
		require.Equal(t, "plain", ok(t, args("decrypt", kmsRing, "sealed", "-")...))
		ok(t, args("ring", "disable", kmsRing, old)...)
		ok(t, args("ring", "destroy", kmsRing, "--yes", old)...)
		ok(t, args("verify", kmsRing, "old", "new", "sealed")...)

		require.NoError(t, os.Mkdir("photos", 0o700))
		bucket := []string{"--bucket", "file://./photos"}
		ok(t, args("bucket", "put", bucket, kmsRing, "plain", "cat.jpg")...)
		require.Contains(t, ok(t, args("bucket", "check", bucket, kmsRing)...), "1 object")

		before, here := read(t, "kms.ring"), files(t)
		blobseal(args("ring", "create", kmsRing)...).fails(t, 1, "kms.ring: already exists")
		for name, flags := range map[string][]string{
			"another key": bed.flags("", bed.other), "a key file": {"--root-key-file", "root.key"},
		} {
			res := blobseal(args("decrypt", "--ring", "kms.ring", flags, "new", "out")...)
			says := "kms.ring: wrong root: the ring was made with another key or passphrase"
			if name == "another key" {
				says = fmt.Sprintf("kms.ring: root does not open the document: it is under key %q, the root is ", bed.id)
			}
			res.fails(t, 1, says)
		}
		blobseal(args("ring", "list", "--ring", "my.ring", bed.flags("", bed.key))...).fails(t, 1, "my.ring: wrong root: ")
		require.Equal(t, before, read(t, "kms.ring"))
		require.Equal(t, here, files(t))
	})
}

// sealed makes a sealed file, and returns its name.
func sealed(t *testing.T, keys []string) string {
	t.Helper()
	ok(t, args("encrypt", "--force", keys, "plain", "sealed")...)
	return "sealed"
}

// TestKMSRootRefuses: what the service refuses is named in one line, and nothing
// is written.
func TestKMSRootRefuses(t *testing.T) {
	forEachBed(t, func(t *testing.T, bed *rootBed) {
		kmsRing := args("--ring", "kms.ring", bed.flags("", bed.key))
		ok(t, args("ring", "create", kmsRing)...)
		ok(t, args("encrypt", kmsRing, "plain", "sealed")...)
		document, mine := read(t, "kms.ring"), read(t, "my.ring")
		for _, state := range bed.states {
			t.Run(state.name, func(t *testing.T) {
				state.enter()
				here := files(t)
				for _, cmd := range [][]string{
					args("ring", "list", kmsRing),
					args("ring", "rotate", kmsRing),
					args("ring", "change-root", kmsRing, "--new-root-key-file", "other.key"),
					args("ring", "change-root", "--ring", "my.ring", rootOf("", "root.key"), bed.flags("new-", bed.key)),
					args("ring", "create", "--ring", "new.ring", bed.flags("", bed.key)),
					args("encrypt", kmsRing, "plain", "out"),
					args("decrypt", kmsRing, "sealed", "out"),
					args("rewrap", customer, "--to-ring", "kms.ring", bed.flags("to-", bed.key), "sealed"),
				} {
					res := blobseal(cmd...)
					res.fails(t, 1, state.says)
					require.Empty(t, res.out, cmd)
				}
				require.Equal(t, here, files(t))
				require.Equal(t, document, read(t, "kms.ring"))
				require.Equal(t, mine, read(t, "my.ring"))
				if state.leave != nil {
					state.leave()
					require.Equal(t, "plain", ok(t, args("decrypt", kmsRing, "sealed", "-")...))
				}
			})
		}
	})
}

func workingDirectory(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	require.NoError(t, err)
	return dir
}

func rootOf(prefix, file string) []string { return []string{"--" + prefix + "root-key-file", file} }

// TestChangeRootBetweenServices moves a ring from one key service to the next.
// Each root opens it until it has gone on, and an old file always opens.
func TestChangeRootBetweenServices(t *testing.T) {
	for name, beds := range map[string][]string{
		"in this process": {"localkms", "awskms", "gcpkms", "azurekeyvault"},
		"with Transit":    {"localkms", "hashivault", "awskms"},
	} {
		t.Run(name, func(t *testing.T) {
			workspace(t)
			nobody(t)
			write(t, "plain", []byte("plain"))
			ok(t, args("encrypt", ring, "plain", "sealed")...)
			type root func(prefix string) []string
			first := func(prefix string) []string { return rootOf(prefix, "root.key") }
			var roots []root
			for _, name := range beds {
				bed := rootBeds[name](t)
				roots = append(roots,
					func(prefix string) []string { return bed.flags(prefix, bed.key) },
					func(prefix string) []string { return bed.flags(prefix, bed.other) })
			}
			at := root(first)
			for _, next := range append(roots, first) {
				before, after := args("--ring", "my.ring", at("")), args("--ring", "my.ring", next(""))
				require.Equal(t, "my.ring: the root was changed; older copies still open with the old one\n",
					ok(t, args("ring", "change-root", before, next("new-"))...))
				require.Equal(t, "plain", ok(t, args("decrypt", after, "sealed", "-")...))
				blobseal(args("decrypt", before, "sealed", "-")...).fails(t, 1, "root")
				ok(t, args("ring", "rotate", after)...)
				at = next
			}
			require.Len(t, ringKeys(t).Versions, 2+len(roots))
		})
	}
}

// TestKMSRootWaits: a key service that says nothing is not waited for for ever.
func TestKMSRootWaits(t *testing.T) {
	workspace(t)
	nobody(t)
	closing := make(chan struct{})
	stalls := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-closing:
		}
	}))
	t.Cleanup(func() { close(closing); stalls.Close() })
	t.Setenv("VAULT_ADDR", stalls.URL)
	t.Setenv("VAULT_TOKEN", "token")
	adjust(t, func(c *console.Console) { c.RootWait = 50 * time.Millisecond }) // less than Vault's client waits by itself
	here := files(t)
	blobseal("ring", "create", "--ring", "new.ring", "--root-kms-key", "hashivault://rings").
		fails(t, 1, "new.ring: its root cannot be used: hashivault://rings: the service is unavailable: no answer within 50ms")
	require.Equal(t, here, files(t))
}

// TestKMSRootPrincipal: a service in a directory knows who asks for a ring.
func TestKMSRootPrincipal(t *testing.T) {
	workspace(t)
	write(t, "plain", []byte("plain"))
	bed := newLocalBed(t)
	write(t, "policy", []byte(`permit (principal == Principal::"user:admin", action, resource);
permit (principal == Principal::"service:photos", action in [Action::"GenerateDataKey", Action::"Decrypt"], resource);`))
	ok(t, args("kms", "policy", "put", service, "--principal", "user:admin", "alias/rings", "policy")...)
	kmsRing, as := args("--ring", "kms.ring", bed.flags("", bed.key)), []string{"--principal", "service:photos"}
	blobseal(args("ring", "create", kmsRing)...).fails(t, 1, `" may not GenerateDataKey with `)
	ok(t, args("ring", "create", kmsRing, as)...)
	ok(t, args("ring", "rotate", kmsRing, as)...)
	ok(t, args("encrypt", kmsRing, as, "plain", "sealed")...)
	require.Equal(t, "plain", ok(t, args("decrypt", kmsRing, as, "sealed", "-")...))
	blobseal(args("decrypt", kmsRing, "sealed", "-")...).fails(t, 1, `" may not Decrypt with `)
	ok(t, args("rewrap", customer, as, "--to-ring", "kms.ring", bed.flags("to-", bed.key), sealed(t, customer))...)
	ok(t, args("ring", "change-root", "--ring", "my.ring", rootOf("", "root.key"), bed.flags("new-", bed.key), as)...)
	last := records(t)
	require.Equal(t, "service:photos", last[len(last)-1].Principal.ID)
	require.Equal(t, "keyring", last[len(last)-1].Resource)
	require.Equal(t, map[string]string{"blobseal:purpose": "keyring root"}, map[string]string(last[len(last)-1].Context))
}

// TestKMSRootOfBoth has a bucket whose ring is under a key of the service that its
// other objects are under.
func TestKMSRootOfBoth(t *testing.T) {
	workspace(t)
	write(t, "plain", []byte("plain"))
	bed := newLocalBed(t)
	kmsRing, bucket := args("--ring", "kms.ring", bed.flags("", bed.key)), []string{"--bucket", "file://./photos"}
	ok(t, args("ring", "create", kmsRing)...)
	require.NoError(t, os.Mkdir("photos", 0o700))
	ok(t, args("bucket", "put", bucket, kmsRing, "plain", "a")...)
	ok(t, args("bucket", "put", bucket, photos, "plain", "b")...)
	require.Contains(t, ok(t, args("bucket", "check", bucket, kmsRing, "--kms", "my.kms")...), "2 objects")
}

// TestKMSRootOfService puts a key service under a key of AWS KMS.
func TestKMSRootOfService(t *testing.T) {
	workspace(t)
	nobody(t)
	bed := newAWSBed(t)
	write(t, "plain", []byte("plain"))
	other := args("--kms", "other.kms", bed.flags("", bed.key))
	ok(t, args("kms", "init", other)...)
	ok(t, args("encrypt", other, "plain", "sealed")...)
	require.Equal(t, "plain", ok(t, args("decrypt", other, "sealed", "-")...))
	blobseal(args("kms", "list", "--kms", "other.kms", bed.flags("", bed.other))...).
		fails(t, 1, fmt.Sprintf("other.kms: root does not open the document: it is under key %q", bed.id))
	here := files(t)
	for _, state := range bed.states {
		if state.name == "disabled" {
			state.enter()
			blobseal(args("kms", "list", other)...).fails(t, 1, "other.kms: its root cannot be used: awskms:///alias/rings: the key is disabled: ")
			blobseal(args("kms", "init", "--kms", "new.kms", bed.flags("", bed.key))...).fails(t, 1, "new.kms: its root cannot be used: ")
		}
	}
	require.Equal(t, here, files(t))
}

// TestKMSRootAlias moves an alias away from the key that a ring is under.
func TestKMSRootAlias(t *testing.T) {
	workspace(t)
	nobody(t)
	s := awskmstest.NewServer()
	t.Cleanup(s.Close)
	useAWS(t, s)
	before, after := s.CreateKey(), s.CreateKey()
	s.SetAlias("alias/rings", before)
	alias := []string{"--ring", "kms.ring", "--root-kms-key", "awskms:///alias/rings"}
	ok(t, args("ring", "create", alias)...)
	s.SetAlias("alias/rings", after)
	blobseal(args("ring", "list", alias)...).fails(t, 1, fmt.Sprintf("kms.ring: root does not open the document: it is under key %q, the root is \"alias/rings\": ", before))
	ok(t, "ring", "change-root", "--ring", "kms.ring", "--root-kms-key", "awskms:///"+before, "--new-root-kms-key", "awskms:///alias/rings")
	ok(t, args("ring", "list", alias)...)
}

// TestKMSRootGoesAway: a command that runs for long may meet a key that the ring has
// got meanwhile, and cannot read the ring any more.
func TestKMSRootGoesAway(t *testing.T) {
	workspace(t)
	nobody(t)
	bed := newAWSBed(t)
	write(t, "plain", []byte("plain"))
	kmsRing := args("--ring", "kms.ring", bed.flags("", bed.key))
	ok(t, args("ring", "create", kmsRing)...)
	k, err := keys.Source{Ring: "kms.ring", Root: keys.RootSource{KMSKey: bed.key}}.Open(t.Context(), console.New(nil, nil, nil))
	require.NoError(t, err)
	ok(t, args("ring", "rotate", kmsRing)...)
	ok(t, args("encrypt", kmsRing, "plain", "sealed")...)
	for _, state := range bed.states {
		if state.name == "disabled" {
			state.enter()
		}
	}
	c := console.New(nil, nil, nil)
	o, err := object.Open(t.Context(), c, "sealed")
	require.NoError(t, err)
	defer o.Close()
	_, err = o.Decrypt(t.Context(), k, sse.Object{})
	require.ErrorIs(t, err, keyring.ErrUnknownKey)
	require.ErrorIs(t, err, kms.ErrDisabled)
	require.Contains(t, err.Error(), "sealed: sealed under version "+keyID(t, "sealed")+", which ring kms.ring may have received after this command opened it: "+
		"its root cannot be used: awskms:///alias/rings: the key is disabled: ")
}

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
		blobseal(args(create, "awskms:///alias/rings?region=eu-west-1")...).fails(t, 1, "credentials")
	})
	t.Run("AWS without the profile", func(t *testing.T) {
		blobseal(args(create, "awskms:///alias/rings?profile=nobody")...).fails(t, 1, "awskms:///alias/rings: failed to get shared config profile, nobody")
	})
	t.Run("Google without credentials", func(t *testing.T) {
		t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "none.json")
		blobseal(args(create, "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k")...).fails(t, 1, "none.json")
	})
	t.Run("Azure without credentials", func(t *testing.T) {
		t.Setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
		adjust(t, func(c *console.Console) {
			c.Azure = &azkeys.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: new(azureVault)}}
		})
		blobseal(args(create, "azurekeyvault://photos.vault.azure.net/keys/rings")...).fails(t, 1, "AZURE_TENANT_ID")
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
			blobseal("ring", "list", "--ring", "a", "--root-kms-key", elsewhere).fails(t, 1, "Credential should be scoped to a valid region")
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
		res.fails(t, 1, "the service refuses: ")
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
