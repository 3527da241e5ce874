package azurekms_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/azurekms"
	"github.com/blobseal/blobseal/kms/kmstest"
)

const host = "photos.vault.azure.net" // the vault's name in the ids of keys

// vault is a Key Vault, or a Managed HSM, that speaks the service's wire, over TLS
// and with its challenge for a token. Keys wrap as they do there.
type vault struct {
	*kmstest.Gate // of operations, named by operation, key and version
	host          string
	server        *httptest.Server

	mu     sync.Mutex
	keys   map[string]*key
	denied map[string]bool // operations
	token  string
}

// azureName has Azure's names of operations.
var azureName = map[kms.Operation]string{kms.OpGenerateDataKey: "wrapkey", kms.OpDecrypt: "unwrapkey"}

type key struct {
	versions []version
	disabled bool
	deleted  bool
}

type version struct {
	id  string
	rsa *rsa.PrivateKey
	aes []byte
}

// rsaKeys are made once: that takes longer than all else here.
var rsaKeys = sync.OnceValue(func() []*rsa.PrivateKey {
	var keys []*rsa.PrivateKey
	for range 4 {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		keys = append(keys, k)
	}
	return keys
})

func newVault(t testing.TB) *vault {
	t.Helper()
	v := &vault{host: host, keys: make(map[string]*key), denied: make(map[string]bool), token: "the token"}
	v.Gate = kmstest.NewGate(http.HandlerFunc(v.serve), v.operation)
	v.server = httptest.NewTLSServer(v.Gate)
	t.Cleanup(func() { v.Close(); v.server.Close() })
	return v
}

// addVersion gives a key a new version, after making it if there is none, and
// returns the identifier.
func (v *vault) addVersion(name string, symmetric bool) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	k := v.keys[name]
	if k == nil {
		k = new(key)
		v.keys[name] = k
	}
	n := version{id: hex.EncodeToString(random(16))}
	if symmetric {
		n.aes = random(32)
	} else {
		total := 0
		for _, k := range v.keys {
			total += len(k.versions)
		}
		n.rsa = rsaKeys()[total]
	}
	k.versions = append(k.versions, n)
	return v.id(name, n.id)
}

func (v *vault) id(name, version string) string {
	return "https://" + v.host + "/keys/" + name + "/" + version
}

// set changes the state of the vault.
func (v *vault) set(change func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change()
}

// credential gives the token of the vault.
type credential struct{ v *vault }

func (c credential) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	c.v.mu.Lock()
	defer c.v.mu.Unlock()
	return azcore.AccessToken{Token: c.v.token, ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// retry is what tests wait for at most.
var retry = policy.RetryOptions{MaxRetries: 2, RetryDelay: time.Millisecond, MaxRetryDelay: 2 * time.Millisecond}

// azure returns a client as Azure makes it, but for how long it waits before it
// tries again. It finds the vault here, whatever its name.
func (v *vault) azure(t testing.TB, c azcore.TokenCredential, retry policy.RetryOptions) *azkeys.Client {
	t.Helper()
	client, err := azkeys.NewClient(v.server.URL, c, &azkeys.ClientOptions{
		ClientOptions:                        azcore.ClientOptions{Transport: v.server.Client(), Retry: retry},
		DisableChallengeResourceVerification: true, // 127.0.0.1 is in no domain
	})
	require.NoError(t, err)
	return client
}

func (v *vault) client(t testing.TB, opts *azurekms.Options) *azurekms.Client {
	t.Helper()
	c, err := azurekms.New(v.azure(t, credential{v}, retry), opts)
	require.NoError(t, err)
	return c
}

// reply writes what Azure writes.
func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("x-ms-request-id", "request-1")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

// azureError returns a fault: an error as Azure has it.
func azureError(status int, code, inner, message string) http.HandlerFunc {
	e := map[string]any{"code": code, "message": message}
	if inner != "" {
		e["innererror"] = map[string]any{"code": inner}
	}
	return func(w http.ResponseWriter, _ *http.Request) { reply(w, status, map[string]any{"error": e}) }
}

// operation names a request that has the token: "wrapkey photos/1".
func (v *vault) operation(r *http.Request) string {
	op, name, id, ok := parse(r)
	if !ok || !v.authorized(r) {
		return ""
	}
	return strings.TrimSuffix(op+" "+name+"/"+id, "/")
}

// authorized reports whether a request has the token.
func (v *vault) authorized(r *http.Request) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return r.Header.Get("Authorization") == "Bearer "+v.token
}

// parse takes the path of a request for an operation apart.
func parse(r *http.Request) (op, name, id string, ok bool) {
	parts := strings.Split(r.URL.Path, "/") // "", "keys", name, perhaps version, operation
	if len(parts) == 4 {
		parts = slices.Insert(parts, 3, "")
	}
	if len(parts) != 5 || parts[1] != "keys" || r.Method != http.MethodPost || r.URL.Query().Get("api-version") == "" {
		return "", "", "", false
	}
	return parts[4], parts[2], parts[3], true
}

func (v *vault) serve(w http.ResponseWriter, r *http.Request) {
	if !v.authorized(r) {
		w.Header().Set("WWW-Authenticate", `Bearer authorization="https://login.example/00000000-0000-0000-0000-000000000000", resource="https://vault.azure.net"`)
		azureError(http.StatusUnauthorized, "Unauthorized", "", "AKV10000: Request is missing a Bearer or PoP token.")(w, r)
		return
	}
	op, name, id, ok := parse(r)
	if !ok {
		http.NotFound(w, r)
		return
	}
	var in struct{ Alg, Value string }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		azureError(http.StatusBadRequest, "BadParameter", "", "The request is not JSON.")(w, r)
		return
	}
	value, err := base64.RawURLEncoding.DecodeString(in.Value)
	if err != nil {
		azureError(http.StatusBadRequest, "BadParameter", "", "Content of 'value' is not base64url.")(w, r)
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	k := v.keys[name]
	if k == nil || k.deleted {
		azureError(http.StatusNotFound, "KeyNotFound", "", "A key with (name/id) "+name+" was not found in this key vault. If you recently deleted this key you may be able to recover it.")(w, r)
		return
	}
	if v.denied[op] {
		azureError(http.StatusForbidden, "Forbidden", "ForbiddenByRbac", "Caller is not authorized to perform action on resource.\r\n")(w, r)
		return
	}
	use := k.versions[len(k.versions)-1]
	if id != "" {
		use = version{}
		for _, ver := range k.versions {
			if ver.id == id {
				use = ver
			}
		}
		if use.id == "" {
			azureError(http.StatusNotFound, "KeyNotFound", "", "A key with (name/id) "+name+"/"+id+" was not found in this key vault.")(w, r)
			return
		}
	}
	if k.disabled {
		azureError(http.StatusForbidden, "Forbidden", "KeyDisabled", "Operation "+op+" is not allowed on a disabled key.")(w, r)
		return
	}
	out, err := use.do(op, in.Alg, value)
	if err != nil {
		azureError(http.StatusBadRequest, "BadParameter", "", err.Error())(w, r)
		return
	}
	reply(w, http.StatusOK, map[string]any{"kid": v.id(name, use.id), "value": base64.RawURLEncoding.EncodeToString(out)})
}

func (ver version) do(op, alg string, value []byte) ([]byte, error) {
	switch {
	case ver.rsa != nil && alg == "RSA-OAEP-256" && op == "wrapkey":
		return rsa.EncryptOAEP(sha256.New(), rand.Reader, &ver.rsa.PublicKey, value, nil)
	case ver.rsa != nil && alg == "RSA-OAEP-256" && op == "unwrapkey":
		out, err := rsa.DecryptOAEP(sha256.New(), nil, ver.rsa, value, nil)
		if err != nil {
			return nil, errors.New("Error occurred while decoding OAEP padding.")
		}
		return out, nil
	case ver.aes != nil && alg == "A256KW" && op == "wrapkey":
		return keyWrap(ver.aes, value), nil
	case ver.aes != nil && alg == "A256KW" && op == "unwrapkey":
		return keyUnwrap(ver.aes, value)
	}
	return nil, fmt.Errorf("Key and signing key length mismatch, or %s with %s", op, alg)
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// keyWrap and keyUnwrap are A256KW, RFC 3394.

var keyWrapIV = bytes.Repeat([]byte{0xa6}, 8)

func keyWrap(kek, plaintext []byte) []byte {
	block, err := aes.NewCipher(kek)
	if err != nil {
		panic(err)
	}
	n := len(plaintext) / 8
	out := append(append([]byte(nil), keyWrapIV...), plaintext...)
	var b [16]byte
	for j := range 6 {
		for i := 1; i <= n; i++ {
			copy(b[:8], out[:8])
			copy(b[8:], out[8*i:])
			block.Encrypt(b[:], b[:])
			binary.BigEndian.PutUint64(out, binary.BigEndian.Uint64(b[:8])^uint64(n*j+i))
			copy(out[8*i:], b[8:])
		}
	}
	return out
}

func keyUnwrap(kek, wrapped []byte) ([]byte, error) {
	block, err := aes.NewCipher(kek)
	if err != nil {
		panic(err)
	}
	n := len(wrapped)/8 - 1
	if n < 2 || len(wrapped)%8 != 0 {
		return nil, errors.New("The parameter is incorrect.")
	}
	out := append([]byte(nil), wrapped...)
	var b [16]byte
	for j := 5; j >= 0; j-- {
		for i := n; i >= 1; i-- {
			binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(out)^uint64(n*j+i))
			copy(b[8:], out[8*i:8*i+8])
			block.Decrypt(b[:], b[:])
			copy(out[:8], b[:8])
			copy(out[8*i:], b[8:])
		}
	}
	if !bytes.Equal(out[:8], keyWrapIV) {
		return nil, errors.New("The parameter is incorrect.")
	}
	return out[8:], nil
}

// TestKeyWrap: the fake's key wrap is that of RFC 3394, section 4.6.
func TestKeyWrap(t *testing.T) {
	kek, err := hex.DecodeString("000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F")
	require.NoError(t, err)
	plaintext, err := hex.DecodeString("00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F")
	require.NoError(t, err)
	wrapped := keyWrap(kek, plaintext)
	require.Equal(t, "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21", hex.EncodeToString(wrapped))
	got, err := keyUnwrap(kek, wrapped)
	require.NoError(t, err)
	require.Equal(t, plaintext, got)
}
