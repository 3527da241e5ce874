package vaultkms_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	vault "github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/transit"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/kms/vaultkms"
)

// Every test runs against a fake of Transit that speaks its wire, which is what
// fakeTransit is, and against Transit itself, which internal/testbed/vault serves.
const token = transit.Token // of both

var transitURL string // if it runs

func TestMain(m *testing.M) {
	url, stop, err := transit.Start()
	if err != nil {
		log.Fatal(err)
	}
	transitURL = url
	code := m.Run()
	if err := stop(); err != nil {
		log.Fatal(err)
	}
	os.Exit(code)
}

// onEach runs test against the fake and against Transit.
func onEach(t *testing.T, test func(t *testing.T, s *server)) {
	t.Run("fake", func(t *testing.T) { test(t, newFake(t)) })
	t.Run("transit", func(t *testing.T) { test(t, newTransit(t)) })
}

// server is an engine behind a gate, with a namespace of its own in which Transit
// is mounted at "transit".
type server struct {
	*kmstest.Gate // of requests, named by method and path
	engine        http.Handler
	url           string
	vault         *vault.Client // may do everything
	namespace     string
}

var namespaces atomic.Int64

func newFake(t testing.TB) *server {
	return newServer(t, &fakeTransit{mounts: make(map[string]map[string]*fakeKey)})
}

func newTransit(t testing.TB) *server {
	if transitURL == "" {
		transit.Skip(t)
	}
	target, err := url.Parse(transitURL)
	require.NoError(t, err)
	return newServer(t, &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }})
}

func newServer(t testing.TB, engine http.Handler) *server {
	t.Helper()
	g := kmstest.NewGate(engine, func(r *http.Request) string { return r.Method + " " + strings.TrimPrefix(r.URL.Path, "/v1/") })
	h := httptest.NewServer(g)
	t.Cleanup(func() { g.Close(); h.Close() })
	s := &server{Gate: g, engine: engine, url: h.URL, namespace: fmt.Sprintf("test-%d", namespaces.Add(1))}
	s.vault = s.newVault(t)
	s.mount(t, "transit")
	return s
}

// newVault returns a client as Vault makes it, but that it does not wait long
// before it tries again.
func (s *server) newVault(t testing.TB) *vault.Client {
	t.Helper()
	config := vault.DefaultConfig()
	require.NoError(t, config.Error)
	config.Address = s.url
	config.MinRetryWait, config.MaxRetryWait = time.Millisecond, 2*time.Millisecond
	client, err := vault.NewClient(config)
	require.NoError(t, err)
	client.SetToken(token)
	client.SetNamespace(s.namespace)
	return client
}

// client returns a client of the mount "transit", which forgets after each test.
func (s *server) client(t testing.TB) *vaultkms.Client {
	t.Helper()
	c, err := vaultkms.New(s.newVault(t), nil)
	require.NoError(t, err)
	return c
}

// write has an administrator write.
func (s *server) write(t testing.TB, path string, data map[string]any) {
	t.Helper()
	_, err := s.vault.Logical().Write(path, data)
	require.NoError(t, err)
}

func (s *server) mount(t testing.TB, path string) {
	s.write(t, "sys/mounts/"+path, map[string]any{"type": "transit"})
}

func (s *server) createKey(t testing.TB, name string) {
	s.write(t, "transit/keys/"+name, map[string]any{"derived": true})
}

func (s *server) deleteKey(t testing.TB, name string) {
	s.write(t, "transit/keys/"+name+"/config", map[string]any{"deletion_allowed": true})
	_, err := s.vault.Logical().Delete("transit/keys/" + name)
	require.NoError(t, err)
}

// vaultError returns a fault: an error as Vault words it.
func vaultError(status int, text string) http.HandlerFunc {
	body, _ := json.Marshal(map[string]any{"errors": []string{text}})
	return kmstest.Answer(status, string(body))
}

// fakeTransit speaks as much of Transit as these tests need, and the soft deletion
// of OpenBao. Its keys are derived as Transit derives them, or not at all.
type fakeTransit struct {
	mu     sync.Mutex
	mounts map[string]map[string]*fakeKey
}

type fakeKey struct {
	derived         bool
	versions        [][]byte
	minDecryption   int
	deletionAllowed bool
	softDeleted     bool
}

// aead is the cipher of a version and a context.
func (k *fakeKey) aead(version int, context []byte) cipher.AEAD {
	key := k.versions[version-1]
	if k.derived {
		var err error
		if key, err = hkdf.Key(sha256.New, key, nil, string(context), 32); err != nil {
			panic(err)
		}
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return aead
}

func (f *fakeTransit) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, data, text := http.StatusForbidden, map[string]any(nil), "permission denied"
	if r.Header.Get("X-Vault-Token") == token {
		f.mu.Lock()
		status, data, text = f.serve(r)
		f.mu.Unlock()
	}
	var body any = map[string]any{"request_id": rand.Text(), "data": data}
	if status >= 400 {
		errs := []string{}
		if text != "" {
			errs = append(errs, text)
		}
		body = map[string]any{"errors": errs}
	}
	w.WriteHeader(status)
	if status != http.StatusNoContent {
		json.NewEncoder(w).Encode(body)
	}
}

// serve answers a request as Transit would. It is long because each request is a case
// of one switch.
func (f *fakeTransit) serve(r *http.Request) (int, map[string]any, string) {
	var in struct {
		Derived              bool
		Context, Ciphertext  string
		MinDecryptionVersion int  `json:"min_decryption_version"`
		DeletionAllowed      bool `json:"deletion_allowed"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil && err != io.EOF {
		return http.StatusBadRequest, nil, "failed to parse JSON input"
	}
	context, err := base64.StdEncoding.DecodeString(in.Context)
	if err != nil {
		return http.StatusBadRequest, nil, "failed to base64-decode context"
	}
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	namespace := strings.Trim(r.Header.Get("X-Vault-Namespace"), "/")
	if mount, ok := strings.CutPrefix(path, "sys/mounts/"); ok {
		f.mounts[strings.Trim(namespace+"/"+mount, "/")] = make(map[string]*fakeKey)
		return http.StatusNoContent, nil, ""
	}
	path = strings.Trim(namespace+"/"+path, "/")
	var keys map[string]*fakeKey
	for _, mount := range slices.Sorted(maps.Keys(f.mounts)) {
		if rest, ok := strings.CutPrefix(path, mount+"/"); ok {
			path, keys = rest, f.mounts[mount]
			break
		}
	}
	if keys == nil {
		return http.StatusNotFound, nil, fmt.Sprintf("no handler for route %q. route entry not found.", path)
	}
	parts := strings.Split(path, "/")
	at := min(1, len(parts)-1)
	if parts[0] == "datakey" {
		at = len(parts) - 1
	}
	name := parts[at]
	parts[at] = "NAME"
	key := keys[name]
	switch what := r.Method + " " + strings.Join(parts, "/"); {
	case what == "PUT keys/NAME":
		keys[name] = &fakeKey{derived: in.Derived, versions: [][]byte{random(32)}, minDecryption: 1}
		return http.StatusNoContent, nil, ""
	case what == "GET keys/NAME" && key == nil:
		return http.StatusNotFound, nil, ""
	case key == nil:
		return http.StatusBadRequest, nil, "encryption key not found"
	case what == "GET keys/NAME":
		return http.StatusOK, map[string]any{
			"name": name, "type": "aes256-gcm96", "derived": key.derived, "latest_version": len(key.versions), "soft_deleted": key.softDeleted,
		}, ""
	case what == "PUT keys/NAME/soft-delete":
		key.softDeleted = true
		return http.StatusNoContent, nil, ""
	case key.softDeleted:
		return http.StatusInternalServerError, nil, "refusing to use soft-deleted key"
	case what == "PUT keys/NAME/rotate":
		key.versions = append(key.versions, random(32))
		return http.StatusNoContent, nil, ""
	case what == "PUT keys/NAME/config":
		key.deletionAllowed = in.DeletionAllowed
		if in.MinDecryptionVersion > 0 {
			key.minDecryption = in.MinDecryptionVersion
		}
		return http.StatusNoContent, nil, ""
	case what == "DELETE keys/NAME" && key.deletionAllowed:
		delete(keys, name)
		return http.StatusNoContent, nil, ""
	case what == "PUT datakey/plaintext/NAME" && key.derived && len(context) == 0, what == "PUT decrypt/NAME" && key.derived && len(context) == 0:
		return http.StatusBadRequest, nil, "missing 'context' for key derivation"
	case what == "PUT datakey/plaintext/NAME":
		plaintext, version := random(32), len(key.versions)
		ciphertext := key.aead(version, context).Seal(nil, nil, plaintext, nil)
		return http.StatusOK, map[string]any{
			"plaintext":   base64.StdEncoding.EncodeToString(plaintext),
			"ciphertext":  fmt.Sprintf("vault:v%d:%s", version, base64.StdEncoding.EncodeToString(ciphertext)),
			"key_version": version,
		}, ""
	case what == "PUT decrypt/NAME":
		return key.decrypt(in.Ciphertext, context)
	}
	return http.StatusMethodNotAllowed, nil, "unsupported operation"
}

func (k *fakeKey) decrypt(ciphertext string, context []byte) (int, map[string]any, string) {
	parts := strings.SplitN(ciphertext, ":", 3)
	if len(parts) != 3 || parts[0] != "vault" {
		return http.StatusBadRequest, nil, "invalid ciphertext: no prefix"
	}
	version, err := strconv.Atoi(strings.TrimPrefix(parts[1], "v"))
	if err != nil || version < 1 {
		return http.StatusBadRequest, nil, "invalid ciphertext: version number could not be decoded"
	}
	if version > len(k.versions) {
		return http.StatusBadRequest, nil, "invalid ciphertext: version is too new"
	}
	if version < k.minDecryption {
		return http.StatusBadRequest, nil, "ciphertext or signature version is disallowed by policy (too old)"
	}
	sealed, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil {
		return http.StatusBadRequest, nil, "invalid ciphertext: could not decode base64"
	}
	plaintext, err := k.aead(version, context).Open(nil, nil, sealed, nil)
	if err != nil {
		return http.StatusBadRequest, nil, "cipher: message authentication failed"
	}
	return http.StatusOK, map[string]any{"plaintext": base64.StdEncoding.EncodeToString(plaintext)}, ""
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
