package azurekms_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/await"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/azurekms"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

var ec = kms.Context{"blobseal:object": "photos/cat.jpg"}

// algorithms are those of both kinds of keys.
var algorithms = map[string]*azurekms.Options{
	"RSA-OAEP-256": nil,
	"A256KW":       {Algorithm: azkeys.EncryptionAlgorithmA256KW},
}

func symmetric(opts *azurekms.Options) bool { return opts != nil }

func TestConformance(t *testing.T) {
	for name, opts := range algorithms {
		t.Run(name, func(t *testing.T) {
			kmstest.Run(t, func(t *testing.T) kmstest.Subject {
				v := newVault(t)
				return kmstest.Subject{
					Client: v.client(t, opts),
					KeyID:  v.addVersion("photos", symmetric(opts)), Alias: "photos",
					OtherKeyID:   v.addVersion("other", symmetric(opts)),
					UnknownKeyID: v.id("none", "0123456789abcdef0123456789abcdef"),
					Disable:      func(*testing.T) { v.set(func() { v.keys["photos"].disabled = true }) },
					Enable:       func(*testing.T) { v.set(func() { v.keys["photos"].disabled = false }) },
					Break: func(*testing.T) {
						v.Fail("", azureError(http.StatusServiceUnavailable, "ServiceUnavailable", "", "try later"))
					},
					Repair: func(*testing.T) { v.Repair() },
					Stall:  func(*testing.T) { v.Fail("", v.Stall) },
				}
			})
		})
	}
}

func newPhotos(t testing.TB) *vault {
	t.Helper()
	v := newVault(t)
	v.addVersion("photos", false)
	return v
}

func TestVersions(t *testing.T) {
	v := newVault(t)
	first := v.addVersion("photos", false)
	c := v.client(t, nil)
	var report kms.Report
	ctx := kms.WithReport(t.Context(), &report)
	old, err := c.GenerateDataKey(ctx, "photos", ec)
	require.NoError(t, err)
	require.Equal(t, first, old.KeyID)
	require.Equal(t, kms.Report{RequestID: "request-1", KeyID: first, KeyVersion: versionOf(first)}, report)

	second := v.addVersion("photos", false)
	k, err := c.GenerateDataKey(t.Context(), "photos", ec)
	require.NoError(t, err)
	require.Equal(t, second, k.KeyID, "the name stands for the newest version")
	v.Asked()
	for _, id := range []string{first, "photos", "https://" + host + "/keys/photos", "photos/" + versionOf(first), strings.Replace(first, host, strings.ToUpper(host), 1)} {
		report = kms.Report{}
		p, err := c.Decrypt(ctx, id, old.Ciphertext, ec)
		require.NoError(t, err, id)
		require.Equal(t, old.Plaintext(), p)
		require.Equal(t, []string{"unwrapkey photos/" + versionOf(first)}, v.Asked(), "an object's own version")
		require.Equal(t, versionOf(first), report.KeyVersion)
		require.True(t, strings.EqualFold(first, report.KeyID) || id == "https://"+host+"/keys/photos", report.KeyID)
	}
	for _, id := range []string{first, "photos/" + versionOf(first)} { // which hold on to a version
		k, err := c.GenerateDataKey(t.Context(), id, ec)
		require.NoError(t, err)
		require.Equal(t, first, k.KeyID)
	}
	_, err = c.Decrypt(t.Context(), second, old.Ciphertext, ec)
	kmstest.RequireKind(t, err, kms.ErrCiphertext)
}

func versionOf(id string) string { return id[strings.LastIndexByte(id, '/')+1:] }

func TestDisabledDeletedDenied(t *testing.T) {
	for name, opts := range algorithms {
		t.Run(name, func(t *testing.T) {
			v := newVault(t)
			v.addVersion("photos", symmetric(opts))
			for op, call := range kmstest.Operations(t, v.client(t, opts), "photos", ec) {
				k := v.keys["photos"]
				for _, c := range []struct {
					name   string
					change func(bool)
					kind   error
				}{
					{"disabled", func(on bool) { k.disabled = on }, kms.ErrDisabled},
					{"deleted, and recovered", func(on bool) { k.deleted = on }, kms.ErrNotFound},
					{"denied", func(on bool) { v.denied[azureName[op]] = on }, kms.ErrDenied},
				} {
					require.NoError(t, call(t.Context()), "%s before", c.name)
					v.set(func() { c.change(true) })
					kmstest.RequireKind(t, call(t.Context()), c.kind)
					v.set(func() { c.change(false) })
					require.NoError(t, call(t.Context()), "%s after", c.name)
				}
			}
		})
	}
}

// TestRefusals: answers that are Azure's last word.
func TestRefusals(t *testing.T) {
	v := newPhotos(t)
	for op, call := range kmstest.Operations(t, v.client(t, nil), "photos", ec) {
		for _, c := range []struct {
			name                 string
			status               int
			code, inner, message string
			wrap, unwrap         error
		}{
			{"access policy", 403, "Forbidden", "AccessDenied", "The user, group or application 'appid=1' does not have keys wrapKey permission on key vault 'photos'.", kms.ErrDenied, kms.ErrDenied},
			{"firewall", 403, "Forbidden", "ForbiddenByFirewall", "Client address is not authorized.", kms.ErrDenied, kms.ErrDenied},
			{"names that mislead", 403, "Forbidden", "ForbiddenByRbac", "Resource: '/keys/disabled-key', vault expired-keys", kms.ErrDenied, kms.ErrDenied},
			{"key_ops", 403, "Forbidden", "", "Operation wrapKey is not permitted on this key.", kms.ErrDenied, kms.ErrDenied},
			{"disabled, by message", 403, "Forbidden", "", "Operation wrapKey is not allowed on a disabled key.", kms.ErrDisabled, kms.ErrDisabled},
			{"expired, by message", 403, "Forbidden", "", "Operation wrapKey is not allowed on an expired key.", kms.ErrDisabled, kms.ErrDisabled},
			{"expired, by code", 403, "Forbidden", "KeyExpired", "", kms.ErrDisabled, kms.ErrDisabled},
			{"not yet valid", 403, "Forbidden", "KeyNotYetValid", "", kms.ErrDisabled, kms.ErrDisabled},
			{"bad parameter", 400, "BadParameter", "", "The parameter is incorrect.\r\n", kms.ErrInvalid, kms.ErrCiphertext},
			{"being deleted", 409, "Conflict", "ObjectIsBeingDeleted", "", kms.ErrPendingDeletion, kms.ErrPendingDeletion},
			{"deleted but recoverable", 409, "Conflict", "ObjectIsDeletedButRecoverable", "", kms.ErrPendingDeletion, kms.ErrPendingDeletion},
			{"conflict", 409, "Conflict", "", "another operation is in progress", kms.ErrUnavailable, kms.ErrUnavailable},
			{"method", 405, "MethodNotAllowed", "", "", kms.ErrInvalid, kms.ErrInvalid},
			{"vault", 404, "VaultNotFound", "", "", kms.ErrNotFound, kms.ErrNotFound},
		} {
			t.Run(c.name+" at "+string(op), func(t *testing.T) {
				v.Fail("", azureError(c.status, c.code, c.inner, c.message))
				v.Asked()
				err := call(t.Context())
				if op == kms.OpGenerateDataKey {
					kmstest.RequireKind(t, err, c.wrap)
				} else {
					kmstest.RequireKind(t, err, c.unwrap)
				}
				response, ok := errors.AsType[*azcore.ResponseError](err)
				require.True(t, ok, "Azure's own error is there")
				require.Equal(t, c.status, response.StatusCode)
				require.Len(t, v.Asked(), 1, "no second attempt")
				require.NotContains(t, err.Error(), "\n")
				require.Contains(t, err.Error(), c.inner)
				v.Repair()
				require.NoError(t, call(t.Context()))
			})
		}
	}
}

func TestUnavailable(t *testing.T) {
	value := base64.RawURLEncoding.EncodeToString(random(32))
	v := newPhotos(t)
	id := v.id("photos", v.keys["photos"].versions[0].id)
	answer := func(kid, value string) http.HandlerFunc {
		return kmstest.Answer(http.StatusOK, fmt.Sprintf(`{"kid":%q,"value":%q}`, kid, value))
	}
	faults := kmstest.Outages()
	maps.Copy(faults, map[string]http.HandlerFunc{
		"throttled": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "3600") // longer than the SDK is told to wait
			azureError(http.StatusTooManyRequests, "Throttled", "", "Request was not processed because too many requests were received.")(w, r)
		},
		"internal error":          azureError(http.StatusInternalServerError, "InternalServerError", "", ""),
		"unavailable":             azureError(http.StatusServiceUnavailable, "ServiceUnavailable", "", ""),
		"request timeout":         azureError(http.StatusRequestTimeout, "RequestTimeout", "", ""),
		"no key":                  kmstest.Answer(http.StatusOK, fmt.Sprintf(`{"value":%q}`, value)),
		"a value not base64":      answer(id, "???"),
		"a key without a version": answer("https://"+host+"/keys/photos", value),
		"a key without a vault":   answer("photos/1", value),
		"another key":             answer(v.id("other", versionOf(id)), value),
		"a key that is none":      answer("https://", value),
		"a key with a query":      answer(id+"?x=1", value),
	})
	for name, fault := range faults {
		for op, call := range kmstest.Operations(t, v.client(t, nil), "photos", ec) {
			t.Run(name+" at "+string(op), func(t *testing.T) {
				v.Fail("", fault)
				err := call(t.Context())
				kmstest.RequireKind(t, err, kms.ErrUnavailable)
				require.NotContains(t, err.Error(), value)
				v.Repair()
				require.NoError(t, call(t.Context()), "after the fault")
			})
		}
	}
	t.Run("no wrapped key", func(t *testing.T) {
		for _, value := range []string{"", base64.RawURLEncoding.EncodeToString(make([]byte, 1025))} {
			v.Fail("", answer(id, value))
			_, err := v.client(t, nil).GenerateDataKey(t.Context(), "photos", ec)
			kmstest.RequireKind(t, err, kms.ErrUnavailable)
			v.Repair()
		}
	})
	t.Run("another version", func(t *testing.T) {
		call := kmstest.Operations(t, v.client(t, nil), "photos", ec)[kms.OpDecrypt]
		v.Fail("", answer(v.id("photos", "0123456789abcdef0123456789abcdef"), value))
		kmstest.RequireKind(t, call(t.Context()), kms.ErrUnavailable)
		v.Repair()
	})
}

func TestUnreachable(t *testing.T) {
	v := newPhotos(t)
	c := v.client(t, nil)
	v.server.Close()
	_, err := c.GenerateDataKey(t.Context(), "photos", ec)
	kmstest.RequireKind(t, err, kms.ErrUnavailable)
}

// TestWrappedKeyOfAnotherLength: what holds no key is neither used nor shown.
func TestWrappedKeyOfAnotherLength(t *testing.T) {
	v := newPhotos(t)
	call := kmstest.Operations(t, v.client(t, nil), "photos", ec)[kms.OpDecrypt]
	id := v.id("photos", v.keys["photos"].versions[0].id)
	for _, n := range []int{0, 1, 31, 32, 33, 64} { // 32 are a key, and another
		value := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte("s"), n))
		v.Fail("", kmstest.Answer(http.StatusOK, fmt.Sprintf(`{"kid":%q,"value":%q}`, id, value)))
		err := call(t.Context())
		kmstest.RequireKind(t, err, kms.ErrCiphertext)
		if n > 8 {
			require.NotContains(t, err.Error(), value[:8])
		}
	}
}

// TestRetries: Azure's SDK tries again, as it is configured, and nobody else.
func TestRetries(t *testing.T) {
	v := newPhotos(t)
	for _, retries := range []int32{-1, 2} {
		opts := retry
		opts.MaxRetries = retries
		attempts := int64(1 + max(0, retries))
		c, err := azurekms.New(v.azure(t, credential{v}, opts), nil)
		require.NoError(t, err)
		for op, call := range kmstest.Operations(t, c, "photos", ec) {
			busy := azureError(http.StatusTooManyRequests, "Throttled", "", "")
			v.Fail("", busy)
			v.Asked()
			kmstest.RequireKind(t, call(t.Context()), kms.ErrUnavailable)
			require.Len(t, v.Asked(), int(attempts), op)
			var failures atomic.Int64
			v.Fail("", func(w http.ResponseWriter, r *http.Request) {
				if failures.Add(1) == attempts {
					v.Repair()
				}
				busy(w, r)
			})
			if attempts > 1 { // the fault passes with the last attempt but one
				failures.Add(1)
				require.NoError(t, call(t.Context()), op)
			}
			v.Repair()
		}
	}
}

// TestSlow: ctx ends a call wherever it is. The SDK's own timeout is no end of ctx.
func TestSlow(t *testing.T) {
	v := newPhotos(t)
	patient := policy.RetryOptions{MaxRetries: 2, RetryDelay: time.Hour, MaxRetryDelay: 2 * time.Hour}
	c, err := azurekms.New(v.azure(t, credential{v}, patient), nil)
	require.NoError(t, err)
	for op, call := range kmstest.Operations(t, c, "photos", ec) {
		for name, fault := range map[string]http.HandlerFunc{
			"no answer":      v.Stall,
			"a long pause":   azureError(http.StatusServiceUnavailable, "ServiceUnavailable", "", ""),
			"half an answer": v.StallAfter(`{"kid":`),
		} {
			t.Run(name+" at "+string(op), func(t *testing.T) {
				v.Fail("", fault)
				kmstest.RequireEnds(t, call)
				v.Repair()
				require.NoError(t, call(t.Context()))
			})
		}
	}
	k, err := c.GenerateDataKey(t.Context(), "photos", ec)
	require.NoError(t, err)
	hasty := policy.RetryOptions{MaxRetries: -1, TryTimeout: 30 * time.Millisecond}
	c, err = azurekms.New(v.azure(t, credential{v}, hasty), nil)
	require.NoError(t, err)
	v.Fail("", v.Stall)
	t.Run("a timeout of the SDK", func(t *testing.T) {
		_, err := c.GenerateDataKey(t.Context(), "photos", ec)
		kmstest.RequireKind(t, err, kms.ErrUnavailable)
		_, err = c.Decrypt(t.Context(), k.KeyID, k.Ciphertext, ec)
		kmstest.RequireKind(t, err, kms.ErrUnavailable)
	})
}

// slowCredential gives no token until release.
type slowCredential struct {
	credential
	asked, release chan struct{}
}

func (s slowCredential) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	close(s.asked)
	<-s.release
	return s.credential.GetToken(ctx, o)
}

// TestSlowCredential: the SDK has all callers wait for the token that the first one
// fetches, whatever their ctx; calls do not.
func TestSlowCredential(t *testing.T) {
	v := newPhotos(t)
	slow := slowCredential{credential{v}, make(chan struct{}), make(chan struct{})}
	c, err := azurekms.New(v.azure(t, slow, retry), nil)
	require.NoError(t, err)
	generate := func(ctx context.Context) error { _, err := c.GenerateDataKey(ctx, "photos", ec); return err }
	first := make(chan error, 1)
	go func() { first <- generate(context.Background()) }()
	await.Value(t, slow.asked, "the client to ask for a token")
	kmstest.RequireEnds(t, generate)
	close(slow.release)
	require.NoError(t, await.Value(t, first, "the first call to end"))
	require.NoError(t, generate(t.Context()))
}

// failingCredential is what azidentity's are without a way to a token.
type failingCredential struct{ err error }

func (f failingCredential) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{}, f.err
}

func TestCredentials(t *testing.T) {
	v := newPhotos(t)
	failed := errors.New("no managed identity here")
	c, err := azurekms.New(v.azure(t, failingCredential{failed}, retry), nil)
	require.NoError(t, err)
	_, err = c.GenerateDataKey(t.Context(), "photos", ec)
	kmstest.RequireKind(t, err, kms.ErrUnavailable)
	require.ErrorIs(t, err, failed)

	// A token that Azure does not take, and then one that it does.
	c = v.client(t, nil)
	for op, call := range kmstest.Operations(t, c, "photos", ec) {
		stale := staleCredential{v, new(atomic.Bool)}
		c, err := azurekms.New(v.azure(t, stale, retry), nil)
		require.NoError(t, err)
		stale.on.Store(true)
		_, err = c.GenerateDataKey(t.Context(), "photos", ec)
		kmstest.RequireKind(t, err, kms.ErrDenied)
		require.NotContains(t, fmt.Sprintf("%v %+v", err, err), "the stale token")
		stale.on.Store(false)
		_, err = c.GenerateDataKey(t.Context(), "photos", ec)
		require.NoError(t, err)
		require.NoError(t, call(t.Context()), op)
	}
}

type staleCredential struct {
	v  *vault
	on *atomic.Bool
}

func (s staleCredential) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if s.on.Load() {
		return azcore.AccessToken{Token: "the stale token", ExpiresOn: time.Now().Add(time.Hour)}, nil
	}
	return credential{s.v}.GetToken(ctx, o)
}

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

// TestBothAlgorithms: data keys of one are decrypted by a client for the other, as
// in a move from a vault to an HSM.
func TestBothAlgorithms(t *testing.T) {
	v := newVault(t)
	v.addVersion("rsa", false)
	v.addVersion("oct", true)
	for name, opts := range map[string]*azurekms.Options{"rsa": nil, "oct": algorithms["A256KW"]} {
		k, err := v.client(t, opts).GenerateDataKey(t.Context(), name, ec)
		require.NoError(t, err)
		require.Less(t, len(k.Ciphertext), 512)
		for _, reader := range []*azurekms.Options{nil, algorithms["A256KW"]} {
			p, err := v.client(t, reader).Decrypt(t.Context(), k.KeyID, k.Ciphertext, ec)
			require.NoError(t, err)
			require.Equal(t, k.Plaintext(), p)
		}
	}
}

// TestCiphertext: its form, of which the suite changes every part.
func TestCiphertext(t *testing.T) {
	v := newPhotos(t)
	c := v.client(t, nil)
	k, err := c.GenerateDataKey(t.Context(), "photos", ec)
	require.NoError(t, err)
	version := versionOf(k.KeyID)
	require.Equal(t, append([]byte{1, 1, 32}, version...), k.Ciphertext[:35])
	require.Equal(t, []byte{1, 0}, k.Ciphertext[35:37], "an RSA key of 2048 bits")
	require.Len(t, k.Ciphertext, 37+256+104)
	wrapped, sealed := k.Ciphertext[37:37+256], k.Ciphertext[37+256:]
	part := func(form, algorithm byte, version string, wrapped, sealed []byte) []byte {
		return slices.Concat([]byte{form, algorithm, byte(len(version))}, []byte(version), []byte{byte(len(wrapped) >> 8), byte(len(wrapped))}, wrapped, sealed)
	}
	require.Equal(t, k.Ciphertext, part(1, 1, version, wrapped, sealed))
	v.Asked()
	for name, data := range map[string][]byte{
		"another format":        part(2, 1, version, wrapped, sealed),
		"no algorithm":          part(1, 0, version, wrapped, sealed),
		"an unknown algorithm":  part(1, 3, version, wrapped, sealed),
		"no version":            part(1, 1, "", wrapped, sealed),
		"a version with a path": part(1, 1, "../x", wrapped, sealed),
		"no wrapped key":        part(1, 1, version, nil, sealed),
		"a long wrapped key":    part(1, 1, version, make([]byte, 1025), sealed),
		"more behind":           part(1, 1, version, wrapped, append(slices.Clone(sealed), 0)),
	} {
		_, err := c.Decrypt(t.Context(), k.KeyID, data, ec)
		kmstest.RequireKind(t, err, kms.ErrCiphertext)
		require.Empty(t, v.Asked(), name)
	}
	// What is asked of Azure, and refused there.
	for name, data := range map[string][]byte{
		"another algorithm": part(1, 2, version, wrapped, sealed),
		"another version":   part(1, 1, "0123456789abcdef0123456789abcdef", wrapped, sealed),
	} {
		id := "photos"
		kind := kms.ErrNotFound // of a version that is not there
		if name == "another algorithm" {
			id, kind = k.KeyID, kms.ErrCiphertext
		}
		_, err := c.Decrypt(t.Context(), id, data, ec)
		kmstest.RequireKind(t, err, kind)
	}
	// Two data keys, and their halves exchanged.
	other, err := c.GenerateDataKey(t.Context(), "photos", ec)
	require.NoError(t, err)
	_, err = c.Decrypt(t.Context(), k.KeyID, part(1, 1, version, wrapped, other.Ciphertext[37+256:]), ec)
	kmstest.RequireKind(t, err, kms.ErrCiphertext)
}

// TestRoles: the client asks for what the documentation's roles allow.
func TestRoles(t *testing.T) {
	v := newPhotos(t)
	c := v.client(t, nil)
	k, err := c.GenerateDataKey(t.Context(), "photos", ec)
	require.NoError(t, err)
	require.Equal(t, []string{"wrapkey photos"}, v.Asked())
	_, err = c.Decrypt(t.Context(), k.KeyID, k.Ciphertext, ec)
	require.NoError(t, err)
	require.Equal(t, []string{"unwrapkey photos/" + versionOf(k.KeyID)}, v.Asked())
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

// TestRotationLocksNothingOut: whatever name a process was set up with, and after
// a restart, it opens the objects of every version of its key, and no object of
// another key or vault.
func TestRotationLocksNothingOut(t *testing.T) {
	v := newVault(t)
	obj := sse.Object{Bucket: "photos", Key: "cat.jpg"}
	sealed := func(keyID string) *sse.Envelope {
		mode, err := sse.NewKMS(v.client(t, nil), keyID, nil)
		require.NoError(t, err)
		e, err := mode.Encrypt(t.Context(), obj)
		require.NoError(t, err)
		return e.Envelope()
	}
	first := v.addVersion("photos", false)
	before := sealed("photos")
	second := v.addVersion("photos", false)
	after := sealed("photos")
	v.addVersion("attacker", false)
	foreign := sealed("attacker")
	require.Equal(t, []string{first, second}, []string{before.KeyID(), after.KeyID()})
	for _, keyID := range []string{"photos", "Photos", first, second, strings.TrimSuffix(first, "/"+versionOf(first))} {
		reader, err := sse.NewKMS(v.client(t, nil), keyID, nil)
		require.NoError(t, err)
		for _, env := range []*sse.Envelope{before, after} {
			_, err = reader.Decrypt(t.Context(), obj, env)
			require.NoError(t, err, "%s opens %s", keyID, env.KeyID())
		}
		v.Asked()
		_, err = reader.Decrypt(t.Context(), obj, foreign)
		require.ErrorIs(t, err, sse.ErrKey)
		require.ErrorContains(t, err, foreign.KeyID())
		require.Empty(t, v.Asked(), "Azure was asked")
	}
}

// TestSSE: objects from end to end.
func TestSSE(t *testing.T) {
	for name, opts := range algorithms {
		t.Run(name, func(t *testing.T) {
			v := newVault(t)
			first := v.addVersion("photos", symmetric(opts))
			mode, err := sse.NewKMS(v.client(t, opts), "photos", nil)
			require.NoError(t, err)
			obj := sse.Object{Bucket: "photos", Key: "2026/cat.jpg", Context: kms.Context{"tenant": "7"}}
			plaintext := bytes.Repeat([]byte("a cat "), 10_000)
			var sealed bytes.Buffer
			w, err := sse.NewWriter(t.Context(), &sealed, mode, obj, nil)
			require.NoError(t, err)
			_, err = w.Write(plaintext)
			require.NoError(t, err)
			require.NoError(t, w.Close())
			read := func(obj sse.Object) error {
				r, err := sse.NewReader(t.Context(), bytes.NewReader(sealed.Bytes()), mode, obj)
				if err != nil {
					return err
				}
				got, err := io.ReadAll(r)
				require.NoError(t, err)
				require.True(t, bytes.Equal(plaintext, got), "another plaintext")
				return nil
			}
			require.NoError(t, read(obj))
			env, err := sse.ReadEnvelope(bytes.NewReader(sealed.Bytes()))
			require.NoError(t, err)
			require.Equal(t, first, env.KeyID(), "objects store the version")
			for name, other := range map[string]sse.Object{
				"object":  {Bucket: "photos", Key: "2026/dog.jpg", AnyContext: true},
				"bucket":  {Bucket: "phots", Key: "2026/cat.jpg", AnyContext: true},
				"context": {Bucket: "photos", Key: "2026/cat.jpg", Context: kms.Context{"tenant": "8"}},
			} {
				require.ErrorIs(t, read(other), sse.ErrKey, name)
			}

			second := v.addVersion("photos", symmetric(opts))
			require.NoError(t, read(obj), "after a rotation")
			d, err := mode.Decrypt(t.Context(), obj, env)
			require.NoError(t, err)
			moved, err := mode.Rewrap(t.Context(), obj, d)
			require.NoError(t, err)
			require.Equal(t, second, moved.KeyID())
			_, err = mode.Decrypt(t.Context(), obj, moved)
			require.NoError(t, err)

			for _, c := range []struct {
				change func(bool)
				kind   error
			}{
				{func(on bool) { v.keys["photos"].disabled = on }, kms.ErrDisabled},
				{func(on bool) { v.denied["unwrapkey"] = on }, kms.ErrDenied},
				{func(on bool) {
					v.Repair()
					if on {
						v.Fail("", azureError(http.StatusServiceUnavailable, "ServiceUnavailable", "", ""))
					}
				}, kms.ErrUnavailable},
			} {
				v.set(func() { c.change(true) })
				err := read(obj)
				require.ErrorIs(t, err, c.kind)
				require.NotErrorIs(t, err, sse.ErrKey)
				v.set(func() { c.change(false) })
				require.NoError(t, read(obj))
			}
			v.set(func() { v.keys["photos"].deleted = true })
			require.ErrorIs(t, read(obj), kms.ErrNotFound)
		})
	}
}
